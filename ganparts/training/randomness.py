"""Where random numbers begin, and their states, as checkpoints hold them."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

__all__ = ["random_states", "seed_everything", "set_random_states"]


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and PyTorch, on all devices."""
    random.seed(seed)
    torch.manual_seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's random numbers, as checkpoints hold them."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],  # of the device in use
    }
    if numpy := sys.modules.get("numpy"):  # if nobody imported it, nobody drew from it
        kind, keys, *rest = numpy.random.get_state()
        states["numpy"] = (str(kind), keys.tolist(), *rest)
    return states


def set_random_states(randomness: dict[str, Any]) -> None:
    """Put back what :func:`random_states` gave."""
    random.setstate(_tuples(randomness["python"]))
    torch.set_rng_state(randomness["torch"])
    if "numpy" in randomness:
        import numpy

        numpy.random.set_state(randomness["numpy"])
    if randomness["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(randomness["cuda"][0])


def _tuples(state: Any) -> Any:
    return tuple(map(_tuples, state)) if isinstance(state, list | tuple) else state
