"""What the settings of a CPU bring: the same training step under each of them, in processes that take turns.

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

import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.modes import Mode, build, make_step
from benchmarks.record import interleaved, summary, write_json
from ganparts import Pair
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
    "memory kept": Setting({"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}),
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
    generator: str = "resnet9"
    """A registered generator."""
    size: int = 128
    """Height and width of the images, in pixels."""
    batch_size: int = 1
    """Pairs a step."""
    width: int = 64
    """Channels after the first convolution of each network."""
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
    model = build(config.generator, width=config.width, identity_weight=5.0, replay="none")
    pair = Pair(*(torch.rand(2, config.batch_size, 3, config.size, config.size) * 2 - 1))
    policy = PolicyOptions(config.precision, setting.layout, "1", "off", "on" if setting.compiled else "off")  # pyright: ignore[reportArgumentType]
    return make_step(Mode(policy), model, pair)


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
