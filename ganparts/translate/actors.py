"""What an actor of a cluster does with its work: it reads, translates and writes, and says what became of it."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ganparts.allocation import keep_freed_memory
from ganparts.translate.addresses import Place, Work
from ganparts.translate.pipeline import Report, Settings, translate_photos, wanted_photos
from ganparts.translate.sinks import Claim, Sink
from ganparts.translate.sources import ARCHIVE_ERRORS, NO_IMAGES, Member, Photo, images_in, open_archive

__all__ = ["ATTEMPTS", "Attempts", "Outcome", "Painter", "Results", "Setup"]

ATTEMPTS = 3  # after which work whose process died each time is given up
_REMOTE_READERS = 16  # threads, which wait for the network most of their time


@dataclass(frozen=True)
class Outcome:
    """What became of a piece of work."""

    target: str
    written: bool = True
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    encoded: bytes = b""
    given_up: bool = False


@dataclass(frozen=True)
class Setup:
    """What an actor is given once."""

    generator: Callable[[Tensor], Tensor]
    settings: Settings
    out: Place
    overwrite: bool
    cores: int

    def work_off(self, work: Sequence[Work], attempt: int) -> list[Outcome]:
        """Translate and write photos and archives."""
        if attempt > ATTEMPTS:
            return [Outcome(each.target, given_up=True) for each in work]
        outcomes: list[Outcome] = []
        if attempt > 1 and not self.overwrite and not self.out.is_archive:
            outcomes = [Outcome(each.target) for each in work if (self.out / each.target).exists()]
            written = {outcome.target for outcome in outcomes}
            work = [each for each in work if each.target not in written]
        outcomes += [self._translate_archive(each) for each in work if each.whole]
        photos, results = [(each.target, each) for each in work if not each.whole], Results(self.out)
        remote = not (self.out.is_local and all(each.place.is_local for _, each in photos))
        self._translate(iter(photos), results, Report(), _REMOTE_READERS if remote else self.cores)
        return outcomes + results.outcomes

    def _translate_archive(self, work: Work) -> Outcome:
        report, format = Report(), self.settings.encoding.format
        with ExitStack() as opened:
            try:
                archive = opened.enter_context(open_archive(str(opened.enter_context(work.place.fetched()))))
                photos = [Member(archive, member, name, str(work)) for name, member in images_in(archive)]
                problem = "" if photos else NO_IMAGES
            except ARCHIVE_ERRORS as error:
                photos, problem = [], f"an archive that cannot be read: {error}"
            if problem:
                return Outcome(work.target, written=False, failed=1, problems=[f"{work}: {problem}"])
            with (self.out / work.target).archive(overwrite=True) as sink:
                wanted = wanted_photos(photos, sink, lambda photo: f"{photo.name}.{format}", report)
                self._translate(wanted, sink, report, self.cores)
        return Outcome(work.target, failed=report.failed, problems=report.problems)

    def _translate(self, wanted: Iterator[tuple[str, Photo]], sink: Sink, report: Report, workers: int) -> None:
        translate_photos(self.generator, wanted, sink, self.settings, workers=workers, report=report)


class Painter:
    """An actor: lists of work go in, outcomes come out."""

    def __init__(self, setup: Any, attempts: Any, gpu: bool):
        import ray

        self.setup: Setup = ray.get(setup)
        self.attempts = attempts
        torch.set_num_threads(self.setup.cores)
        if gpu and isinstance(self.setup.generator, torch.nn.Module):
            self.setup.generator.to("cuda")
        else:
            keep_freed_memory()

    def __call__(self, row: dict[str, Any]) -> list[dict[str, bytes]]:
        import ray

        attempt = cast(int, ray.get(self.attempts.count.remote(row["name"])))
        outcomes: list[Any]
        try:
            outcomes = self.setup.work_off(pickle.loads(row["work"]), attempt)
        except Exception as error:  # as one that the other process knows, too
            known = isinstance(error, OSError | ValueError) and type(error).__module__ == "builtins"
            outcomes = [error if known else RuntimeError(f"{type(error).__name__}: {error}")]
        return [{"outcome": pickle.dumps(outcome)} for outcome in outcomes]


class Results:
    """Where an actor writes, or collects for the process that writes the archive, and what becomes of its work."""

    def __init__(self, out: Place):
        self.out, self.path = out, Path(str(out))
        self.outcomes: list[Outcome] = []

    def claim(self, name: str) -> Claim:
        return "free"

    def write(self, name: str, encoded: bytes) -> None:
        if self.out.is_archive:
            self.outcomes.append(Outcome(name, encoded=encoded))
        else:
            (self.out / name).write(encoded)
            self.outcomes.append(Outcome(name))

    def release(self, name: str, reason: str) -> None:
        self.outcomes.append(Outcome(name, written=False, failed=1, problems=[reason]))

    def close(self, *, whole: bool) -> None:
        pass


class Attempts:
    """An actor that counts how often each call was begun."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, name: str) -> int:
        self.counts[name] += 1
        return self.counts[name]
