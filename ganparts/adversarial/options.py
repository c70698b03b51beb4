"""A user's choices over a preset, as a command line has them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ganparts.adversarial.presets import TrainingSettings
from ganparts.augment import DiffAugment
from ganparts.registry import Registry

__all__ = ["TrainingOptions", "chosen", "parse_augment", "parse_choice"]


def _number(default: Any, *, least: float | None = None, above: float | None = None) -> Any:
    return field(default=default, metadata={"least": least, "above": above})


@dataclass(frozen=True)
class TrainingOptions:
    """Options of networks and their training that every method has. None stands for the preset's value."""

    width: int | None = _number(None, least=1)
    """Channels after the first convolution of each network."""
    upsample: Literal["transposed", "resize_conv"] | None = None
    """How generators enlarge, where they have the choice; resize_conv leaves no checkerboard."""
    resize: int | Literal["none"] | None = _number(None, least=1)
    """Images are resized so that their shorter side has this many pixels; none: they keep their size."""
    crop: int | None = _number(None, least=1)
    """A random square of this many pixels is cut out to train on."""
    batch_size: int | None = _number(None, least=1)
    """Pairs in a step."""
    learning_rate: float | None = _number(None, above=0)
    """Of the optimizers, before the schedule."""
    discriminator_learning_rate: float | None = _number(None, above=0)
    """Of the discriminators, if it shall be another."""
    ema_decay: float | None = _number(None, above=0)
    """Keep and use a moving average of the generators' weights; 0.999 remembers about 1,000 steps."""

    def numbers(self, preset: TrainingSettings) -> dict[str, Any]:
        """The training settings that these options change.

        ``crop`` without ``resize`` cuts from images at the preset's size; the preset's size is raised to the crop
        if it is smaller.
        """
        names = ("learning_rate", "discriminator_learning_rate", "ema_decay", "batch_size", "crop")
        numbers = chosen({name: getattr(self, name) for name in names})
        resize = preset.resize if self.resize is None else None if self.resize == "none" else self.resize
        crop = numbers.get("crop", preset.crop)
        if self.crop is None and isinstance(self.resize, int):
            numbers["crop"] = crop = min(crop, self.resize)
        if self.resize is None and resize is not None:
            resize = max(resize, crop)
        return numbers | {"resize": resize}


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def parse_choice(
    text: str, table: Registry[Any], *, given: Mapping[str, Any] = {}, wished: Mapping[str, Any] = {}
) -> Any:
    """Parts as a command line names them.

    ``patchgan`` is one for both domains, ``pixel,patchgan`` a pair, and ``pixel,patchgan+pixel`` a pair whose second
    domain has two. Options go in parentheses: ``patchgan(layers=2)``. ``none`` is a part if the table has one of that
    name, else None.

    Args:
        text: the user's.
        table: of the parts.
        given: options that every part must take; those in parentheses come before them.
        wished: upper limits of numbers, for parts that have such options and larger defaults.

    Raises:
        UnknownPartError: a name that is not registered.
        TypeError: an option that a part does not have.
        ValueError: a text of another form.
    """

    def one(word: str) -> Any:
        word = word.strip()
        if word == "none" and word not in table:
            return None
        name, options = _split_options(word, table.kind)
        known = table.options(name)
        taken = {option: value for option, value in wished.items() if option in known and known[option].default > value}
        builder = partial(table.create, name, **(taken | dict(given) | options))
        unknown = [option for option in options | dict(given) if option not in known]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            table.create(name, **{unknown[0]: None})  # raises, and names what there is
        return builder if taken or given or options else name

    def domain(words: str) -> Any:
        parts = [one(word) for word in _split(words, "+")]
        return parts if len(parts) > 1 else parts[0]

    both = [domain(words) for words in _split(text, ",")]
    if len(both) > 2:
        raise ValueError(f"{text!r} names {len(both)} {table.kind}s, but there are two domains: give one or two")
    return tuple(both) if len(both) == 2 else both[0]


def parse_augment(text: str) -> Any:
    """Augmentations as a command line names them: ``none``, ``diffaugment``, or a pair ``none,diffaugment``."""
    known = {"none": lambda: None, "diffaugment": DiffAugment}
    words = [word.strip() for word in _split(text, ",")]
    for word in words:
        if word not in known or len(words) > 2:
            raise ValueError(f"--augment {text}: give {', '.join(known)}, or two of them with a comma")
    made = [known[word]() for word in words]
    return tuple(made) if len(made) == 2 else made[0]


def _split(text: str, separator: str) -> list[str]:
    """The pieces between separators that are outside of parentheses."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == separator and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def _split_options(word: str, kind: str) -> tuple[str, dict[str, Any]]:
    name, bracket, _ = word.partition("(")
    if not bracket:
        return word, {}
    try:
        call = ast.parse(word, mode="eval").body
        assert isinstance(call, ast.Call)
        assert not call.args
        return name, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise ValueError(f"{word!r} is no {kind} with options: write it as name(option=value, option='text')") from None
