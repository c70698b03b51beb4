"""Kill runs at random instants, go on with them, and compare their end with that of a run that was never stopped.

A run writes a checkpoint after every step, so that many of the instants lie in a write. Everything random that a run
can have decides its weights: dropout, augmentation, a replay buffer that is full, averages, a penalty. It is scored as
it goes. Each run is started by forking a process that has imported everything. With ``--processes 2`` two processes
train together as under torchrun; one of them is killed, and the other must end, too. Run it from the repository:
``python -m benchmarks.faults --help``.
"""

from __future__ import annotations

import os
import random
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch comes: threads do not live on in a forked process

import torch
import tyro
from rich.console import Console

import ganparts.metrics  # imported before the first fork, not in every run
import ganparts.training.planning
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
    processes: int = 1
    """Of a run, which train together; one of them is killed."""
    kills: int = 2
    """Kills of a run at most; fewer if its steps are done before."""
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
    anywhere: float = 0.2
    """Share of kills at any instant, also before the first step; the others come after a step that is new."""
    seed: int = 0
    """Of the instants."""
    out: Path = Path("benchmarks/results/cpu_faults.json")
    """Where the record goes."""


def start(arguments: list[str], log: Path, *, processes: int = 1, forget: bool = False) -> list[int]:
    """Fork the processes of a run of the recipe; their ids.

    Args:
        arguments: of its command line.
        log: what it says is appended there.
        processes: how many train together.
        forget: a checkpoint's random states are not restored.
    """
    port = _free_port() if processes > 1 else 0
    return [_fork(arguments, log, rank, processes, port, forget) for rank in range(processes)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _fork(arguments: list[str], log: Path, rank: int, processes: int, port: int, forget: bool) -> int:
    process = os.fork()
    if process:
        return process
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if processes > 1:  # as torchrun sets them
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        values = (rank, rank, processes, processes, "127.0.0.1", port)
        os.environ |= {name: str(value) for name, value in zip(names, values, strict=True)}
    code = 70
    try:
        sys.argv = [str(RECIPE), *arguments]
        # the estimate would take most of so short a run
        ganparts.training.planning.plan_memory = lambda *_, **__: MemoryPlan("fast", MemoryNeed(1.0, 1.0))
        if forget:
            Checkpoint.restore_random_states = lambda self: None
        runpy.run_path(str(RECIPE), run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(processes: list[int]) -> list[int]:
    """Wait for a run; the exit codes of its processes, negative for the signal that ended one."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def kill(processes: list[int], victim: int, reached: Callable[[], bool], seconds: float) -> tuple[list[int], float]:
    """Kill a process of a run so many seconds after the run has reached something.

    Others that have not ended after 10 seconds get SIGTERM, as from torchrun.

    Returns:
        Exit codes as of :func:`finish`, and the seconds from the kill to the end of the last process.
    """
    while not reached() and not all(_ended(each) for each in processes):
        time.sleep(0.002)
    time.sleep(seconds)
    killed = time.monotonic()
    os.kill(processes[victim], signal.SIGKILL)  # until we wait for it, an ended process keeps its id
    while time.monotonic() < killed + 10 and not all(_ended(each) for each in processes):
        time.sleep(0.002)
    for each in processes:
        if not _ended(each):
            os.kill(each, signal.SIGTERM)
    return finish(processes), time.monotonic() - killed


def _ended(process: int) -> bool:
    """Whether a process ended; its exit code is left to be read."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def rows(out: Path) -> int:
    """How many steps a run has logged."""
    losses = out / "losses.csv"
    return max(0, losses.read_text().count("\n") - 1) if losses.exists() else 0


def options(config: Config, out: Path) -> list[str]:
    """The command line of a small run that saves after every step."""
    small = ["--preset", "paper", "--width", "2", "--crop", "32", "--resize", "32"]
    small += ["--batch-size", "2", "--paint", "1", "--device", "cpu"]
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
    out, log = folder / f"run{number}", folder / f"run{number}.log"
    killed: list[float] = []
    trained: list[int] = []
    ended: list[float] = []
    arguments = options(config, out)
    begin = partial(start, log=log, processes=config.processes, forget=config.forget_random_states)
    kills = draws.randint(1, config.kills)
    for left in range(kills, 0, -1):
        done = rows(out)
        if done >= config.steps:
            break
        processes, victim = begin(arguments), draws.randrange(config.processes)
        began = time.monotonic()
        if draws.random() < config.anywhere:
            row, wait = 0, draws.uniform(0, seconds)
        else:
            row, wait = done + draws.randint(1, max(1, (config.steps - done) // left)), draws.uniform(0, 0.05)
        codes, waited = kill(processes, victim, lambda row=row: rows(out) >= row, wait)
        if codes[victim] == -signal.SIGKILL:
            killed.append(round(time.monotonic() - waited - began, 3))
            trained.append(max(0, rows(out) - done))
            ended.append(round(waited, 3))
        if any(out.glob("checkpoint*.pt")):  # else it was killed before it began
            arguments = ["--resume", str(out)]
    codes = finish(begin(arguments))
    result: dict[str, Any] = {"run": number, "killed_after_s": killed, "killed_after_new_steps": trained}
    result |= {"exit_codes": codes, "identical": False}
    if config.processes > 1:
        result["others_ended_after_s"] = ended
    if not any(codes):
        result["identical"] = same(last_checkpoint(out), expected)
    elif log.exists():
        result["said"] = log.read_text().splitlines()[-40:]
    shutil.rmtree(out, ignore_errors=True)
    return result


def last_checkpoint(out: Path) -> dict[str, Any]:
    """All that a run's last checkpoint holds but its configuration, which names the folder: the step, the states of all
    networks, optimizers and buffers, and the random numbers' states, of each process.
    """
    return {
        name: held for name, held in torch.load(out / "checkpoint.pt", weights_only=True).items() if name != "config"
    }


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
    said = ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GANPARTS_CACHE"] = str(folder / "cache")
        before = time.monotonic()
        if any(finish(start(options(config, folder / "whole"), folder / "whole.log", processes=config.processes))):
            print((folder / "whole.log").read_text())
            return 1
        seconds = time.monotonic() - before  # with what only the first run does: features of the real images
        expected = last_checkpoint(folder / "whole")
        assert expected["step"] == config.steps
        for number in range(config.runs):
            results.append(trial(config, number, folder, seconds, expected))
            said = record(config, results, seconds)  # after each, so that what was done is kept if this is stopped
    console = Console()
    for result in results:
        if not result["identical"]:
            console.print(result)
    console.print(said)
    return int(not all(result["identical"] for result in results))


def record(config: Config, results: list[dict[str, Any]], seconds: float) -> str:
    """Write the record, and sum it up."""
    identical = sum(result["identical"] for result in results)
    killed = sum(len(result["killed_after_s"]) for result in results)
    trained = sum(steps > 0 for result in results for steps in result["killed_after_new_steps"])
    settings = vars(config) | {"runs_done": len(results), "kills_done": killed, "kills_after_a_new_step": trained}
    settings |= {"seconds_of_a_run": round(seconds, 2), "identical": identical}
    write_json(config.out, settings=settings, results=results, device=torch.device("cpu"))
    return (
        f"{identical} of {len(results)} runs ended bit for bit as the uninterrupted one; "
        f"{killed} kills, {trained} of them after a new step"
    )


if __name__ == "__main__":
    sys.exit(main())
