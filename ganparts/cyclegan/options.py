"""A user's choices over a preset, as a command line has them, and what they settle on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import tyro

from ganparts.augment import DiffAugment
from ganparts.cyclegan.presets import PRESETS, LossWeights, Preset
from ganparts.registry import ADVERSARIAL_LOSSES, DISCRIMINATORS, GENERATORS, REPLAY_BUFFERS, Registry

__all__ = ["PresetOptions"]


def _named(table: Registry[Any], does: str) -> Any:
    return tyro.conf.arg(help=f"{does}: {', '.join(table)}.", metavar="NAME")


@dataclass(frozen=True)
class PresetOptions:
    """Options of the networks and their training. None stands for the preset's value."""

    preset: Annotated[str, _named(PRESETS, "Complete settings")] = "paper"
    generator: Annotated[str | None, _named(GENERATORS, "Translates")] = None
    discriminator: Annotated[str | None, _named(DISCRIMINATORS, "Tells real from generated")] = None
    adversarial: Annotated[str | None, _named(ADVERSARIAL_LOSSES, "Trains the two against each other")] = None
    replay: Annotated[str | None, _named(REPLAY_BUFFERS, "Shows discriminators older images too")] = None
    augment: Literal["none", "diffaugment"] | None = None
    """What is done to images before a discriminator sees them."""
    upsample: Literal["transposed", "resize_conv"] | None = None
    """How generators enlarge (keras_unet256 has no choice); resize_conv leaves no checkerboard."""
    cycle_weight: float | None = None
    """Factor on the mean L1 between an image and what comes back of it after both translations."""
    identity_weight: float | None = None
    """Factor on the mean L1 between a painting and its painting, a photo and its photo; 0 switches it off."""
    width: int | None = None
    """Channels after the first convolution of each network."""
    image_size: int | None = None
    """Height and width of the images that are trained on, in pixels."""
    batch_size: int | None = None
    """Pairs a step."""
    learning_rate: float | None = None
    """Adam's, before the schedule."""
    ema_decay: float | None = None
    """Keep and paint with a moving average of the generators' weights; 0.999 remembers about 1,000 steps."""

    def settle(self, *, small: bool = False) -> Preset:
        """The preset with these choices in it.

        Args:
            small: scale down what no option chose, for a CPU, where the whole would take weeks: batch 1, width 32,
                128 pixels where the generator takes them; the paper's ResNet becomes a U-Net with learning rate 5e-4
                and identity weight 2.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given.
        """
        preset = PRESETS.create(self.preset)
        published = preset.crop
        if small:
            preset = replace(preset, batch_size=1)
            if self.preset == "paper" and self.generator is None:
                preset = replace(preset, generator="unet128", learning_rate=5e-4, weights=LossWeights(identity=2.0))
        generator = self._built(GENERATORS, self.generator or preset.generator, small, upsample=self.upsample)
        crop = self.image_size or (_small_crop(generator[0]) if small else published)
        weights = {"cycle": self.cycle_weight, "identity": self.identity_weight}
        numbers = {name: getattr(self, name) for name in ("learning_rate", "ema_decay", "batch_size")}
        return replace(
            preset,
            generator=generator,
            discriminator=self._built(DISCRIMINATORS, self.discriminator or preset.discriminator, small),
            adversarial=self.adversarial or preset.adversarial,
            replay=self.replay or preset.replay,
            augment={None: preset.augment, "none": None, "diffaugment": DiffAugment()}[self.augment],
            weights=replace(preset.weights, **_chosen(weights)),
            crop=crop,
            resize=round(crop * preset.resize / published),
            **_chosen(numbers),
        )

    def _built(self, table: Registry[Any], choice: Any, small: bool, *, upsample: str | None = None) -> Any:
        given = _chosen({"width": self.width, "upsample": upsample})
        wished = {"width": 32} | ({"upsample": "resize_conv"} if choice == "unet128" else {}) if small else {}
        both = choice if isinstance(choice, tuple) else (choice, choice)
        return tuple(table.builder(one, wished=wished, given=given) for one in both)


def _chosen(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _small_crop(generator: Any) -> int:
    with torch.device("meta"):
        multiple = getattr(generator(), "size_multiple", 1)
    return 128 if 128 % multiple == 0 else multiple
