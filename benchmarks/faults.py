"""Kill runs at random instants, go on with them, and compare their end with that of a run that was never stopped.

A run writes a checkpoint after every step, so that many of the instants lie in a write. Each is started by forking a
process that has imported everything. Run it from the repository: ``python -m benchmarks.faults --help``.
"""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch comes: threads do not live on in a forked process

import torch
import tyro
from rich.console import Console

import ganparts.training  # noqa: F401 (imported before the first fork, not in every run)
from benchmarks.record import write_json

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
    seed: int = 0
    """Of the instants."""
    out: Path = Path("benchmarks/results/cpu_faults.json")
    """Where the record goes."""


def start(arguments: list[str], log: Path) -> int:
    """Fork a run of the recipe; its process id."""
    process = os.fork()
    if process:
        return process
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 70
    try:
        sys.argv = [str(RECIPE), *arguments]
        runpy.run_path(str(RECIPE), run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(process: int) -> int:
    """Wait for a run; its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def options(config: Config, out: Path) -> list[str]:
    """The command line of a small run that saves after every step."""
    small = ["--width", "2", "--generator", "resnet6", "--image-size", "32", "--batch-size", "2", "--paint", "1"]
    often = ["--log-every", "1", "--sample-every", "3", "--checkpoint-every", "1", "--workers", str(config.workers)]
    return [*small, *often, "--device", "cpu", "--steps", str(config.steps), "--ema-decay", "0.9", "--out", str(out)]


def trial(config: Config, number: int, folder: Path, seconds: float, expected: dict[str, Any]) -> dict[str, Any]:
    """Kill one run, perhaps again when it goes on, and let it end."""
    draws = random.Random(f"{config.seed} {number}")
    out, log, killed = folder / f"run{number}", folder / f"run{number}.log", []
    arguments = options(config, out)
    for _ in range(draws.randint(1, config.kills)):
        process = start(arguments, log)
        instant = draws.uniform(0, seconds)
        time.sleep(instant)
        os.kill(process, signal.SIGKILL)
        if finish(process) == -signal.SIGKILL:
            killed.append(round(instant, 3))
        if any(out.glob("checkpoint*.pt")):  # else it was killed before it began
            arguments = ["--resume", str(out)]
    code = finish(start(arguments, log))
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
        before = time.monotonic()
        if finish(start(options(config, folder / "whole"), folder / "whole.log")) != 0:
            print((folder / "whole.log").read_text())
            return 1
        seconds = time.monotonic() - before
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
