"""Learning-rate schedules: pure functions of the step, so that a resumed run cannot have the wrong rate.

A schedule is called with the step (from 0) and the number of steps of the whole run. It returns the factor on the
learning rate, a staircase over epochs like the published ones. A run of another length has the same number of stairs.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConstantThenLinear", "PiecewiseConstant"]


def _epoch(step: int, total_steps: int, epochs: int) -> int:
    """The epoch, from 1 to ``epochs``, in which a step lies."""
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} is not in a run of {total_steps} steps, which are numbered from 0")
    return 1 + step * epochs // total_steps


@dataclass(frozen=True)
class ConstantThenLinear:
    """Factor 1 for ``constant`` epochs, then 1 - k / (decay + 1) in the k-th of ``decay`` epochs.

    The paper's (arXiv 1703.10593): 100 and 100.

    Raises:
        ValueError: when called, a step outside the run.
    """

    constant: int = 100
    decay: int = 100

    @property
    def epochs(self) -> int:
        return self.constant + self.decay

    def decay_begins(self, total_steps: int) -> int:
        """The first step whose factor is below 1."""
        return -(-self.constant * total_steps // self.epochs)

    def __call__(self, step: int, total_steps: int) -> float:
        epoch = _epoch(step, total_steps, self.epochs)
        return 1.0 - max(0, epoch - self.constant) / (self.decay + 1)


@dataclass(frozen=True)
class PiecewiseConstant:
    """Each factor for its number of epochs, one after the other.

    Args:
        pieces: (epochs, factor), in order.

    Raises:
        ValueError: when called, a step outside the run.
    """

    pieces: tuple[tuple[int, float], ...]

    @property
    def epochs(self) -> int:
        return sum(epochs for epochs, _ in self.pieces)

    def __call__(self, step: int, total_steps: int) -> float:
        epoch = _epoch(step, total_steps, self.epochs)
        for epochs, factor in self.pieces:
            if epoch <= epochs:
                return factor
            epoch -= epochs
        raise AssertionError("the epochs add up to the run")
