"""The folder of a run: its files, and how they are written."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.disk import replace_file
from ganparts.distributed import from_first, gather, highest, is_first, processes, rank
from ganparts.pretrained import ModelCard, save_pretrained
from ganparts.training.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    newest_checkpoint,
    own_state,
    previous_checkpoint,
    save_checkpoint,
)
from ganparts.training.record import compare_records, make_record
from ganparts.training.report import write_report
from ganparts.training.samples import fetch_later, paint_grid, save_grid
from ganparts.training.scorebook import Scorebook

__all__ = ["NotFiniteError", "RunFolder"]

_COPIES = 2  # the newest checkpoint, and the one before
_TRIES = 3
_REPORT_SECONDS = 60.0  # between two versions of the report while nothing else asks for one


class NotFiniteError(ValueError):
    """Training cannot go on, since numbers are not finite; the message says where the last good state is."""


class RunFolder:
    """A run's configuration, losses, warnings, samples, checkpoints, weights, paintings and report.

    ==========================  =============================================================
    ``config.json``             options, the numbers that they settled on, machine, versions
    ``losses.csv``              a row every so many steps
    ``warnings.jsonl``          early warnings, if there were any
    ``scores.csv``              a row an evaluation, if there were any
    ``samples/``                grids of the same photos, ``step_0000270.png``
    ``checkpoint.pt``           everything that a run needs to go on
    ``checkpoint_before.pt``    the one before it
    ``best.json``               the best score, and its step
    ``generator/``              weights and configuration for ``from_pretrained``: the best scored, else the newest
    ``images.zip``              paintings
    ``report.html``             all of it to look at
    ==========================  =============================================================

    Pictures and the report are written in a thread of their own, so that training never waits for them.

    Of several processes that train together only the first one touches the folder. All of them must call
    :meth:`start`, :meth:`save` and :meth:`recover`: a checkpoint holds what is each one's own.

    Args:
        path: made if it does not exist.
        options: as the user gave them; they go into checkpoints too. Paths become text.
        settled: the numbers of the run; a resumed run must have the same.
        parts: what is trained, by name.
        stateful: what a checkpoint holds, by name: the ``model``, the optimizers.

    Use it as a context manager, in which it is open for writing. ``state`` says how the run ended: set it to
    ``"finished"`` when it did.
    """

    def __init__(
        self,
        path: Path,
        *,
        options: dict[str, Any],
        settled: dict[str, Any],
        parts: Mapping[str, object] | None = None,
        **stateful: Any,
    ):
        self.path, self.stateful = path, stateful
        self.losses, self.generator, self.images = path / "losses.csv", path / "generator", path / "images.zip"
        self.warnings, self.checkpoint = path / "warnings.jsonl", path / CHECKPOINT
        self.scores = Scorebook(path)
        device = next(stateful["model"].parameters()).device
        self.config = make_record(options=options, settled=settled, parts=parts or {}, device=device)
        self._writer = futures.ThreadPoolExecutor(1, thread_name_prefix="run folder")
        self._written: list[futures.Future[object]] = []
        self._reported = 0.0
        self._rolled_back = self._good_step = 0
        self.state = "stopped"

    def start(self, *, resume: bool) -> Checkpoint | None:
        """Begin a run, or put back what the newest whole checkpoint holds, and write ``config.json``.

        A new run saves its first checkpoint here, so that a full disk or a read-only folder is noticed before training.

        Returns:
            The checkpoint of a resumed run. Restore its random states last, just before training goes on.

        Raises:
            ValueError: the checkpoint's run had other numbers or parts; the message names them. Or the folder holds a
                run, and ``resume`` is False. Or no checkpoint can be read.
            OSError: the folder cannot be written, has no room, or has no checkpoint.
        """
        found = from_first(lambda: self._find(resume=resume))
        if found is not None:
            found = found.of_rank(rank())
            found.restore(**self.stateful)
            self._good_step = found.step
            if is_first():
                self.scores.forget_beyond(found.step)
        from_first(self._prepare)
        if found is None:
            self.save(0)
        return found

    def _find(self, *, resume: bool) -> Checkpoint | None:
        if not resume and (self.checkpoint.exists() or previous_checkpoint(self.checkpoint).exists()):
            raise ValueError(
                f"{self.path} holds a run already: go on with it (--resume {self.path}), or take another folder"
            )
        if not resume:
            return None
        found = newest_checkpoint(self.checkpoint)
        compare_records(found.config, self.config, checkpoint=found.path)
        return found

    def _prepare(self) -> None:
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            self._check_room()
            self._write_config()
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"cannot write the run folder {self.path}: {reason}; take another one") from None

    def settle(self, **numbers: Any) -> None:
        """Write down numbers that the run settled on later, such as its length."""
        self.config["settled"] |= numbers
        self._write_config()

    def _write_config(self) -> None:
        if is_first():
            replace_file(self.path / "config.json", (json.dumps(self.config, indent=2) + "\n").encode())

    def _check_room(self) -> None:
        weights = sum(p.numel() * p.element_size() for p in self.stateful["model"].parameters())
        needed, free = _COPIES * 4 * weights, shutil.disk_usage(self.path).free  # with Adam's two averages, and more
        if free < needed:
            raise OSError(f"its checkpoints need about {needed / 2**20:.1f} MiB, and {free / 2**20:.1f} are free")

    def save(self, step: int) -> bool:
        """Write the checkpoint; the one that was there becomes the one before.

        Returns:
            Whether it was written; weights or statistics that are not finite are not saved.

        Raises:
            OSError: it cannot be written; the one before it is whole.
        """
        networks = [each for each in self.stateful.values() if isinstance(each, nn.Module)]  # and their averages
        everything = chain.from_iterable(chain(each.parameters(), each.buffers()) for each in networks)
        tensors = [value for value in everything if value.is_floating_point()]
        if highest(not bool(torch.isfinite(torch.nn.utils.get_total_norm(tensors)))):
            return False
        self._write_checkpoint(step)
        self._rolled_back, self._good_step = 0, step
        return True

    def _write_checkpoint(self, step: int) -> None:
        ranks = None
        if processes() > 1:
            own = own_state(self.stateful["model"])
            ranks = gather(own | {"buffers": {}} if is_first() else own)  # the first one's are in the model's state
        if is_first():
            save_checkpoint(self.checkpoint, step=step, config=self.config, ranks=ranks, **self.stateful)

    def recover(self, step: int, how: str) -> int:
        """Act on losses, gradients or weights that are not finite.

        Args:
            step: after which they were not.
            how: ``"rollback"``: put the last checkpoint's weights and states back, and go on with the data to come,
                from a checkpoint of this step; else stop.

        Returns:
            The step whose weights they are.

        Raises:
            NotFiniteError: the run must stop: ``how`` says so, or going back did not help three times.
        """
        newest = from_first(lambda: newest_checkpoint(self.checkpoint)).of_rank(rank())
        if how != "rollback" or self._rolled_back == _TRIES:
            tried = f" again, after going back {_TRIES} times" if self._rolled_back else ""
            raise NotFiniteError(
                f"losses, gradients or weights are not finite at step {step}{tried}. The last state that was is in "
                f"{newest.path}: take a lower learning rate, or another precision"
            )
        self._rolled_back += 1
        newest.restore(**self.stateful)
        newest.restore_random_states()
        self._write_checkpoint(step)
        return self._good_step

    def export(self, stages: Mapping[str, nn.Module], card: ModelCard) -> None:
        """Write the generators as pretrained folders: the first as ``generator/``, others under their own name."""
        if not is_first():
            return
        for place, (name, network) in enumerate(stages.items()):
            save_pretrained(network, self.path / name if place else self.generator, card=card)

    def save_samples(self, step: int, images: Tensor, stages: Sequence[nn.Module]) -> None:
        """Make the grid of a step (see :func:`paint_grid`); write it and renew the report in the background."""
        if not is_first():
            return
        fetch = fetch_later(paint_grid(images, stages))
        self._in_background(lambda: save_grid(self.path / "samples" / f"step_{step:07d}.png", fetch()))
        self.refresh_report(every=0)

    def newest_sample(self) -> Path | None:
        """The last grid that was painted, once it is written; None if there is none."""
        futures.wait(self._written)
        return max((self.path / "samples").glob("step_*.png"), default=None)

    def refresh_report(self, *, every: float = _REPORT_SECONDS) -> None:
        """Renew ``report.html`` in the background if it is older than so many seconds."""
        if is_first() and time.monotonic() - self._reported >= every:
            self._reported = time.monotonic()
            self._in_background(lambda: write_report(self.path, state="running"))

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until everything is written, the last report too, which says how the run ended: ``state``."""
        state = self.state if kind is None else "crashed"
        if is_first():
            self._in_background(lambda: write_report(self.path, state=state))
        self._writer.shutdown(wait=True)
        self._say_what_failed()

    def _in_background(self, task: Callable[[], object]) -> None:
        self._say_what_failed()
        self._written.append(self._writer.submit(task))

    def _say_what_failed(self) -> None:
        for future in [future for future in self._written if future.done()]:
            self._written.remove(future)
            if error := future.exception():
                warnings.warn(f"a sample or the report could not be written: {error}", stacklevel=3)
