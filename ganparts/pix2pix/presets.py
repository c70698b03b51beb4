"""The preset of pix2pix (Isola et al. 2017, arXiv 1611.07004)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ganparts.adversarial import TrainingSettings
from ganparts.registry import GENERATORS, PRESETS

__all__ = ["Pix2PixPreset", "pix2pix"]


@dataclass(frozen=True, kw_only=True)
class Pix2PixPreset(TrainingSettings):
    """Everything that defines a way of training a pix2pix: parts, weights, optimizer, schedule, data.

    The parts are chosen as in :func:`ganparts.build_pix2pix`; all numbers are keyword arguments of
    :class:`~ganparts.adversarial.TrainingSettings`.

    Args:
        generator: translates source to target.
        discriminator: judges source and target together, as one image of twice the channels; a list for several.
        norm: of the discriminators that are given by name.
        adversarial: how each discriminator is trained.
        replay: what a discriminator sees of the generated images.
        augment: acts on what a discriminator sees.
        penalty: added to a discriminator's loss.
        penalty_every: steps between two penalties.
        reconstruction: compares a translated image with its target.
        reconstruction_weight: factor on that loss.
    """

    generator: Any = "unet256"
    discriminator: Any = "patchgan"
    norm: str = "batch"
    adversarial: Any = "bce"
    replay: Any = "none"
    augment: Any = None
    penalty: Any = None
    penalty_every: int = 1
    reconstruction: Any = "l1"
    reconstruction_weight: float = 100.0


@PRESETS.register("pix2pix")
def pix2pix() -> Pix2PixPreset:
    """pix2pix as the reference implementation has it: cross-entropy, L1 with weight 100, 100 + 100 epochs.

    The generator is a U-Net-256 with batch norm and dropout, the discriminator a conditional PatchGAN.
    """
    return Pix2PixPreset(generator=partial(GENERATORS.create, "unet256", norm="batch", dropout=0.5))
