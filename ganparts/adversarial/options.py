"""Command-line options that override a preset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro
from torch import nn

from ganparts.adversarial.choices import parse_choice, with_options
from ganparts.adversarial.presets import TrainingSettings
from ganparts.blocks import Upsample, size_limits
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    AUGMENTATIONS,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
    Registry,
)

__all__ = [
    "GeneratorOptions",
    "Settled",
    "TrainingOptions",
    "check_numbers",
    "chosen",
    "part_help",
    "preset_help",
    "preset_number",
]


_PLACES = ("generator", "discriminator")


def preset_number(*, least: float | None = None, above: float | None = None) -> Any:
    """A dataclass field for a number that a preset has, too; None stands for the preset's.

    Args:
        least: the smallest number that is allowed.
        above: numbers must be larger than this.
    """
    return field(default=None, metadata={"least": least, "above": above})


def check_numbers(options: Any) -> None:
    """Refuse a number of options, a dataclass, that is not finite or below its field's limit (:func:`preset_number`).

    Raises:
        ValueError: names the option, its value and the limit.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        least, above = option.metadata.get("least"), option.metadata.get("above")
        if isinstance(value, int | float) and not isinstance(value, bool):
            flag = f"--{option.name.replace('_', '-')} {value}"
            if not math.isfinite(value):
                raise ValueError(f"{flag} is not a finite number")
            if least is not None and value < least:
                raise ValueError(f"{flag} is too small: give {least} or more")
            if above is not None and value <= above:
                raise ValueError(f"{flag} is too small: give more than {above}")


class Settled(NamedTuple):
    """A preset with a user's choices in it.

    Args:
        preset: complete.
        notes: what was scaled down for a CPU, as text.
    """

    preset: Any
    notes: list[str]


def part_help(table: Registry[Any], what: str) -> Any:
    """The help of an option that names parts of a table."""
    return tyro.conf.arg(help=f"{what}: {', '.join(table)}.", metavar="NAME")


def preset_help(kind: type[TrainingSettings], default: str = "") -> Any:
    """The help of an option that names presets of a kind, with a sentence on its default."""
    names = ", ".join(name for name in PRESETS if isinstance(PRESETS.create(name), kind))
    return tyro.conf.arg(help=f"Complete settings: {names}. {default}".strip(), metavar="NAME")


@dataclass(frozen=True)
class GeneratorOptions:
    """Options of generators and their training that every method has. None stands for the preset's value.

    Raises:
        ValueError: a number is too small; the message names its limit.
    """

    generator: Annotated[str | None, part_help(GENERATORS, "Generator")] = None
    width: int | None = preset_number(least=1)
    """Channels after the first convolution of each network."""
    upsample: Upsample | None = None
    """How generators enlarge, where they have the choice; resize_conv leaves no checkerboard, and bilinear makes no
    steps of slopes, either."""
    resize: int | Literal["none"] | None = preset_number(least=1)
    """Images are resized so that their shorter side has this many pixels; none: they keep their size."""
    crop: int | None = preset_number(least=1)
    """A random square of this many pixels is cut out to train on."""
    squash: bool | None = None
    """Resize both sides to --resize, not only the shorter one; this distorts images that are not square."""
    batch_size: int | None = preset_number(least=1)
    """Pairs in a step."""
    learning_rate: float | None = preset_number(above=0)
    """Learning rate before the schedule; discriminators may have their own (--discriminator-learning-rate)."""
    ema_decay: float | None = preset_number(above=0)
    """Keep and use a moving average of the generators' weights; 0.999 remembers about 1,000 steps."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if (checks := getattr(super(), "__post_init__", None)) is not None:  # of other options beside these
            checks()

    def apply(
        self,
        preset: TrainingSettings,
        *,
        small: bool,
        notes: Sequence[str] = (),
        losses: Sequence[str] = (),
        **changes: Any,
    ) -> Settled:
        """A preset with these choices in it.

        Args:
            preset: of the method.
            small: scale down what no option chose, for a CPU: batch 1, at most 32 channels, 128 pixels where the
                generator takes them. Parts that the preset gives as ``partial(table.create, name, ...)`` are scaled
                down, too; other builders and modules stay as they are.
            notes: what was scaled down already.
            losses: options of the method that name consistency losses.
            changes: of the method's own numbers.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given.
            ValueError: a text that names no parts.
        """
        told = list(notes)
        small = small and not preset.suits_cpu
        if small:
            preset = self._scaled_down(preset, told)
        wished = {"width": 32} if small and not self.width else {}
        given = chosen({"width": self.width})
        tables: dict[str, tuple[Registry[Any], dict[str, Any], dict[str, Any]]] = {
            "generator": (GENERATORS, given | chosen({"upsample": self.upsample}), wished),
            "discriminator": (DISCRIMINATORS, given, wished),
            "adversarial": (ADVERSARIAL_LOSSES, {}, {}),
            "replay": (REPLAY_BUFFERS, {}, {}),
            "augment": (AUGMENTATIONS, {}, {}),
            "penalty": (PENALTIES, {}, {}),
            **{name: (CONSISTENCY_LOSSES, {}, {}) for name in losses},
        }
        parts = {
            name: with_options(getattr(self, name, None) or self._of(preset, name), table, must, may, told)
            for name, (table, must, may) in tables.items()
            if hasattr(preset, name)
        }
        if self.generator is None and "generator" in parts:
            self._refuse_to_change(parts["generator"])
        every = chosen({"penalty_every": getattr(self, "penalty_every", None)})
        return Settled(replace(preset, **parts, **self._numbers(preset), **every, **changes), list(dict.fromkeys(told)))

    def _refuse_to_change(self, generator: Any) -> None:
        """Options of a generator that is not part of the table would do nothing."""
        given = chosen({"width": self.width, "upsample": self.upsample})
        if given and not isinstance(generator, str | tuple) and GENERATORS.named(generator) is None:
            options = ", ".join(f"--{option}" for option in given)
            raise ValueError(
                f"the preset's generator is built already, so {options} cannot change it: leave that out, or name "
                "another generator (--generator)"
            )

    def _of(self, preset: TrainingSettings, name: str) -> Any:
        """The preset's choice. Where other discriminators were chosen, the first one's of a list is everybody's."""
        choice = getattr(preset, name)
        if name == "discriminator" or getattr(self, "discriminator", None) is None:
            return choice
        return tuple(map(_first, choice)) if isinstance(choice, tuple) else _first(choice)

    def _scaled_down(self, preset: TrainingSettings, notes: list[str]) -> TrainingSettings:
        if self.batch_size is None and preset.batch_size > 1:
            notes.append("batch size 1")
        preset = replace(preset, batch_size=1)
        if self.crop is None and self.resize is None:
            chosen_parts = (getattr(self, name, None) or getattr(preset, name, None) for name in _PLACES)
            crop = _small_crop(*chosen_parts)
            if crop < preset.crop:
                notes.append(f"{crop} pixels")
                resize = None if preset.resize is None else round(crop * preset.resize / preset.crop)
                preset = replace(preset, crop=crop, resize=resize)
        return preset

    def _numbers(self, preset: TrainingSettings) -> dict[str, Any]:
        """The training settings that these options change.

        ``crop`` alone cuts from images of the preset's size, which is raised to the crop if it is smaller; ``resize``
        alone lowers the preset's crop to it if need be.
        """
        names = ("learning_rate", "discriminator_learning_rate", "ema_decay", "batch_size", "crop", "squash")
        numbers = chosen({name: getattr(self, name, None) for name in names})
        resize = preset.resize if self.resize is None else None if self.resize == "none" else self.resize
        if self.crop is None and isinstance(self.resize, int):
            numbers["crop"] = min(preset.crop, self.resize)
        if self.resize is None and resize is not None:
            resize = max(resize, numbers.get("crop", preset.crop))
        return numbers | {"resize": resize}


@dataclass(frozen=True)
class TrainingOptions(GeneratorOptions):
    """Options that every method with discriminators has. None stands for the preset's value.

    A comma gives the two domains different parts, a plus gives one domain several discriminators, and parentheses set
    options: ``--discriminator "pixel,patchgan(layers=2)+pixel"``.

    Raises:
        ValueError: a number is too small; the message names its limit.
    """

    discriminator: Annotated[str | None, part_help(DISCRIMINATORS, "Discriminator")] = None
    adversarial: Annotated[str | None, part_help(ADVERSARIAL_LOSSES, "Adversarial loss")] = None
    replay: Annotated[str | None, part_help(REPLAY_BUFFERS, "Replay buffer of generated images")] = None
    penalty: Annotated[str | None, part_help(PENALTIES, "Penalty on discriminators, or none")] = None
    penalty_every: int | None = preset_number(least=1)
    """Apply the penalty only in every N-th step, multiplied by N."""
    augment: Annotated[str | None, part_help(AUGMENTATIONS, "Change what discriminators see, or none")] = None
    discriminator_learning_rate: float | None = preset_number(above=0)
    """Learning rate of the discriminators alone. None: the preset's, else --learning-rate."""


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _first(choice: Any) -> Any:
    return choice[0] if isinstance(choice, list) else choice


def _small_crop(generator: Any, discriminator: Any) -> int:
    """128 pixels, or the least that all generators and discriminators take."""
    networks = [*_networks(generator, GENERATORS), *_networks(discriminator, DISCRIMINATORS)]
    only = [size for network in networks if isinstance(size := getattr(network, "size", None), int)]
    multiples, leasts = zip(*map(size_limits, networks), strict=True)
    multiple = math.lcm(*multiples)
    return max(only, default=-(-max(128, *leasts) // multiple) * multiple)


def _networks(choice: Any, table: Registry[Any]) -> list[nn.Module]:
    """The networks of a choice, which may be a pair (one for each domain) and have lists, without their weights."""
    parts = parse_choice(choice, table) if isinstance(choice, str) else choice
    if parts is None:
        return []
    if isinstance(parts, tuple | list):
        return [network for part in parts for network in _networks(part, table)]
    if isinstance(parts, nn.Module):
        return [parts]
    with torch.device("meta"):
        return [table.create(parts) if isinstance(parts, str) else parts()]
