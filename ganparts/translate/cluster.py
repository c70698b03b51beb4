"""Photos by the million on many machines: Ray Data hands their names to actors, each with the generator on a GPU.

An actor reads, translates and writes as :func:`~ganparts.translate.translate_files` does. The process that the user
started lists the photos and counts the results by name.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from ganparts.blocks import check_counts
from ganparts.optional import require
from ganparts.precision import InferencePrecision, choose_inference
from ganparts.translate.actors import ATTEMPTS, Attempts, Outcome, Painter, Setup
from ganparts.translate.addresses import Place, Work, find_work, open_target
from ganparts.translate.encoding import Encoding, Subsampling
from ganparts.translate.pipeline import Report, Settings, wanted_photos
from ganparts.translate.sources import given_names

__all__ = ["translate_on_cluster"]

_BATCHES = 16  # in a call of an actor: as much is done again when its process dies
_CALLS = 10_000  # in a run, about, since Ray takes some milliseconds for each


def translate_on_cluster(
    generator: Callable[[Tensor], Tensor],
    inputs: Path | str | Iterable[Path | str],
    out: Path | str,
    *,
    address: str | None = None,
    actors: int | None = None,
    cores: int | None = None,
    device: str = "auto",
    size: int | None = None,
    resize: int | None = None,
    squash: bool = False,
    batch_size: int | None = None,
    margin: int = 0,
    tile: int | None = None,
    precision: InferencePrecision = "auto",
    format: Literal["jpg", "png"] = "jpg",
    quality: int = 95,
    subsampling: Subsampling = "4:2:0",
    overwrite: bool = False,
    progress: Callable[[Report, int], None] = lambda report, total: None,
) -> Report:
    """:func:`translate_files` on a Ray cluster, for places that all its machines see: shared folders, object stores.

    Sub-folders are looked into and kept. An archive in a folder becomes an archive of the same name, which one process
    translates. An archive that is given by name, or any if ``out`` is one, is opened, and many processes translate its
    photos.

    If a process dies, another one takes over, and translates what is not written yet. Work whose process dies each time
    fails. The machines need the same packages. They get the generator pickled, so they need no file of it.

    Args:
        generator: trained, in ``eval()`` mode, on the CPU.
        inputs: one or several: files, folders, patterns, archives (.zip, .tar), or addresses of these that fsspec knows
            (``s3://bucket/photos``).
        out: a folder, an archive if it ends in .zip or .tar, or the address of one.
        address: of the cluster, as ``ray.init`` takes it. None: the one that ``RAY_ADDRESS`` names or that runs on
            this machine; else this machine alone.
        actors: processes that translate; None for as many as the cluster has room for.
        cores: for each of them; None for a GPU's share of its machine, at most 8, or at most 4 without GPUs.
        device: "cuda" for a GPU each, "cpu" for none, "auto" for a GPU each if the cluster has any.
        size: see :func:`translate_files`, as for all that follow.
        resize: their shorter side instead.
        squash: distort photos that are not square.
        batch_size: None for 16 on a GPU, and 1 on a CPU.
        margin: mirrored pixels on each side, which are cut off afterwards.
        tile: see :func:`translate`.
        precision: likewise; each process chooses for its machine.
        format: of the results.
        quality: of JPEGs.
        subsampling: of JPEGs.
        overwrite: translate photos whose results are there already.
        progress: called after some photos each, with the report and how many results and failures to expect.

    Returns:
        How many results were written and how many were there already (an archive in a folder is one), how many photos
        failed, and why.

    Raises:
        ImportError: Ray is not installed, or the package for an address is not.
        ConnectionError: there is no cluster at ``address``.
        ValueError: an option is out of range, the cluster has no room for an actor, or ``out`` is among the inputs.
        OSError: a result cannot be written.
    """
    for name, value in (("actors", actors), ("cores", cores)):
        if value is not None:
            check_counts(**{name: value})
    given = given_names(inputs)
    encoding, report, place = Encoding(format, quality, subsampling), Report(), Place.of(out)
    choose_inference(generator, precision)
    suits = Settings(encoding, size, squash, 1 if batch_size is None else batch_size, tile, precision, resize, margin)
    with _cluster(address), open_target(place, overwrite=overwrite) as sink:
        pool = _Pool.planned(device, actors, cores)
        settings = replace(suits, batch_size=16) if pool.gpus and batch_size is None else suits
        found = find_work(given, place, format, report.fail)
        waiting = {work.target: work for _, work in wanted_photos(found, sink, lambda work: work.name, report)}
        total = len(waiting) + report.skipped + report.failed
        progress(report, total)
        setup = Setup(generator, settings, place, overwrite, pool.cores)
        at_once = min(
            max(_BATCHES * settings.batch_size, len(waiting) // _CALLS), -(-len(waiting) // (4 * pool.actors))
        )
        for most in (at_once, 1):  # what died with others is tried again by itself
            for outcome in pool.run(setup, list(waiting.values()), most):
                if not outcome.given_up and waiting.pop(outcome.target, None):
                    if outcome.encoded:
                        sink.write(outcome.target, outcome.encoded)
                    _count(outcome, report)
                    progress(report, total)
        for work in waiting.values():
            report.fail(f"{work}: the process that translated it died {ATTEMPTS} times. Is there too little memory?")
        progress(report, total)
    return report


def _count(outcome: Outcome, report: Report) -> None:
    report.written += outcome.written
    for problem in outcome.problems:
        report.fail(problem)
    report.failed += outcome.failed - len(outcome.problems)


@dataclass(frozen=True)
class _Pool:
    """The actors that a cluster has room for."""

    actors: int
    cores: int
    gpus: int

    @classmethod
    def planned(cls, device: str, actors: int | None, cores: int | None) -> _Pool:
        """Use the whole cluster.

        Raises:
            ValueError: it has no room for an actor.
        """
        import ray

        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        sizes = [(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in machines]
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device={device!r}: on a cluster it is 'auto', 'cpu' or 'cuda', and Ray picks the card")
        gpus = int(device != "cpu" and any(gpu for _, gpu in sizes))
        if device == "cuda" and not gpus:
            raise ValueError("no machine of the cluster has a GPU: start Ray with --num-gpus, or take device 'cpu'")
        sizes = [(cpu, gpu) for cpu, gpu in sizes if cpu and (gpu or not gpus)]
        if cores is None:
            cores = min([8, *(max(1, cpu // gpu) for cpu, gpu in sizes)] if gpus else [4, *(cpu for cpu, _ in sizes)])
        room = sum(min(cpu // cores, gpu) if gpus else cpu // cores for cpu, gpu in sizes)
        if not room:
            raise ValueError(f"no machine of the cluster has {cores} cores{' and a GPU' * gpus} for an actor: {sizes}")
        return cls(actors or room, cores, gpus)

    def run(self, setup: Setup, work: Sequence[Work], most: int) -> Iterator[Outcome]:
        """Work through a list, at most ``most`` photos or one archive a call of an actor."""
        import ray.data

        photos = [each for each in work if not each.whole]
        calls = [[each] for each in work if each.whole]
        calls += [photos[start : start + most] for start in range(0, len(photos), max(1, most))]
        if not calls:
            return
        rows = [{"name": uuid.uuid4().hex, "work": pickle.dumps(call)} for call in calls]
        attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
        outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
            Painter,
            fn_constructor_args=(ray.put(setup), attempts, bool(self.gpus)),
            compute=ray.data.ActorPoolStrategy(size=min(self.actors, len(rows))),
            num_cpus=self.cores,
            num_gpus=self.gpus or None,
        )
        for row in outcomes.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one of this machine; Ray keeps its own messages to itself."""
    for module in ("ray", "ray.data"):
        require(module, "ray", "ray", what="translating on a cluster")
    import ray
    import ray.data

    context, ours = ray.data.DataContext.get_current(), not ray.is_initialized()
    loggers = {name: logging.getLogger(name) for name in ("ray.data", "ray.data._internal.progress")}
    before = context.enable_progress_bars, context.print_on_execution_start, [each.level for each in loggers.values()]
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # what Ray starts here has the priority of this process
        at_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            raise ConnectionError(f"{error}: is it running, and does this machine have its token?") from None
        finally:
            in_main = threading.current_thread() is threading.main_thread()
            if in_main and at_sigterm not in (None, signal.SIG_DFL):
                signal.signal(signal.SIGTERM, at_sigterm)  # Ray has put its own in place of the caller's
    try:
        context.enable_progress_bars = context.print_on_execution_start = False
        for logger, level in zip(loggers.values(), (logging.WARNING, logging.ERROR), strict=True):
            logger.setLevel(level)
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        for logger, level in zip(loggers.values(), before[2], strict=True):
            logger.setLevel(level)
        if ours:
            ray.shutdown()
