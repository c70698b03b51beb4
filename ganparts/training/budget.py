"""A run's length from a number of hours: the first steps are timed, and the number of steps follows."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["TimeBudget"]

_WARM_UP = 5  # steps that are not timed: libraries choose their algorithms, graphs are recorded
_LEAST_STEPS, _LEAST_SECONDS = 20, 20.0  # that are timed
_SPARE = 0.98  # of the time is planned for


class TimeBudget:
    """Times a run's first steps.

    Args:
        hours: for the whole run, from ``began`` on.
        began: when the run began, by ``clock``.
        clock: seconds.
    """

    def __init__(self, hours: float, *, began: float, clock: Callable[[], float] = time.monotonic):
        self.end, self.clock = began + _SPARE * 3600 * hours, clock
        self._first: tuple[int, float] | None = None

    def measure(self, step: int, wait: Callable[[], object], *, aside: float = 0.0) -> float | None:
        """The seconds that a step takes, or None while they are not known yet. Call it after each step.

        Args:
            step: steps done.
            wait: waits until the device has finished.
            aside: seconds since the run began that went into something else than steps: evaluations.
        """
        if self._first is None:
            if step >= _WARM_UP:
                wait()
                self._first = step, self.clock() - aside
            return None
        timed = step - self._first[0]
        late = self.clock() >= self.end
        if timed < 1 or (not late and (timed < _LEAST_STEPS or self.clock() - aside - self._first[1] < _LEAST_SECONDS)):
            return None
        wait()
        return (self.clock() - aside - self._first[1]) / timed

    def steps(self, done: int, pace: float, evaluation: float, painting: float) -> int:
        """The number of steps of the whole run.

        Args:
            done: steps done.
            pace: seconds of a step.
            evaluation: seconds that evaluations take, per step.
            painting: seconds that are needed for the last step and after it.
        """
        left = self.end - self.clock() - painting
        return done + max(1, int(left / (pace + evaluation)))
