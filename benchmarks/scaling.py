"""What it costs to average gradients between processes: its share of a training step.

Starts the processes by torchrun on this machine; on CPUs they talk by gloo, on GPUs by NCCL. Before each average the
processes wait for each other, so that waiting for the slower one is counted apart.

Run it from the repository: ``python -m benchmarks.scaling --help``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.optim import Optimizer

from benchmarks.modes import build
from benchmarks.record import summary, write_json
from ganparts import Pair, make_optimizers, train_step
from ganparts.adversarial import GradientAverage, copy_from_first
from ganparts.distributed import highest, is_first, join, leave, processes, rank, wait_for_all
from ganparts.training import pick_device


@dataclass(frozen=True)
class Config:
    """The time of a step in several processes, and what averaging takes of it."""

    processes: int = 2
    """How many to start; one, with the batch of all, is what several compare with."""
    generator: str = "resnet9"
    """A registered generator."""
    size: int = 64
    """Height and width of the images, in pixels."""
    batch_size: int = 1
    """Pairs a step, of each process."""
    width: int = 64
    """Channels after the first convolution of each network."""
    rounds: int = 5
    """Counted steps."""
    warmup: int = 1
    """Steps before them."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path = Path("benchmarks/results/scaling.json")
    """Where the record goes."""


class _Timed:
    """Averages gradients, and notes the seconds that it waited and that it took."""

    def __init__(self, device: torch.device):
        self.average, self.device = GradientAverage(), device
        self.waited = self.took = 0.0
        self.bytes = 0

    def __call__(self, optimizer: Optimizer) -> None:
        _finish(self.device)
        before = perf_counter()
        wait_for_all()
        begun = perf_counter()
        self.average(optimizer)
        _finish(self.device)
        self.waited += begun - before
        self.took += perf_counter() - begun
        gradients = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        self.bytes += sum(gradient.numel() * gradient.element_size() for gradient in gradients)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(config: Config) -> None:
    """Train in this process, one of several; the first one writes and shows what it found."""
    device = pick_device(config.device)
    model = build(config.generator, width=config.width, identity_weight=5.0, replay="none").to(device)
    copy_from_first([*model.parameters(), *model.buffers()])
    timed = _Timed(device)
    optimizers = make_optimizers(model, average=timed if processes() > 1 else None)
    torch.manual_seed(rank())
    pair = Pair(*torch.rand(2, config.batch_size, 3, config.size, config.size, device=device))
    steps, waits, averages, agreements = [], [], [], []
    for turn in range(config.warmup + config.rounds):
        timed.waited = timed.took = 0.0
        timed.bytes = 0
        wait_for_all()
        begun = perf_counter()
        train_step(model, pair, optimizers)
        _finish(device)
        trained = perf_counter()
        wait_for_all()
        agreed = perf_counter()
        highest(turn)
        if turn >= config.warmup:
            steps.append(trained - begun)
            waits.append(timed.waited)
            averages.append(timed.took)
            agreements.append(perf_counter() - agreed)
    if is_first():
        whole = sum(steps)
        row = {
            "processes": processes(),
            "generator": config.generator,
            "size": config.size,
            "batch_size": config.batch_size,
            "step": summary(steps),
            "waiting": summary(waits),
            "averaging": summary(averages),
            "agreement": summary(agreements),
            "mib_averaged": round(timed.bytes / 2**20, 2),
            "waiting_share": round(sum(waits) / whole, 4),
            "averaging_share": round(sum(averages) / whole, 4),
        }
        write_json(config.out, settings=vars(config), results=[row], device=device)
        table = Table("processes", "step ms", "MiB averaged", "averaging", "waiting", "agreement ms")
        table.add_row(
            str(row["processes"]),
            f"{row['step']['median_ms']:.1f}",
            f"{row['mib_averaged']:.1f}",
            f"{row['averaging_share']:.2%}",
            f"{row['waiting_share']:.2%}",
            f"{row['agreement']['median_ms']:.2f}",
        )
        Console(width=120).print(table)


def main() -> int:
    config = tyro.cli(Config, description=__doc__)
    if "WORLD_SIZE" in os.environ:
        join()
        measure(config)
        wait_for_all()
        leave()
        return 0
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(config.processes)]
    program = ["--module", "benchmarks.scaling", *sys.argv[1:]]
    return subprocess.run([sys.executable, "-m", *launch, *program], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
