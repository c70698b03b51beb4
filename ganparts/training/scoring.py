"""Scores during training: computed by all processes, without a trace in the training itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from ganparts.adversarial import as_in_first
from ganparts.training.options import EvaluationOptions

__all__ = ["Score", "Scoring", "own_randomness"]


class Score(Protocol):
    """Scores a generator: values by name, lower is better, with a method ``told`` that gives them as text.

    It is called in all processes of a run, and only what it gives in the first one counts.
    """

    def __call__(self, generator: nn.Module) -> Any: ...


class Scoring:
    """Scores generators as often as the options say.

    Args:
        options: how often, and how long a run may go on without a better score.
        make: makes what computes the scores; None if there are none.
        device: that the generators are on.
        clock: seconds.

    Raises:
        ValueError: patience without evaluations.
    """

    def __init__(
        self,
        options: EvaluationOptions,
        make: Callable[[], Score] | None,
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
    ):
        if options.patience and not options.evaluate_every:
            raise ValueError(f"--patience {options.patience} needs evaluations: give --evaluate-every, too")
        self.options, self.device, self.clock = options, device, clock
        self.seconds = 0.0  # that evaluations took
        self.best: Any = None
        self._make, self._score = make if options.evaluate_every else None, None

    def prepare(self) -> None:
        """Make what computes the scores: networks are loaded, and real images read."""
        if self._make is not None:
            with own_randomness(self.device):
                self._score = self._make()

    def due(self, step: int, *, last: bool) -> bool:
        """Whether this step's generator is scored; the last step's always is."""
        every = self.options.evaluate_every
        return every is not None and (step % every == 0 or last)

    def scores(self, generator: nn.Module) -> Any:
        """A generator's scores; in all processes but the first they do not count."""
        assert self._score is not None
        before = self.clock()
        with own_randomness(self.device), as_in_first(generator.buffers()):
            scores = self._score(generator)
        self.seconds += self.clock() - before
        return scores

    def cost(self, generator: nn.Module) -> float:
        """Seconds that an evaluation takes; 0 without any."""
        if self._score is None:
            return 0.0
        before = self.seconds
        self.scores(generator)
        cost, self.seconds = self.seconds - before, before
        return cost

    def reason_to_stop(self, stale: int) -> str | None:
        """Why to stop after so many evaluations without a better score, if patience is at an end."""
        patience, metric = self.options.patience, self.options.metric
        if patience is None or stale < patience:
            return None
        return f"patience ({metric} has not improved in {stale} evaluations)"


def own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Random numbers drawn within do not change those that are drawn after it."""
    return torch.random.fork_rng([torch.cuda.current_device()] if device.type == "cuda" else [])
