"""Processor time of ``import ganparts`` against ``import torch``, each in a fresh process, taking turns.

Run it from the repository: ``python -m benchmarks.import_time --help``.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.record import summary, write_json


@dataclass(frozen=True)
class Config:
    """Processor time of ``import ganparts`` against ``import torch``."""

    rounds: int = 11
    """Counted imports of each."""
    out: Path = Path("benchmarks/results/import_time.json")
    """Where the record goes."""


def processor_seconds(module: str) -> float:
    """User and system time of a process that imports ``module``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    seconds: dict[str, list[float]] = {"torch": [], "ganparts": []}
    for turn in range(config.rounds + 1):
        for module, times in seconds.items():
            time = processor_seconds(module)
            if turn:  # the first fills the disk's cache
                times.append(time)
    ratio = statistics.median(g / t for t, g in zip(*seconds.values(), strict=True))
    print(f"ganparts / torch: {ratio:.3f}")
    results = [
        {**{module: summary(times) for module, times in seconds.items()}, "ganparts_over_torch": round(ratio, 3)}
    ]
    write_json(config.out, settings=vars(config), results=results, device=torch.device("cpu"))


if __name__ == "__main__":
    main()
