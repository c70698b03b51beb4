"""Kill runs at random instants, go on with them, and compare their end with that of a run that was never stopped.

A run writes a checkpoint after every step, so that many of the instants lie in a write. Everything random that a run
can have decides its weights: dropout, augmentation, a replay buffer that is full, averages, a penalty. It is scored as
it goes. Each run is started by forking a process that has imported everything. Run it from the repository:
``python -m benchmarks.faults --help``.
"""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch comes: threads do not live on in a forked process

import torch
import tyro
from rich.console import Console

import ganparts.metrics  # imported before the first fork, not in every run
import ganparts.training.loop
from benchmarks.record import write_json
from ganparts.adversarial import MemoryNeed, MemoryPlan
from ganparts.registry import PENALTIES
from ganparts.training import Checkpoint

RECIPE = Path(__file__).parent.parent / "recipes" / "cyclegan_monet.py"


@dataclass(frozen=True)
class Config:
    """Kill runs with SIGKILL at random instants, resume them until they end, compare weights bit for bit."""

    runs: int = 100
    """Runs, each killed at least once."""
    kills: int = 2
    """Kills of a run at most."""
    steps: int = 8
    """Steps of a run."""
    workers: int = 0
    """Processes that decode images."""
    evaluate_every: int | None = 3
    """Steps between two evaluations; None for none."""
    penalty: str | None = "r1" if "r1" in PENALTIES else None
    """Penalty on the discriminators, at every second step; None for none."""
    forget_random_states: bool = False
    """Resume without the checkpoint's random states, to see that they matter: all runs should then end otherwise."""
    anywhere: float = 0.5
    """Share of kills at any instant of a run; the others come between its second step and its last."""
    seed: int = 0
    """Of the instants."""
    out: Path = Path("benchmarks/results/cpu_faults.json")
    """Where the record goes."""


def start(arguments: list[str], log: Path, *, forget: bool = False) -> int:
    """Fork a run of the recipe; its process id.

    Args:
        arguments: of its command line.
        log: what it says is appended there.
        forget: a checkpoint's random states are not restored.
    """
    process = os.fork()
    if process:
        return process
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 70
    try:
        sys.argv = [str(RECIPE), *arguments]
        # the estimate would take most of so short a run
        ganparts.training.loop.plan_memory = lambda *_, **__: MemoryPlan("fast", MemoryNeed(1.0, 1.0))
        if forget:
            Checkpoint.restore_random_states = lambda self: None
        runpy.run_path(str(RECIPE), run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(process: int) -> int:
    """Wait for a run; its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill(process: int, reached: Callable[[], bool], seconds: float) -> int:
    """Kill a run so many seconds after it has reached something; its exit code, as of :func:`finish`."""
    while not reached():
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return finish(process)


def rows(out: Path) -> int:
    """How many steps a run has logged."""
    losses = out / "losses.csv"
    return max(0, losses.read_text().count("\n") - 1) if losses.exists() else 0


def options(config: Config, out: Path) -> list[str]:
    """The command line of a small run that saves after every step."""
    small = ["--width", "2", "--crop", "32", "--resize", "32", "--batch-size", "2", "--paint", "1", "--device", "cpu"]
    chance = ["--generator", "resnet6(dropout=0.5)", "--augment", "diffaugment", "--replay", "history(size=3)"]
    chance += ["--ema-decay", "0.9"]
    if config.penalty is not None:
        chance += ["--penalty", config.penalty, "--penalty-every", "2"]
    often = ["--log-every", "1", "--sample-every", "3", "--checkpoint-every", "1", "--workers", str(config.workers)]
    if config.evaluate_every is not None:
        often += ["--evaluate-every", str(config.evaluate_every), "--evaluate-photos", "4"]
    return [*small, *chance, *often, "--steps", str(config.steps), "--out", str(out)]


def trial(config: Config, number: int, folder: Path, seconds: float, expected: dict[str, Any]) -> dict[str, Any]:
    """Kill one run, perhaps again when it goes on, and let it end."""
    draws = random.Random(f"{config.seed} {number}")
    out, log, killed = folder / f"run{number}", folder / f"run{number}.log", []
    arguments = options(config, out)
    for _ in range(draws.randint(1, config.kills)):
        process = start(arguments, log, forget=config.forget_random_states)
        began = time.monotonic()
        if draws.random() < config.anywhere:
            row, wait = 0, draws.uniform(0, seconds)
        else:
            row, wait = draws.randint(2, max(2, config.steps - 2)), draws.uniform(0, 0.05)
        if kill(process, lambda row=row: rows(out) >= row, wait) == -signal.SIGKILL:
            killed.append(round(time.monotonic() - began, 3))
        if any(out.glob("checkpoint*.pt")):  # else it was killed before it began
            arguments = ["--resume", str(out)]
    code = finish(start(arguments, log, forget=config.forget_random_states))
    result: dict[str, Any] = {"run": number, "killed_after_s": killed, "exit_code": code, "identical": False}
    if code == 0:
        step, states = step_and_states(out)
        result["identical"] = step == config.steps and same(states, expected)
    elif log.exists():
        result["said"] = log.read_text().splitlines()[-40:]
    return result


def step_and_states(out: Path) -> tuple[int, dict[str, Any]]:
    """What a run's last checkpoint holds."""
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    return saved["step"], saved["states"]


def same(states: Any, expected: Any) -> bool:
    """Whether two nested states agree in every bit."""
    if isinstance(expected, torch.Tensor):
        return torch.equal(states, expected)
    if isinstance(expected, dict):
        return states.keys() == expected.keys() and all(same(states[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(states) == len(expected) and all(map(same, states, expected))
    return states == expected


def main() -> int:
    config = tyro.cli(Config, description=__doc__)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GANPARTS_CACHE"] = str(folder / "cache")
        before = time.monotonic()
        if finish(start(options(config, folder / "whole"), folder / "whole.log")) != 0:
            print((folder / "whole.log").read_text())
            return 1
        seconds = time.monotonic() - before  # with what only the first run does: features of the real images
        _, expected = step_and_states(folder / "whole")
        for number in range(config.runs):
            results.append(trial(config, number, folder, seconds, expected))
    killed = sum(len(result["killed_after_s"]) for result in results)
    identical = sum(result["identical"] for result in results)
    console = Console()
    for result in results:
        if not result["identical"]:
            console.print(result)
    console.print(f"{identical} of {len(results)} runs ended bit for bit as the uninterrupted one; {killed} kills")
    settings = vars(config) | {"kills_done": killed, "seconds_of_a_run": round(seconds, 2), "identical": identical}
    write_json(config.out, settings=settings, results=results, device=torch.device("cpu"))
    return int(identical != len(results))


if __name__ == "__main__":
    sys.exit(main())
