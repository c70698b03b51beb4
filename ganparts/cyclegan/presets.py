"""Presets: complete, published settings under one name.

``paper`` is Zhu et al. 2017 (arXiv 1703.10593) as its reference implementation has it; ``keras_monet`` the Kaggle
competition's TFRecord tutorial; ``two_objective`` the Kaggle notebook "Two-objective discriminator".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from ganparts.augment import DiffAugment
from ganparts.cyclegan.schedules import ConstantThenLinear, PiecewiseConstant
from ganparts.protocols import AdversarialLoss, Augment, ConsistencyLoss, Discriminator, Generator, ReplayBuffer
from ganparts.registry import Registry

__all__ = ["PRESETS", "AugmentChoice", "Choice", "LossWeights", "Preset"]

PartT = TypeVar("PartT")
Choice: TypeAlias = str | Callable[[], PartT] | tuple[str | Callable[[], PartT], str | Callable[[], PartT]]
"""A registered name, a builder without arguments, or a pair of either."""

AugmentChoice: TypeAlias = Augment | tuple[Augment | None, Augment | None] | None


@dataclass(frozen=True)
class LossWeights:
    """Factors on the mean L1 of cycle and identity loss; the adversarial weight belongs to the adversarial loss.

    Each is one number, or a pair for (domain a, domain b). An identity weight of 0 spares its computation.

    Raises:
        ValueError: a negative weight, or not one or two of them.
    """

    cycle: float | tuple[float, float] = 10.0
    identity: float | tuple[float, float] = 5.0

    def __post_init__(self) -> None:
        for name in ("cycle", "identity"):
            weights = self.pair(name)
            numbers = [weight for weight in weights if isinstance(weight, int | float) and 0 <= weight < math.inf]
            if len(weights) != 2 or len(numbers) != 2:
                raise ValueError(f"{name}={getattr(self, name)!r}: a weight is a number from 0 on, or a pair of them")

    def pair(self, name: Literal["cycle", "identity"]) -> tuple[float, float]:
        """The weights of a loss for (domain a, domain b)."""
        weight = getattr(self, name)
        return tuple(weight) if isinstance(weight, tuple | list) else (weight, weight)


@dataclass(frozen=True)
class Preset:
    """Everything that defines a way of training: parts, weights, optimizer, schedule, data.

    Args:
        generator: as in :func:`ganparts.build_cyclegan`, like all parts here.
        discriminator: see there.
        adversarial: see there.
        cycle: see there.
        identity: see there.
        replay: see there.
        augment: see there.
        weights: of cycle and identity loss.
        learning_rate: Adam's, before the schedule.
        betas: Adam's.
        eps: Adam's.
        ema_decay: of the generators' moving average; None for none, as published.
        schedule: factor on the learning rate as a function of (step, total steps).
        epochs: length of the run.
        steps_per_epoch: None for as many as the larger domain has batches.
        batch_size: pairs a step.
        resize: images are resized to this height and width (bicubic), in pixels.
        crop: and cropped to this at random.
        flip: whether they are mirrored with probability 1/2.
    """

    generator: Choice[Generator] = "resnet9"
    discriminator: Choice[Discriminator] = "patchgan"
    adversarial: Choice[AdversarialLoss] = "lsgan"
    cycle: Choice[ConsistencyLoss] = "l1"
    identity: Choice[ConsistencyLoss] = "l1"
    replay: Choice[ReplayBuffer] = "history"
    augment: AugmentChoice = None
    weights: LossWeights = field(default_factory=LossWeights)
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    ema_decay: float | None = None
    schedule: Callable[[int, int], float] = field(default_factory=ConstantThenLinear)
    epochs: int = 200
    steps_per_epoch: int | None = None
    batch_size: int = 1
    resize: int = 286
    crop: int = 256
    flip: bool = True

    def epoch_steps(self, pairs: int) -> int:
        """The steps of an epoch with data of which an epoch is ``pairs``."""
        return self.steps_per_epoch or -(-pairs // self.batch_size)

    def numbers(self) -> dict[str, Any]:
        """All but the choices of parts."""
        parts = ("generator", "discriminator", "adversarial", "cycle", "identity", "replay")
        return {name: value for name, value in vars(self).items() if name not in parts}


PRESETS: Registry[Preset] = Registry("preset")


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
