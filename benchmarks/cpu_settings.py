"""What the settings of a CPU bring: the same training step, or painting, in processes that take turns.

Most of these settings must be made before PyTorch is loaded, so each has a process of its own, which waits while the
others compute. Run it from the repository: ``python -m benchmarks.cpu_settings --help``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.modes import Mode, build, make_step
from benchmarks.record import interleaved, summary, write_json
from ganparts import GENERATORS, Pair
from ganparts.allocation import keep_freed_memory
from ganparts.precision import choose_inference, infer
from ganparts.training import PolicyOptions


@dataclass(frozen=True)
class Setting:
    """How a process computes."""

    environment: dict[str, str] = field(default_factory=dict)
    threads: int | None = None
    flush_denormals: bool = False
    layout: str = "channels_first"
    compiled: bool = False


SETTINGS = {
    "as it comes": Setting(),
    "one thread": Setting(threads=1),
    "threads bound to cores": Setting({"OMP_PROC_BIND": "true"}),
    "passive waits": Setting({"OMP_WAIT_POLICY": "PASSIVE"}),
    "large pages": Setting({"THP_MEM_ALLOC_ENABLE": "1"}),
    "memory given back": Setting({"MALLOC_CHECK_": "0"}),  # which changes nothing itself: see keep_freed_memory
    "denormals flushed": Setting(flush_denormals=True),
    "channels last": Setting(layout="channels_last"),
    "compiled": Setting(compiled=True),
}
"""By name; the first one is what the others are compared with."""


@dataclass(frozen=True)
class Config:
    """How long a step takes under each setting, as a ratio to the first."""

    names: tuple[str, ...] = tuple(name for name in SETTINGS if name != "compiled")
    """Of the settings; "compiled" takes minutes more."""
    task: Literal["train", "paint"] = "train"
    """A step of CycleGAN, or a generator's pass over a batch as `ganparts translate` makes it."""
    generator: str = "resnet9"
    """A registered generator."""
    size: int = 128
    """Height and width of the images, in pixels."""
    batch_size: int = 1
    """Pairs a step, or images a pass."""
    width: int = 64
    """Channels after the first convolution of each network; the one that paints has its own."""
    precision: str = "auto"
    """auto, fp32 or bf16."""
    rounds: int = 7
    """Counted steps of each."""
    warmup: int = 1
    """Steps of each before them."""
    out: Path = Path("benchmarks/results/cpu_settings.json")
    """Where the record goes."""


def make_call(config: Config, setting: Setting) -> Callable[[], object]:
    """The step, under a setting of this process."""
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    torch.set_flush_denormal(setting.flush_denormals)
    torch.manual_seed(0)
    if config.task == "paint":
        return make_painting(config)
    model = build(config.generator, width=config.width, identity_weight=5.0, replay="none")
    pair = Pair(*(torch.rand(2, config.batch_size, 3, config.size, config.size) * 2 - 1))
    policy = PolicyOptions(config.precision, setting.layout, "1", "off", "on" if setting.compiled else "off")  # pyright: ignore[reportArgumentType]
    return make_step(Mode(policy), model, pair)


def make_painting(config: Config) -> Callable[[], object]:
    """A pass of the generator, with memory kept as the commands keep it."""
    keep_freed_memory()
    network = GENERATORS.create(config.generator)
    assert isinstance(network, torch.nn.Module)
    network.eval()
    precision = choose_inference(network, config.precision)[0]  # pyright: ignore[reportArgumentType]
    images = torch.rand(config.batch_size, 3, config.size, config.size) * 2 - 1

    def paint() -> None:
        with torch.inference_mode():
            infer(network, images, precision)

    return paint


def work(config: Config, name: str) -> None:
    """Take a step and say how long it took, each time that a line comes in."""
    call = make_call(config, SETTINGS[name])
    for _ in sys.stdin:
        start = perf_counter()
        call()
        print(perf_counter() - start, flush=True)


class Process:
    """A process under a setting, which steps when it is called."""

    def __init__(self, config: Config, name: str):
        words = [
            f"--{key.replace('_', '-')}={value}" for key, value in vars(config).items() if key not in ("names", "out")
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cpu_settings", *words, "--names", name],
            env=os.environ | SETTINGS[name].environment | {"GANPARTS_BENCHMARK_WORKER": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        if not self.process.stdout.readline():
            raise RuntimeError(f"the process {self.process.args} ended")

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    if "GANPARTS_BENCHMARK_WORKER" in os.environ:
        return work(config, config.names[0])
    first, *others = dict.fromkeys((next(iter(SETTINGS)), *config.names))
    processes = {name: Process(config, name) for name in (first, *others)}
    device = torch.device("cpu")
    try:
        seconds = interleaved(processes, rounds=config.rounds, warmup=config.warmup, device=device)
    finally:
        for process in processes.values():
            process.end()
    results, table = [], Table("setting", "ms", "as it comes / this")
    for name, taken in seconds.items():
        ratio = round(statistics.median(a / b for a, b in zip(seconds[first], taken, strict=True)), 3)
        results.append({"setting": name, **summary(taken), "gain": ratio})
        table.add_row(name, f"{1e3 * statistics.median(taken):.0f}", f"{ratio:.3f}")
    Console(width=100).print(table)
    write_json(config.out, settings=vars(config), results=results, device=device)


if __name__ == "__main__":
    main()
