"""Damaged files: each is read, or refused with one sentence that names it; nothing crashes, hangs, swells or runs code.

Images, TFRecords, checkpoints, configurations and weights are made from the sample and damaged (see
``benchmarks/mutations.py``), then read in a forked process with a limit on its memory and on the time of each file.
It needs Linux or macOS. Run it from the repository: ``python -m benchmarks.fuzz --help``; what fails comes again with
``--kinds KIND --seed SEED --only NUMBER``.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.mutations import OWNED, WHOLE, WRITERS, run_of_a_checkpoint
from benchmarks.record import write_json
from ganparts.data import DataError, open_images
from ganparts.interchange import from_junyanz, from_pretrained
from ganparts.registry import UnknownPartError
from ganparts.training import load_checkpoint

__all__ = ["Outcome", "attempt", "fuzz", "judged", "read_whole"]

Kind = Literal["image", "tfrecord", "checkpoint", "config", "weights"]
LONGEST = 2000  # characters of a sentence, its file's name left out
# what code in a file would do, as Python's audit events; reading itself opens files, lists folders and imports modules
SUSPICIOUS = ("os.", "shutil.", "socket.", "subprocess.", "pty.", "webbrowser.")
HARMLESS = ("os.listdir", "os.scandir", "os.walk")


@dataclass(frozen=True)
class Config:
    """Read damaged files of every kind."""

    count: int = 10_000
    """Files of all kinds together."""
    seed: int = 0
    """Decides what they are."""
    kinds: tuple[Kind, ...] = ("image", "tfrecord", "checkpoint", "config", "weights")
    """What is read."""
    only: int | None = None
    """The number of one file, to read it alone."""
    seconds: int = 20
    """What a file may take."""
    mebibytes: int = 4096
    """What reading may add to the process's memory."""
    out: Path = Path("benchmarks/results/fuzz.json")
    """Where the record goes."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    kind: str
    number: int
    verdict: Literal["read", "refused", "failed"]
    reason: str = ""
    seconds: float = 0.0
    peak_mebibytes: int = 0


def _read_images(folder: Path) -> None:
    images = open_images(folder)
    for i in range(len(images)):
        images[i]


def _read_records(folder: Path) -> None:
    with contextlib.suppress(DataError):  # nothing is left
        for _ in open_images(folder, skip_unreadable=True).readable():
            pass
    _read_images(folder)


def _read_weights(folder: Path) -> None:
    if not (folder / "x.pth").exists():
        from_pretrained(folder)
        return
    try:
        weights = torch.load(folder / "x.pth", weights_only=True)
    except Exception as error:  # PyTorch's own refusal, before anything of ours
        raise DataError(f"{folder}: PyTorch does not load it") from error
    try:
        from_junyanz(weights)
    except (TypeError, ValueError) as error:  # it is given no file whose name it could say
        raise DataError(f"{folder}: {error}") from error


READERS: dict[str, Callable[[Path], object]] = {
    "image": _read_images,
    "tfrecord": _read_records,
    "checkpoint": lambda folder: load_checkpoint(folder / "checkpoint.pt", **run_of_a_checkpoint()),
    "config": from_pretrained,
    "weights": _read_weights,
}


def judged(read: Callable[[Path], object], folder: Path) -> tuple[Literal["read", "refused", "failed"], str]:
    """Read what is in ``folder``; the verdict and, if there is an error, what it says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(folder)
    except (ValueError, FileNotFoundError, UnknownPartError) as error:
        text = str(error)
        failure = _fault(error, text, folder)
        verdict = ("failed", f"{failure}: {text}") if failure else ("refused", text)
    except BaseException as error:
        verdict = ("failed", f"{type(error).__name__} escaped: {error}")
    else:
        verdict = ("read", "")
    if (folder / OWNED).exists():
        return "failed", "it ran code"
    return verdict


def _fault(error: BaseException, text: str, folder: Path) -> str | None:
    """What is wrong with a refusal."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(e, MemoryError) or "allocate memory" in str(e) or "not enough memory" in str(e) for e in chain):
        return "it ran out of memory"
    if isinstance(error, UnicodeError):
        return "an error of Python's own"
    if str(folder) not in text:
        return "it does not name the file"
    if "\n" in text or len(text.replace(str(folder), "")) > LONGEST:
        return f"{len(text)} characters in {text.count(chr(10)) + 1} lines are no sentence"
    return None


def attempt(kind: str, seed: int, number: int, folder: Path) -> Outcome:
    """Make file ``number`` of a kind in the empty ``folder``, and read it."""
    global _watching
    WRITERS[kind](random.Random(f"{seed} {kind} {number}"), folder)
    start = perf_counter()
    _watching = seen = []
    verdict, reason = judged(READERS[kind], folder)
    _watching = None
    if seen:
        verdict, reason = "failed", f"it did {', '.join(sorted(set(seen)))}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
    return Outcome(kind, number, verdict, reason[:LONGEST], perf_counter() - start, peak)


def read_whole(kind: str) -> None:
    """Read files without a mistake, which imports what reading needs.

    Raises:
        RuntimeError: they are not read.
    """
    with tempfile.TemporaryDirectory() as name:
        WHOLE[kind](Path(name))
        verdict = judged(READERS[kind], Path(name))
    if verdict != ("read", ""):
        raise RuntimeError(f"a whole file of kind {kind!r} is not read: {verdict}")


_watching: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is not None and event.startswith(SUSPICIOUS) and event not in HARMLESS:
        _watching.append(event)


def _work(connection: Any, config: Config, kind: str, numbers: list[int]) -> None:
    """In the forked process: read, and say what became of each."""
    gc.freeze()  # what the fork brought along need not be looked at again
    sys.addaudithook(_watch)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes there
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        limit = used + config.mebibytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in numbers:
        folder = Path(tempfile.mkdtemp(prefix="fuzz"))
        try:
            signal.alarm(config.seconds)  # unhandled, it ends the process wherever it is
            outcome = attempt(kind, config.seed, number, folder)
            signal.alarm(0)
        finally:
            shutil.rmtree(folder)
        connection.send(outcome)
    connection.close()


def fuzz(config: Config, kind: str, numbers: list[int]) -> Iterator[Outcome]:
    """What becomes of each of these files; one that kills the process is known by that."""
    context = multiprocessing.get_context("fork")
    while numbers:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, config, kind, numbers))
        process.start()
        sender.close()
        try:
            while numbers:
                yield receiver.recv()
                numbers = numbers[1:]
        except EOFError:
            pass
        process.join()
        if numbers:
            code = process.exitcode
            hung = f"it took more than {config.seconds} s"
            end = hung if code == -signal.SIGALRM else f"the process ended with {code}"
            yield Outcome(kind, numbers[0], "failed", end)
            numbers = numbers[1:]


def main() -> int:
    config = tyro.cli(Config, description=__doc__)
    torch.set_num_threads(1)  # threads do not survive a fork
    console, outcomes = Console(), []
    share = -(-config.count // len(config.kinds))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for kind in config.kinds:
            read_whole(kind)
            numbers = list(range(share)) if config.only is None else [config.only]
            outcomes += progress.track(fuzz(config, kind, numbers), total=len(numbers), description=kind)
    table = Table("kind", "read", "refused", "failed", "slowest s", "most MiB")
    rows = []
    for kind in config.kinds:
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        counts = Counter(outcome.verdict for outcome in mine)
        row = {verdict: counts[verdict] for verdict in ("read", "refused", "failed")}
        slowest, most = max(o.seconds for o in mine), max(o.peak_mebibytes for o in mine)
        table.add_row(kind, *map(str, row.values()), f"{slowest:.2f}", str(most))
        failures = [asdict(outcome) for outcome in mine if outcome.verdict == "failed"]
        rows.append({"kind": kind, **row, "slowest_s": round(slowest, 3), "most_mib": most, "failures": failures})
    console.print(table)
    failed = [outcome for outcome in outcomes if outcome.verdict == "failed"]
    for outcome in failed:
        again = f"--kinds {outcome.kind} --seed {config.seed} --only {outcome.number}"
        console.print(f"{again}: {outcome.reason[:300]}", markup=False, highlight=False, soft_wrap=True)
    write_json(config.out, settings=vars(config), results=rows, device=torch.device("cpu"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
