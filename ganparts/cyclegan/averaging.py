"""Moving averages of the generators' weights, which often paint better than the last weights do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ganparts.cyclegan.assembly import CycleGAN

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3

__all__ = ["AveragedGenerators"]


class AveragedGenerators(nn.Module):
    """Exponential moving averages (EMA) of both generators, timm's (Yazici et al. 2018, arXiv 1806.04498, for GANs).

    Its state belongs into checkpoints; :meth:`update` after each step asks nothing of the device.

    Args:
        model: whose generators are averaged; already on its device.
        decay: of the average, in (0, 1): 0.999 remembers about 1,000 steps.

    Raises:
        ValueError: a decay outside (0, 1).
    """

    def __init__(self, model: CycleGAN, *, decay: float = 0.999):
        from timm.utils.model_ema import ModelEmaV3

        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"decay={decay}: the decay of a moving average lies between 0 and 1, such as 0.999")
        self._trained = (nn.ModuleDict(_generators(model)),)  # in a tuple: not part of this module's own state
        self.average: ModelEmaV3 = ModelEmaV3(self._trained[0], decay=decay)

    @property
    def generator_ab(self) -> nn.Module:
        """Averaged, in ``eval()`` mode."""
        return self.average.module["generator_ab"]

    @property
    def generator_ba(self) -> nn.Module:
        """Averaged, in ``eval()`` mode."""
        return self.average.module["generator_ba"]

    @torch.no_grad()
    def update(self) -> None:
        """Take the generators' present weights into the average."""
        self.average.update(self._trained[0])


def _generators(model: CycleGAN) -> dict[str, nn.Module]:
    return {"generator_ab": model.generator_ab, "generator_ba": model.generator_ba}
