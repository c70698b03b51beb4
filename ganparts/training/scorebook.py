"""The scores of a run's evaluations: ``scores.csv``, a row an evaluation, and ``best.json``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from ganparts.disk import replace_file
from ganparts.training.monitor import append_row, drop_rows_beyond

__all__ = ["Scorebook"]


class Scorebook:
    """Reads and writes the scores in a run folder. Lower is better.

    Args:
        folder: of the run; it need not exist yet.
    """

    def __init__(self, folder: Path):
        self._table, self._best = folder / "scores.csv", folder / "best.json"

    @property
    def begun(self) -> bool:
        """Whether there are scores."""
        return self._table.exists() and self._table.stat().st_size > 0

    def has(self, step: int) -> bool:
        """Whether those of a step were written."""
        return any(row["step"] == str(step) for row in self._rows())

    def since_best(self, value: float, *, metric: str) -> int:
        """How many scores there are since the best one, if this is the next; 0 if it is the best."""
        values = [*(float(row[metric]) for row in self._rows()), value]
        return len(values) - 1 - min(range(len(values)), key=lambda place: (values[place], place))

    def save(self, step: int, scores: Mapping[str, float], *, metric: str, best: bool) -> None:
        """Write the scores of a step. The row comes last: it says that all else was done.

        Args:
            step: of the checkpoint.
            scores: by name.
            metric: the one that decides.
            best: whether these are the best so far.
        """
        if best:
            content = {"step": step, "metric": metric, "value": scores[metric]}
            replace_file(self._best, (json.dumps(content) + "\n").encode())
        append_row(self._table, {"step": step, **scores})

    def forget_beyond(self, step: int) -> None:
        """Drop the scores of later steps, which a resumed run will take again."""
        drop_rows_beyond(self._table, step)

    def _rows(self) -> list[dict[str, str]]:
        if not self.begun:
            return []
        with self._table.open() as file:
            return list(csv.DictReader(file))
