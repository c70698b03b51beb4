"""How many steps a run has: from its hours and the time that steps take, or, resumed, from its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ganparts.training.checkpoint import Checkpoint

__all__ = ["TimeBudget", "changed_length", "resumed_length"]

_WARM_UP = 5  # steps that are not timed: libraries choose their algorithms, graphs are recorded
_LEAST_STEPS, _LEAST_SECONDS = 20, 20.0  # that are timed at first; later the steps alone count
_SPARE = 0.98  # of the time is planned for
_LEAST_CHANGE = 0.05  # of a planned length


class TimeBudget:
    """Plans a run's length by the time that its first steps take, and anew by the time that later ones take.

    Args:
        hours: for the whole run, from ``began`` on.
        began: when the run began, by ``clock``.
        done: steps that were done before.
        clock: seconds.
    """

    def __init__(self, hours: float, *, began: float, done: int = 0, clock: Callable[[], float] = time.monotonic):
        self.end, self.clock = began + _SPARE * 3600 * hours, clock
        self._evaluation = self._painting = self._began = 0.0
        self._start, self._least_seconds = done + _WARM_UP, _LEAST_SECONDS
        self.due = self._start + 1
        """The step after which a measurement is due."""

    def is_due(self, step: int) -> bool:
        """Whether :meth:`measure` is to be called after a step: the same in all processes."""
        return step == self._start or step >= self.due

    def put_off(self, step: int, steps: int | None) -> None:
        """Measure again from the next step on: a quarter of the steps done, or half of those left, but 20 at least."""
        left = step if steps is None else steps - step
        self._start, self._least_seconds = step + 1, 0.0
        self.due = self._start + max(_LEAST_STEPS, min(step // 4, left // 2))

    def set_aside(self, *, evaluation: float, painting: float) -> None:
        """Leave time for what is not training.

        Args:
            evaluation: seconds that evaluations take, per step.
            painting: seconds that are needed for the last step and after it.
        """
        self._evaluation, self._painting = evaluation, painting

    def measure(self, step: int, wait: Callable[[], object], *, aside: float = 0.0) -> float | None:
        """The seconds that a step takes, or None while too few were timed. Call it where :meth:`is_due` says so.

        Args:
            step: steps done.
            wait: waits until the device has finished.
            aside: seconds since the run began that went into something else than steps: evaluations.
        """
        if step == self._start:
            wait()
            self._began = self.clock() - aside
            return None
        timed, late = step - self._start, self.clock() >= self.end
        if not late and (timed < _LEAST_STEPS or self.clock() - aside - self._began < self._least_seconds):
            return None
        wait()
        return (self.clock() - aside - self._began) / timed

    def steps(self, done: int, pace: float) -> int:
        """The number of steps of the whole run, of which ``done`` are done and each takes ``pace`` seconds."""
        left = self.end - self.clock() - self._painting
        return done + max(1, int(left / (pace + self._evaluation)))


def changed_length(
    steps: int | None, planned: int, schedule: Callable[[int, int], float], *, done: int, until: int
) -> int:
    """The length that a run takes on: the planned one, or what comes nearest to it with the same learning rates so far.

    Args:
        steps: of the whole run until now; None if it had no length yet.
        planned: steps that would fill its time. If the length found differs by 5% or less, ``steps`` stays.
        schedule: the factor on learning rates at a step of so many.
        done: steps done.
        until: the step of the next measurement. The rates of a shorter run stay the same until then, so that a moment
            in which the machine was busy does not make them fall.
    """
    if steps is None:
        return planned
    kept = done if planned > steps else until
    fits, wished = (planned if _same_rates(schedule, kept, planned, steps) else steps), planned
    while abs(wished - fits) > 1:
        middle = (fits + wished) // 2
        if _same_rates(schedule, kept, middle, steps):
            fits = middle
        else:
            wished = middle
    return fits if abs(fits - steps) > _LEAST_CHANGE * steps else steps


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
    if steps < done or not _same_rates(schedule, min(done, before), steps, before):
        raise ValueError(
            f"the run in {options.folder} had {before} steps, and its learning rates up to step {done} would have been "
            f"others in one of {steps}: start a new run from its weights (--init {options.folder})"
        )
    return steps


def _same_rates(schedule: Callable[[int, int], float], count: int, *lengths: int) -> bool:
    """Whether the learning rates of so many steps are the same in runs of all these lengths."""
    return min(lengths) >= count and all(
        len({schedule(number, length) for length in lengths}) == 1 for number in _spread(count)
    )


def _spread(count: int) -> Iterable[int]:
    """Some numbers below ``count``, the last one among them."""
    return {*range(0, count, max(1, count // 1000)), *range(max(0, count - 1), count)}
