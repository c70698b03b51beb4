"""Many tiny steps of a whole run: does its memory grow, or the number of its files and threads?

A run of ``recipes/cyclegan_monet.py`` with the smallest networks logs every step, evaluates nothing, and saves
checkpoints, sample grids and reports as it goes; another process looks at it. Linux only. Run it from the repository:
``python -m benchmarks.endurance --help``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from rich.console import Console

from benchmarks.record import write_json

ROOT = Path(__file__).parent.parent
TINY = (
    *("--preset", "paper", "--device", "cpu"),
    *("--generator", "painter(width=2,blocks=1)", "--discriminator", "pixel(width=2)"),
    *(
        "--resize",
        "16",
        "--crop",
        "16",
        "--replay",
        "history(size=8)",
        "--ema-decay",
        "0.99",
        "--augment",
        "diffaugment",
    ),
    *("--log-every", "1", "--paint", "4"),
)


@dataclass(frozen=True)
class Config:
    """Train for many steps, and watch the process."""

    steps: int = 20_000
    """Of the run."""
    save_every: int = 1000
    """Steps between two checkpoints and two sample grids."""
    every: float = 1.0
    """Seconds between two looks."""
    out: Path = Path("benchmarks/results/cpu_endurance.json")
    """Where the record goes."""


class Look(NamedTuple):
    """What a process holds at a step."""

    step: int
    mib: float
    files: int
    threads: int


def look(process: int, losses: Path) -> Look | None:
    """What the process holds now; None before its first step and after its end."""
    folder = Path("/proc") / str(process)
    try:
        step = _last_step(losses)
        pages = int((folder / "statm").read_text().split()[1])
        files, threads = len(os.listdir(folder / "fd")), len(os.listdir(folder / "task"))
    except (OSError, ValueError, IndexError):
        return None
    return Look(step, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threads)


def _last_step(losses: Path) -> int:
    with losses.open("rb") as file:
        file.seek(max(0, losses.stat().st_size - 4096))
        return int(file.read().splitlines()[-1].partition(b",")[0])


def growth(looks: list[Look], steps: int) -> dict[str, Any]:
    """The medians of the second fifth of a run and of its last, and what a thousand steps added."""
    early = [each for each in looks if 0.2 * steps <= each.step < 0.4 * steps]
    late = [each for each in looks if each.step >= 0.8 * steps]
    if not (early and late):
        raise ValueError(f"a run of {steps} steps is too short to look at it: give more steps, or look more often")
    middle = {name: (_median(early, name), _median(late, name)) for name in Look._fields}
    distance = (middle["step"][1] - middle["step"][0]) / 1000
    kib = 1024 * (middle["mib"][1] - middle["mib"][0]) / distance
    return {name: list(pair) for name, pair in middle.items()} | {"kib_per_1000_steps": round(kib, 2)}


def _median(looks: list[Look], name: str) -> float:
    return statistics.median(getattr(each, name) for each in looks)


def main(config: Config) -> None:
    """Run, watch and record."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        often = [f"--{kind}-every={config.save_every}" for kind in ("checkpoint", "sample")]
        command = [sys.executable, str(ROOT / "recipes" / "cyclegan_monet.py"), *TINY, *often]
        process = subprocess.Popen(
            [*command, "--steps", str(config.steps), "--out", str(run)], stdout=subprocess.DEVNULL
        )
        looks: list[Look] = []
        while process.poll() is None:
            time.sleep(config.every)
            if (found := look(process.pid, run / "losses.csv")) is not None:
                looks.append(found)
        if process.returncode:
            raise SystemExit(process.returncode)
    found = growth(looks, config.steps)
    for name in ("mib", "files", "threads"):
        console.print(f"{name}: {found[name][0]:g} early, {found[name][1]:g} late")
    console.print(f"{found['kib_per_1000_steps']} KiB a thousand steps")
    write_json(
        config.out, settings={"steps": config.steps, "command": TINY}, results=[found], device=torch.device("cpu")
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
