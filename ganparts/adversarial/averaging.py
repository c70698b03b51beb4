"""Moving averages of networks' weights, which often give better images than the last weights do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3

__all__ = ["Averages"]


class Averages(nn.Module):
    """Exponential moving averages (EMA) of networks, timm's (Yazici et al. 2018, arXiv 1806.04498, for GANs).

    Its state belongs in checkpoints. Call :meth:`update` after each step; it reads no value from the device.

    Args:
        networks: by name; already on their device.
        decay: of the average, between 0 and 1: 0.999 remembers about 1,000 steps.

    Raises:
        ValueError: a decay outside (0, 1).
    """

    def __init__(self, networks: Mapping[str, nn.Module], *, decay: float = 0.999):
        from timm.utils.model_ema import ModelEmaV3

        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"decay={decay}: the decay of a moving average lies between 0 and 1, such as 0.999")
        self._trained = (nn.ModuleDict(networks),)  # in a tuple: not part of this module's own state
        self.average: ModelEmaV3 = ModelEmaV3(self._trained[0], decay=decay)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The averaged networks by name, in ``eval()`` mode."""
        return dict(self.average.module.items())

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the averages."""
        self.average.update(self._trained[0])
