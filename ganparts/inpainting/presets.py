"""The preset of inpainting: the pre-training of UVCGAN2 (Torbunov et al. 2023, arXiv 2303.16280; introduced by UVCGAN,
arXiv 2203.02557).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ganparts.adversarial import TrainingSettings
from ganparts.adversarial.adam import AdamBuilder
from ganparts.inpainting.holes import Distortion, Holes
from ganparts.registry import PRESETS

__all__ = ["CosineRestarts", "InpaintingPreset", "inpainting"]


@dataclass(frozen=True)
class CosineRestarts:
    """Half a cosine from 1 down to ``least``, begun anew every ``period`` epochs (Loshchilov and Hutter 2016,
    arXiv 1608.03983); constant within an epoch.

    Args:
        period: epochs from one restart to the next.
        epochs: of the whole run.
        least: the factor at the end of a cosine.

    Raises:
        ValueError: when called, a step outside the run.
    """

    period: int = 100
    epochs: int = 500
    least: float = 1e-5

    def __call__(self, step: int, total_steps: int) -> float:
        if not 0 <= step < total_steps:
            raise ValueError(f"step {step} is not in a run of {total_steps} steps, which are numbered from 0")
        done = (step * self.epochs // total_steps) % self.period
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * done / self.period)) / 2


@dataclass(frozen=True, kw_only=True)
class InpaintingPreset(TrainingSettings):
    """Everything that defines a way of training a generator to fill holes: parts, optimizer, schedule, data.

    The parts are chosen as in :func:`ganparts.inpainting.build_inpainting`; all numbers are keyword arguments of
    :class:`~ganparts.adversarial.TrainingSettings`.

    Args:
        generator: to be trained.
        loss: compares what the generator makes of an image with holes with the whole image.
        holes: makes the holes.
        distortion: changes the images first, holes or not; None for nothing.
        weight_decay: of AdamW.
    """

    generator: Any = "unet_vit"
    loss: Any = "l1"
    holes: Holes = field(default_factory=Holes)
    distortion: Distortion | None = field(default_factory=Distortion)
    weight_decay: float = 0.05

    def numbers(self) -> dict[str, Any]:
        """These settings without the choices of parts."""
        return super().numbers() | {"weight_decay": self.weight_decay}

    def optimizer_numbers(self) -> dict[str, Any]:
        """The keyword arguments for :func:`~ganparts.make_optimizers`."""
        adam = AdamBuilder(self.learning_rate, self.betas, self.eps, weight_decay=self.weight_decay, decoupled=True)
        return {"builders": {"generators": adam}}


@PRESETS.register("inpainting")
def inpainting() -> InpaintingPreset:
    """UVCGAN2's pre-training on AFHQ and CelebA-HQ: 32x32 holes, 40 % of an image, L1, AdamW, 500 epochs.

    A step takes 16 images of each domain, an epoch has 1,024 steps. The learning rate is the source's 5e-3 / 512 for
    each of the 32 images.
    """
    return InpaintingPreset(
        learning_rate=32 * 5e-3 / 512,
        betas=(0.9, 0.99),
        schedule=CosineRestarts(100, 500),
        epochs=500,
        steps_per_epoch=1024,
        batch_size=16,
        resize=256,
    )
