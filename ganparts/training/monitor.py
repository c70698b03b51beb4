"""A run's progress bar, and its CSV of losses."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from ganparts.disk import naming_file, replace_file
from ganparts.optional import require

__all__ = ["Monitor", "append_row", "drop_rows_beyond"]

ItemT = TypeVar("ItemT")


class Monitor:
    """Shows progress, losses, pairs a second, time left and the share of time spent waiting for data, and appends
    losses to a CSV.

    Losses stay on the device between logged steps; only :meth:`log` fetches them, in one transfer. If the output is not
    a terminal, a plain line twice a minute replaces the bar.

    Args:
        csv_path: appended to, after rows beyond ``start`` are dropped; begun with a header if it does not exist. None
            for nothing.
        steps: of the whole run; None if it is not known yet (see :meth:`set_length`).
        start: steps already done.
        pairs: in a step; a pair is a photo and a painting.
        every: steps between two logged ones.
        console: where to show it.
        tensorboard: a folder for TensorBoard's files, or None.

    Raises:
        ImportError: TensorBoard is wanted but not installed.
    """

    def __init__(
        self,
        csv_path: Path | None,
        *,
        steps: int | None,
        start: int,
        pairs: int,
        every: int,
        console: Console | None = None,
        tensorboard: Path | None = None,
    ):
        self.board = None if tensorboard is None else _summary_writer(tensorboard, start)
        self.csv_path, self.pairs, self.every, self.steps = csv_path, pairs, every, steps
        self.console = console or Console()
        if csv_path is not None:
            drop_rows_beyond(csv_path, start)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=16),
            TimeRemainingColumn(),
            TextColumn("left  {task.fields[rate]}"),
        )
        self.task = self.progress.add_task("", total=steps, completed=start, rate="")
        self.losses = Text()
        self.live = Live(Group(self.progress, self.losses), console=self.console, refresh_per_second=4)
        self._start = self._since = time.perf_counter()
        self._since_step, self._waited, self._printed = start, 0.0, 0.0

    def __enter__(self) -> Monitor:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        if self.board is not None:
            self.board.close()

    def set_length(self, steps: int) -> None:
        """Say how many steps the run has."""
        self.steps = steps
        self.progress.update(self.task, total=steps)

    def timed(self, batches: Iterable[ItemT]) -> Iterator[ItemT]:
        """Yield batches, and time the wait for each."""
        iterator = iter(batches)
        while True:
            before = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            yield batch

    def is_due(self, step: int) -> bool:
        """Whether a step is one to be logged: every so many, the first and the last."""
        self.progress.update(self.task, completed=step)
        return step % self.every == 0 or step in (1, self.steps)

    def log(self, step: int, losses: dict[str, Tensor], learning_rate: float) -> dict[str, float]:
        """Show and write a step's losses.

        Args:
            step: steps done, this one included.
            losses: and whatever else is to be written down, scalars on the device.
            learning_rate: that the step used.

        Returns:
            The values of ``losses``.
        """
        values = dict(zip(losses, torch.stack([loss.float() for loss in losses.values()]).tolist(), strict=True))
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rate, waiting = self.pairs * (step - self._since_step) / seconds, self._waited / seconds
        self._since, self._since_step, self._waited = now, step, 0.0
        row = {"step": step, "learning_rate": learning_rate, "pairs_per_second": round(rate, 3)}
        row |= {"data_wait": round(waiting, 4)} | values
        if self.csv_path is not None:
            append_row(self.csv_path, row)
        self._show(step, values, f"{rate:.1f} pairs/s, {waiting:.1%} waiting for data")
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, step)
        return values

    def _show(self, step: int, values: dict[str, float], rate: str) -> None:
        self.progress.update(self.task, rate=rate)
        shown = "  ".join(
            f"{name} {value:.2f}" for name, value in values.items() if not name.startswith(("grad_norm", "loss_scale"))
        )
        self.losses.plain = shown
        elapsed = time.perf_counter() - self._start
        if not self.console.is_terminal and (step == self.steps or elapsed - self._printed >= 30):
            self._printed = elapsed
            self.console.print(f"step {step}/{self.steps or '?'}  {rate}  {shown}")


def drop_rows_beyond(path: Path, step: int) -> None:
    """Drop rows of steps that a run which goes on does again, and what a crash left half written."""
    if path.exists():
        header, *rows = path.read_text().splitlines(keepends=True) or [""]
        whole = [row for row in rows if row.endswith("\n") and row.split(",")[0].isdigit()]
        kept = [row for row in whole if int(row.split(",")[0]) <= step]
        replace_file(path, "".join([header, *kept] if kept else []).encode())


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Append a row to a CSV; a name that is new becomes a column, and what a row lacks stays empty."""
    text = path.read_text() if path.exists() and path.stat().st_size and not row.keys() <= set(_header(path)) else ""
    if text:  # rare: a new name, such as a penalty's that comes every 16 steps
        rows = list(csv.DictReader(io.StringIO(text)))
        columns = list(dict.fromkeys([*_header(path), *row]))
        table = io.StringIO()
        writer = csv.DictWriter(table, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, row])
        replace_file(path, table.getvalue().encode())
        return
    columns = _header(path) or list(row)
    with naming_file(path), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def _header(path: Path) -> list[str]:
    """The columns of a CSV, none if there is none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _summary_writer(folder: Path, start: int) -> Any:
    tensorboard = require("torch.utils.tensorboard", "tensorboard", "tensorboard", what="TensorBoard's log")
    return tensorboard.SummaryWriter(str(folder), purge_step=start + 1)
