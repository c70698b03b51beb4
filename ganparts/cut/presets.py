"""Presets of CUT: ``cut`` and ``fastcut`` as published (Park et al. 2020, arXiv 2007.15651), and two of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from ganparts.adversarial import ConstantThenLinear, TrainingSettings
from ganparts.augment import DiffAugment
from ganparts.pretrained import from_pretrained
from ganparts.pretrained.painters import find_painter, list_painters
from ganparts.registry import DISCRIMINATORS, PRESETS

__all__ = ["CUTPreset", "cut", "fastcut", "left_out", "monet_one_sided", "restyle"]


@dataclass(frozen=True, kw_only=True)
class CUTPreset(TrainingSettings):
    """Everything that defines a way of training a CUT: parts, weights, optimizer, schedule, data.

    The parts are chosen as in :func:`ganparts.build_cut`; all numbers are keyword arguments of
    :class:`~ganparts.adversarial.TrainingSettings`.

    Args:
        generator: translates the source domain to the target domain; it must give features.
        discriminator: judges images of the target domain; a list for several.
        adversarial: how each discriminator is trained.
        replay: what a discriminator sees of the generated images.
        augment: acts on what a discriminator sees.
        penalty: added to a discriminator's loss.
        penalty_every: steps between two penalties.
        nce_weight: factor on the contrastive loss; the mean over layers and patches.
        nce_identity: also compare target images with what the generator makes of them; both terms then count half.
        flip_equivariance: mirror the source with probability 1/2, and mirror its features back.
        layers: whose features are compared; None for the generator's ``nce_layers``.
        patches: to compare in each layer.
        projector_width: channels of the projected patches.
        temperature: similarities are divided by it.
        content: compares a translation with its source; None for none, as published, like the rest.
        content_weight: factor on that loss.
        identity: compares a target image with its translation.
        identity_weight: factor on that loss.
        grid_weight: factor on the pattern of four pixels in translations.
        shift_weight: factor on the difference between translations of shifted images and shifted translations.
        jitter: whether images are cropped at random from a larger size; ``"constant"``: only while the learning rate
            is constant, as published. In the decay they are resized to the crop.
    """

    generator: Any = "resnet9_antialias"
    discriminator: Any = "patchgan_antialias"
    adversarial: Any = "lsgan"
    replay: Any = "none"
    augment: Any = None
    penalty: Any = None
    penalty_every: int = 1
    nce_weight: float = 1.0
    nce_identity: bool = True
    flip_equivariance: bool = False
    layers: tuple[int, ...] | None = None
    patches: int = 256
    projector_width: int = 256
    temperature: float = 0.07
    content: Any = None
    content_weight: float = 0.0
    identity: Any = None
    identity_weight: float = 0.0
    grid_weight: float = 0.0
    shift_weight: float = 0.0
    jitter: str = "constant"

    def __post_init__(self) -> None:
        if self.jitter not in ("constant", "always"):
            raise ValueError(f"jitter={self.jitter!r} is not known: it is 'constant' or 'always'")
        if self.jitter == "constant" and not hasattr(self.schedule, "decay_begins"):
            raise ValueError(
                f"jitter='constant' needs a schedule with a decay (ConstantThenLinear), but this is {self.schedule}: "
                "take jitter='always'"
            )


def left_out(given: Mapping[str, Any]) -> dict[str, Any]:
    """What else changes if a loss or its weight alone is switched off: ``content=None``, or ``content_weight=0``."""
    more: dict[str, Any] = {}
    for loss in ("content", "identity"):
        weight = f"{loss}_weight"
        if weight not in given and given.get(loss, ...) is None:
            more[weight] = 0.0
        elif loss not in given and given.get(weight) == 0:
            more[loss] = None
    return more


@PRESETS.register("cut")
def cut() -> CUTPreset:
    """CUT: contrastive weight 1 with the identity term, 200 + 200 epochs."""
    return CUTPreset(schedule=ConstantThenLinear(200, 200), epochs=400)


@PRESETS.register("fastcut")
def fastcut() -> CUTPreset:
    """FastCUT: contrastive weight 10, no identity term, flip equivariance, 150 + 50 epochs."""
    return CUTPreset(
        nce_weight=10.0,
        nce_identity=False,
        flip_equivariance=True,
        schedule=ConstantThenLinear(150, 50),
        epochs=200,
    )


@PRESETS.register("monet_one_sided")
def monet_one_sided() -> CUTPreset:
    """Ours for short trainings in one direction: a small residual generator and three discriminators.

    The generator begins with the photo itself. Content is kept in the features of a frozen network instead of by
    contrast. Crops have the images' own scale. The projected discriminator and the PatchGAN see images with
    changed colours, so that they learn strokes. The third sees their own colours at three scales: palette and light.
    """
    texture, palette = DiffAugment(cutout=0.2), DiffAugment(("translation",))
    return CUTPreset(
        generator="painter",
        discriminator=[
            partial(DISCRIMINATORS.create, "projected", image_size=128),
            partial(DISCRIMINATORS.create, "patchgan", width=48),
            partial(DISCRIMINATORS.create, "munit", width=32),
        ],
        adversarial="hinge",
        augment=[texture, texture, palette],
        nce_weight=0.0,
        nce_identity=False,
        content="features",
        content_weight=0.2,
        identity="l1",
        identity_weight=0.5,
        learning_rate=4e-4,
        betas=(0.5, 0.99),
        ema_decay=0.999,
        schedule=ConstantThenLinear(60, 40),
        epochs=100,
        batch_size=8,
        resize=None,
        crop=128,
        jitter="always",
        suits_cpu=True,
    )


@PRESETS.register("monet_contrast")
def monet_contrast() -> CUTPreset:
    """Ours for an hour or more, in one direction: content is kept by contrast, and another network judges, too.

    It is ``monet_one_sided`` with CUT's contrastive loss in place of features, and a second projected discriminator, on
    EfficientNet-Lite2. The generator must give features.
    """
    base = monet_one_sided()
    texture, *others = base.augment
    first, *rest = base.discriminator
    second = partial(DISCRIMINATORS.create, "projected", backbone="efficientnet_lite2", image_size=128)
    return replace(
        base,
        discriminator=[first, second, *rest],
        augment=[texture, texture, *others],
        nce_weight=0.3,
        content=None,
        content_weight=0.0,
        discriminator_learning_rate=5e-4,
        batch_size=4,
    )


def trained_painter(name: str) -> nn.Module:
    """A painter that ships, as the starting point; never a folder of this name, which a run may have made."""
    return from_pretrained(find_painter(list_painters()[name])).train()


@PRESETS.register("restyle")
def restyle() -> CUTPreset:
    """Ours for minutes on a CPU: the painter ``monet``, which ships trained, takes on the style of other paintings.

    Everything else is that of ``monet_one_sided``, but for the learning rates, the weight on content, the average and
    the batch. The discriminators are new and learn fast; the generator learns slowly, since it would otherwise lose its
    brush strokes before they can judge it. More weight on content would undo the strokes, too.
    """
    return replace(
        monet_one_sided(),
        generator=partial(trained_painter, "monet"),
        content_weight=0.15,
        learning_rate=1.5e-4,
        discriminator_learning_rate=6e-4,
        ema_decay=0.998,
        batch_size=4,
    )
