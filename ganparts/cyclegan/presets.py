"""Presets of CycleGAN: complete, published settings under one name.

``paper`` is Zhu et al. 2017 (arXiv 1703.10593) as its reference implementation has it; ``keras_monet`` the Kaggle
competition's TFRecord tutorial; ``two_objective`` the Kaggle notebook "Two-objective discriminator". ``uvcgan2`` is
Torbunov et al. 2023 (arXiv 2303.16280), ``ugatit`` Kim et al. 2020 (arXiv 1907.10830) and ``ganilla`` Hicsonmez et al.
2020 (arXiv 2002.05638), each as its published code has it.

``monet`` is ours.

Where published code squashes images that are not square, these presets crop them; ``squash=True`` squashes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ganparts.adversarial import ConstantThenLinear, PiecewiseConstant, TrainingSettings
from ganparts.adversarial.adam import AdamBuilder
from ganparts.augment import DiffAugment
from ganparts.cyclegan.penalties import QueuedZeroCentered
from ganparts.losses import ZeroCentered
from ganparts.registry import ADVERSARIAL_LOSSES, DISCRIMINATORS, GENERATORS, PRESETS

__all__ = ["LossWeights", "Preset"]


@dataclass(frozen=True)
class LossWeights:
    """Factors on the losses other than the adversarial one, which has a weight of its own.

    Each is one number, or a pair for (domain a, domain b). A loss with weight 0 is not computed, except the cycle loss.

    Args:
        cycle: on the loss between an image and its translation there and back.
        identity: on the loss between an image and what the generator of its own domain makes of it.
        attention: on the loss of the attention of the generator that makes images of the domain (U-GAT-IT). Both
            generators must tell what they attend to, as ``ugatit`` does (:mod:`ganparts.cyclegan.attention`).

    Raises:
        ValueError: a negative weight, or not one or two of them.
    """

    cycle: float | tuple[float, float] = 10.0
    identity: float | tuple[float, float] = 5.0
    attention: float | tuple[float, float] = 0.0

    def __post_init__(self) -> None:
        for name in ("cycle", "identity", "attention"):
            weights = self.of(name)
            numbers = [weight for weight in weights if isinstance(weight, int | float) and 0 <= weight < math.inf]
            if len(weights) != 2 or len(numbers) != 2:
                raise ValueError(f"{name}={getattr(self, name)!r}: a weight is a number from 0 on, or a pair of them")

    def of(self, name: Literal["cycle", "identity", "attention"]) -> tuple[float, float]:
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
        weights: of the cycle, the identity and the attention loss.
        weight_decay: of the generators, added to the gradient as Adam has it (L2, not decoupled).
        discriminator_weight_decay: of the discriminators.
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
    weight_decay: float = 0.0
    discriminator_weight_decay: float = 0.0

    def _decays(self) -> dict[str, float]:
        decays = {"generators": self.weight_decay, "discriminators": self.discriminator_weight_decay}
        return {name: decay for name, decay in decays.items() if decay}

    def numbers(self) -> dict[str, Any]:
        """These settings without the choices of parts."""
        return super().numbers() | {f"weight_decay_{name}": decay for name, decay in self._decays().items()}

    def optimizer_numbers(self) -> dict[str, Any]:
        """The keyword arguments for :func:`~ganparts.make_optimizers`."""
        numbers = super().optimizer_numbers()
        builders = {
            name: AdamBuilder(numbers["rates"].get(name, self.learning_rate), self.betas, self.eps, weight_decay=decay)
            for name, decay in self._decays().items()
        }
        return numbers | {"builders": builders} if builders else numbers


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
    """The notebook: a painting discriminator with two heads, cycle 9, identity 4.5, 52 epochs of 1,407 steps.

    The heads, of hinge and of inverted BCE, see images behind DiffAugment. The photo discriminator has hinge alone. The
    batch of 5 follows from 7,038 photos in 1,407 steps; whole images without flips are our assumption.
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


@PRESETS.register("monet")
def monet() -> Preset:
    """Ours for painting on a GPU, the recipe's default: small residual generators; one and three discriminators.

    One discriminator judges photos, three judge paintings. The generators begin with the photo itself. Crops have the
    images' own scale. Of the three, the projected one and the PatchGAN see images with changed colours, so that they
    learn strokes. The third sees their own colours at three scales: palette and light. 28 epochs are 49,280 steps of
    the competition's 7,038 photos. It has not been run in full; the documentation's page on quality has what 12 minutes
    on a CPU gave.
    """
    patchgan = partial(DISCRIMINATORS.create, "patchgan", width=48)
    texture, palette = DiffAugment(cutout=0.2), DiffAugment(("translation",))
    return Preset(
        generator=partial(GENERATORS.create, "painter", width=64, blocks=6),
        discriminator=(
            patchgan,
            [
                partial(DISCRIMINATORS.create, "projected", image_size=128),
                patchgan,
                partial(DISCRIMINATORS.create, "munit", width=32),
            ],
        ),
        adversarial="hinge",
        replay="none",
        augment=(texture, [texture, texture, palette]),
        weights=LossWeights(cycle=5.0, identity=(0.0, 2.0)),
        betas=(0.5, 0.99),
        ema_decay=0.999,
        schedule=ConstantThenLinear(17, 11),
        epochs=28,
        batch_size=4,
        resize=None,
        crop=128,
    )


@PRESETS.register("uvcgan2")
def uvcgan2() -> Preset:
    """UVCGAN2 on AFHQ and CelebA-HQ: U-Net with transformer, batch head with queues, zero-centred penalty, averages.

    The published numbers are for images in [0, 1]. In [-1, 1] differences are twice as large and gradients half as
    large, so the cycle weight 5 is 2.5 here, the identity weight 2.5 is 1.25, and the penalty's weight 1 is 4. The
    consistency loss has weight 0 in the published scripts, so it is left out. 500 epochs of 2,000 steps.

    The published generators were trained to fill holes first: ``recipes/pretrain_inpainting.py`` does so, and
    ``--init FOLDER FOLDER`` starts both generators from it. Deviations: see
    :class:`~ganparts.cyclegan.QueuedZeroCentered`. On anime faces the authors took cycle weight 10, penalty
    0.01, learning rate 5e-5 for the generators and the batch norm head.
    """
    return Preset(
        generator="unet_vit",
        discriminator="batch_head",
        replay="none",
        penalty=QueuedZeroCentered(ZeroCentered(weight=4.0)),
        weights=LossWeights(cycle=2.5, identity=1.25),
        learning_rate=1e-4,
        betas=(0.5, 0.99),
        ema_decay=0.9999,
        schedule=PiecewiseConstant(((500, 1.0),)),
        epochs=500,
        steps_per_epoch=2000,
        resize=256,
    )


@PRESETS.register("ugatit")
def ugatit() -> Preset:
    """U-GAT-IT, the full version: attention in all networks, two discriminators a domain, 1,000,000 steps.

    The full generator has 278,959,808 parameters and takes images of 256x256 alone; ``--generator ugatit`` is the
    light one. The discriminators' losses are 1/4 of the source's, and so is their weight decay: Adam then makes the
    same steps. The learning rate falls every 1,000 steps in the second half, to 1/501 at the end.

    Deviation: the source updates the discriminators first, and the generators against the updated ones. Here all
    networks are updated at the end of a step.
    """
    return Preset(
        generator=partial(GENERATORS.create, "ugatit", light=False),
        discriminator=["ugatit_local", "ugatit_global"],
        adversarial=partial(ADVERSARIAL_LOSSES.create, "lsgan", weight=2.0),  # the sum over two maps, not their mean
        replay="none",
        weights=LossWeights(cycle=10.0, identity=10.0, attention=1000.0),
        learning_rate=1e-4,
        weight_decay=1e-4,
        discriminator_weight_decay=1e-4 / 4,
        schedule=ConstantThenLinear(500, 500),
        epochs=1000,
        steps_per_epoch=1000,
    )


@PRESETS.register("ganilla")
def ganilla() -> Preset:
    """GANILLA: its generator in the standard CycleGAN. As published, training switches its dropout off."""
    return Preset(generator=partial(GENERATORS.create, "ganilla", dropout=0.0))
