"""Presets of CycleGAN: complete, published settings under one name.

``paper`` is Zhu et al. 2017 (arXiv 1703.10593) as its reference implementation has it; ``keras_monet`` the Kaggle
competition's TFRecord tutorial; ``two_objective`` the Kaggle notebook "Two-objective discriminator".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ganparts.adversarial import PiecewiseConstant, TrainingSettings
from ganparts.augment import DiffAugment
from ganparts.registry import PRESETS

__all__ = ["LossWeights", "Preset"]


@dataclass(frozen=True)
class LossWeights:
    """Factors on the mean L1 of cycle and identity loss; the adversarial weight belongs to the adversarial loss.

    Each is one number, or a pair for (domain a, domain b). An identity loss with weight 0 is not computed.

    Raises:
        ValueError: a negative weight, or not one or two of them.
    """

    cycle: float | tuple[float, float] = 10.0
    identity: float | tuple[float, float] = 5.0

    def __post_init__(self) -> None:
        for name in ("cycle", "identity"):
            weights = self.of(name)
            numbers = [weight for weight in weights if isinstance(weight, int | float) and 0 <= weight < math.inf]
            if len(weights) != 2 or len(numbers) != 2:
                raise ValueError(f"{name}={getattr(self, name)!r}: a weight is a number from 0 on, or a pair of them")

    def of(self, name: Literal["cycle", "identity"]) -> tuple[float, float]:
        """The weights of a loss for (domain a, domain b)."""
        weight = getattr(self, name)
        return tuple(weight) if isinstance(weight, tuple | list) else (weight, weight)


@dataclass(frozen=True, kw_only=True)
class Preset(TrainingSettings):
    """Everything that defines a way of training a CycleGAN: parts, weights, optimizer, schedule, data.

    The parts are chosen as in :func:`ganparts.build_cyclegan`; all numbers are keyword arguments of
    :class:`~ganparts.adversarial.TrainingSettings`.

    Args:
        generator: (a to b, b to a), or one choice for both.
        discriminator: (domain a, domain b), or one choice for both. The parts below are chosen likewise.
        adversarial: how each discriminator is trained.
        cycle: compares an image that went there and back with itself.
        identity: compares a generator's output for an image of its own target domain with that image.
        replay: what a discriminator sees of the generated images.
        augment: acts on what a discriminator sees.
        penalty: added to a discriminator's loss.
        penalty_every: steps between two penalties.
        weights: of the cycle and the identity loss.
    """

    generator: Any = "resnet9"
    discriminator: Any = "patchgan"
    adversarial: Any = "lsgan"
    cycle: Any = "l1"
    identity: Any = "l1"
    replay: Any = "history"
    augment: Any = None
    penalty: Any = None
    penalty_every: int = 1
    weights: LossWeights = field(default_factory=LossWeights)


@PRESETS.register("paper")
def paper() -> Preset:
    """The standard CycleGAN: ResNet-9, 70x70 PatchGAN, LSGAN, cycle 10, identity 5, history of 50, 200 epochs."""
    return Preset()


@PRESETS.register("keras_monet")
def keras_monet() -> Preset:
    """The TFRecord tutorial: Keras U-Net and PatchGAN, BCE, no replay buffer, 25 epochs of 300 steps."""
    return Preset(
        generator="keras_unet256",
        discriminator="keras_patchgan",
        adversarial="bce",
        replay="none",
        eps=1e-7,
        schedule=PiecewiseConstant(((25, 1.0),)),
        epochs=25,
        steps_per_epoch=300,
        resize=256,
        flip=False,
    )


@PRESETS.register("two_objective")
def two_objective() -> Preset:
    """The notebook: painting discriminator with a hinge and an inverted BCE head behind DiffAugment, photo
    discriminator with hinge, cycle 9, identity 4.5, 52 epochs of 1,407 steps.

    The batch of 5 follows from 7,038 photos in 1,407 steps; whole images without flips are our assumption.
    """
    return Preset(
        generator="keras_unet256",
        discriminator=("keras_patchgan", "two_objective"),
        adversarial=("hinge", "two_objective"),
        replay="none",
        augment=(None, DiffAugment()),
        weights=LossWeights(cycle=9.0, identity=4.5),
        eps=1e-7,
        schedule=PiecewiseConstant(((26, 1.0), (18, 0.5), (8, 0.05))),
        epochs=52,
        steps_per_epoch=1407,
        batch_size=5,
        resize=256,
        flip=False,
    )
