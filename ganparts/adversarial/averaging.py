"""Moving averages of networks' weights, which often give better images than the last weights do."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["Averages"]


class Averages(nn.Module):
    """Exponential moving averages (EMA) of networks (Yazici et al. 2018, arXiv 1806.04498, for GANs).

    The average remembers at most a tenth of the steps so far: in step t the decay is at most t / (t + 9). So a short
    run, too, has an average that has forgotten its first weights.

    Its state belongs in checkpoints. Call :meth:`update` after each step; it reads no value from the device.

    Args:
        networks: by name; already on their device.
        decay: of the average, between 0 and 1: 0.999 remembers about 1,000 steps.

    Raises:
        ValueError: a decay outside (0, 1).
    """

    steps: Tensor

    def __init__(self, networks: Mapping[str, nn.Module], *, decay: float = 0.999):
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"decay={decay}: the decay of a moving average lies between 0 and 1, such as 0.999")
        self.decay = decay
        self._trained = (nn.ModuleDict(networks),)  # in a tuple: not part of this module's own state
        self.average = copy.deepcopy(self._trained[0]).eval().requires_grad_(False)
        device = next(iter(self._trained[0].parameters())).device
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64, device=device))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The averaged networks by name, in ``eval()`` mode."""
        return dict(self.average.items())

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the averages."""
        self.steps += 1
        change = (9 / (self.steps + 9)).clamp_min(1 - self.decay)
        current, seen = self._trained[0].state_dict(), set[int]()
        for name, average in self.average.state_dict(keep_vars=True).items():
            if id(average) in seen:  # tied weights have a name for each place
                continue
            seen.add(id(average))
            if average.is_floating_point():
                average.lerp_(current[name], change.to(average.dtype))
            else:
                average.copy_(current[name])
