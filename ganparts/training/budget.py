"""How many steps a run has: from its hours and the time that the first steps take, or, resumed, from its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ganparts.training.checkpoint import Checkpoint

__all__ = ["TimeBudget", "resumed_length"]

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


def resumed_length(
    steps: int | None, found: Checkpoint, options: Any, schedule: Callable[[int, int], float]
) -> int | None:
    """The steps of a resumed run; it may get longer if its learning rates so far would have been the same.

    Args:
        steps: that its options ask for now; None if hours decide.
        found: its checkpoint.
        options: of the run, as they are now.
        schedule: the factor on learning rates at a step of so many.

    Raises:
        ValueError: the learning rates so far would have been others.
    """
    before = found.config["settled"].get("steps")
    if before is None:
        return steps
    began_with = found.config["options"]
    lengths = ("steps", "epochs", "hours")
    if steps is None or steps == before or all(began_with.get(n) == getattr(options, n) for n in lengths):
        return before
    done = found.step
    if steps < done or any(schedule(n, steps) != schedule(n, before) for n in _spread(min(done, before))):
        raise ValueError(
            f"the run in {options.folder} had {before} steps, and its learning rates up to step {done} would have been "
            f"others in one of {steps}: start a new run from its weights (--init {options.folder})"
        )
    return steps


def _spread(count: int) -> Iterable[int]:
    """Some numbers below ``count``, the last one among them."""
    return {*range(0, count, max(1, count // 1000)), *range(max(0, count - 1), count)}
