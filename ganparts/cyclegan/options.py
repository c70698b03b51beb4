"""A user's choices over a preset of CycleGAN, as a command line has them, and what they settle on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import torch
import tyro

from ganparts.adversarial.options import TrainingOptions, chosen, parse_augment, parse_choice
from ganparts.cyclegan.presets import Preset
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
    Registry,
)

__all__ = ["PresetOptions", "Settled"]


def _named(table: Registry[Any], what: str) -> Any:
    return tyro.conf.arg(help=f"{what}: {', '.join(table)}.", metavar="NAME")


_NAMES = ", ".join(name for name in PRESETS if isinstance(PRESETS.create(name), Preset))


class Settled(NamedTuple):
    """A preset with a user's choices in it.

    Args:
        preset: complete.
        notes: what was scaled down for a CPU, in words.
    """

    preset: Preset
    notes: list[str]


@dataclass(frozen=True)
class PresetOptions(TrainingOptions):
    """Options of a CycleGAN. None stands for the preset's value.

    A comma gives the two domains different parts, a plus gives one domain several discriminators, and parentheses set
    options: ``--discriminator "pixel,patchgan(layers=2)+pixel"``.
    """

    preset: Annotated[str, tyro.conf.arg(help=f"Complete settings: {_NAMES}.", metavar="NAME")] = "paper"
    generator: Annotated[str | None, _named(GENERATORS, "Generator (a comma: a to b, b to a)")] = None
    discriminator: Annotated[str | None, _named(DISCRIMINATORS, "Discriminator (domain a, domain b)")] = None
    adversarial: Annotated[str | None, _named(ADVERSARIAL_LOSSES, "Adversarial loss")] = None
    replay: Annotated[str | None, _named(REPLAY_BUFFERS, "Replay buffer of generated images")] = None
    penalty: Annotated[str | None, _named(PENALTIES, "Penalty on discriminators, or none")] = None
    penalty_every: int | None = field(default=None, metadata={"least": 1})
    """Steps between two penalties, each of which counts that many times."""
    augment: str | None = None
    """What is done to images before a discriminator sees them: none, diffaugment, or a pair of them."""
    cycle: Annotated[str | None, _named(CONSISTENCY_LOSSES, "Cycle loss")] = None
    identity: Annotated[str | None, _named(CONSISTENCY_LOSSES, "Identity loss")] = None
    cycle_weight: float | None = field(default=None, metadata={"least": 0})
    """Factor on the loss between an image and what comes back of it after both translations."""
    identity_weight: float | None = field(default=None, metadata={"least": 0})
    """Factor on the loss between a target image and its translation; 0 switches it off."""

    def settle(self, *, small: bool = False) -> Settled:
        """The preset with these choices in it.

        Args:
            small: scale down what no option chose, for a CPU, where the whole would take weeks: batch 1, at most 32
                channels, 128 pixels where the generator takes them; the paper's ResNet becomes a U-Net with learning
                rate 5e-4 and identity weight 2.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given.
            ValueError: a text that names no parts.
        """
        preset, notes = PRESETS.create(self.preset), []
        given = chosen({"width": self.width})
        wished: dict[str, Any] = {}
        if small:
            preset, notes = self._scaled_down(preset)
            wished = {} if self.width else {"width": 32}
        tables: dict[str, tuple[Registry[Any], dict[str, Any], dict[str, Any]]] = {
            "generator": (GENERATORS, given | chosen({"upsample": self.upsample}), wished),
            "discriminator": (DISCRIMINATORS, given, wished),
            "adversarial": (ADVERSARIAL_LOSSES, {}, {}),
            "replay": (REPLAY_BUFFERS, {}, {}),
            "penalty": (PENALTIES, {}, {}),
            "cycle": (CONSISTENCY_LOSSES, {}, {}),
            "identity": (CONSISTENCY_LOSSES, {}, {}),
        }
        parts = {
            name: _apply(getattr(self, name) or getattr(preset, name), table, must, may)
            for name, (table, must, may) in tables.items()
        }
        if self.augment is not None:
            parts["augment"] = parse_augment(self.augment)
        weights = chosen({"cycle": self.cycle_weight, "identity": self.identity_weight})
        settled = replace(
            preset,
            **parts,
            **self.numbers(preset),
            **chosen({"penalty_every": self.penalty_every}),
            weights=replace(preset.weights, **weights),
        )
        if wished:
            notes += ["at most 32 channels after the first convolution"]
        return Settled(settled, notes)

    def _scaled_down(self, preset: Preset) -> tuple[Preset, list[str]]:
        notes = [] if self.batch_size or preset.batch_size == 1 else ["batch size 1"]
        smaller = replace(preset, batch_size=1)
        if self.preset == "paper" and self.generator is None:
            upsample = self.upsample or "resize_conv"
            generator = f"unet128(upsample={upsample!r})"
            smaller = replace(
                smaller, generator=generator, learning_rate=5e-4, weights=replace(preset.weights, identity=2.0)
            )
            notes += ["a U-Net with learning rate 5e-4 and identity weight 2 instead of ResNet-9"]
        if self.crop is None and self.resize is None:
            crop = _small_crop(self.generator or smaller.generator)
            if crop < preset.crop:
                resize = None if preset.resize is None else round(crop * preset.resize / preset.crop)
                smaller = replace(smaller, crop=crop, resize=resize)
                notes += [f"{crop} pixels"]
        return smaller, notes


def _apply(choice: Any, table: Registry[Any], given: dict[str, Any], wished: dict[str, Any]) -> Any:
    """A preset's or a user's choice with options in it; builders and modules have their own."""
    if isinstance(choice, tuple):
        return tuple(_apply(each, table, given, wished) for each in choice)
    if isinstance(choice, list):
        return [_apply(each, table, given, wished) for each in choice]
    if not isinstance(choice, str):
        return choice
    return parse_choice(choice, table, given=given, wished=wished)


def _small_crop(generator: Any) -> int:
    first = parse_choice(generator, GENERATORS) if isinstance(generator, str) else generator
    first = first[0] if isinstance(first, tuple) else first
    with torch.device("meta"):
        network = GENERATORS.create(first) if isinstance(first, str) else first()
    multiple = getattr(network, "size_multiple", 1)
    return 128 if 128 % multiple == 0 else multiple
