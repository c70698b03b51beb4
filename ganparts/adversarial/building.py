"""How the parts of an assembly are chosen: by name, by a builder, or ready."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from torch import nn

from ganparts.adversarial.critic import Critic
from ganparts.adversarial.critics import Critics
from ganparts.adversarial.presets import TrainingSettings
from ganparts.protocols import AdversarialLoss, Augment, Discriminator, Penalty, ReplayBuffer
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    AUGMENTATIONS,
    DISCRIMINATORS,
    PENALTIES,
    REPLAY_BUFFERS,
    Registry,
)

__all__ = [
    "UNSET",
    "AugmentChoice",
    "Choice",
    "Choices",
    "build_critics",
    "build_part",
    "overridden",
    "pair_of",
]

PartT = TypeVar("PartT")
PresetT = TypeVar("PresetT", bound=TrainingSettings)
Choice: TypeAlias = str | Callable[[], PartT] | PartT
"""A registered name, a builder without arguments, or a ready part."""

Choices: TypeAlias = Choice[PartT] | Sequence[Choice[PartT]]
"""One choice, or a list of them where several critics judge."""

AugmentChoice: TypeAlias = str | Augment | Callable[[], Augment] | None


class _Unset:
    """Stands for an argument that was not given: the preset's choice holds."""

    def __repr__(self) -> str:
        return "the preset's"


UNSET: Final[Any] = _Unset()


def overridden(preset: PresetT, **given: Any) -> PresetT:
    """A preset with those fields replaced whose value is not ``UNSET``."""
    return replace(preset, **{name: value for name, value in given.items() if value is not UNSET})


def pair_of(argument: str, choice: Any) -> tuple[Any, Any]:
    """Two choices, one for each domain, from one choice or a pair.

    Raises:
        TypeError: a tuple of another length.
    """
    if not isinstance(choice, tuple):
        return choice, choice
    if len(choice) != 2:
        raise TypeError(f"{argument} takes one choice or a pair, but was given {len(choice)}: {choice!r}")
    return choice


def build_part(argument: str, choice: Any, table: Registry[Any]) -> Any:
    """The part that a name, a builder or a ready part stands for.

    Raises:
        UnknownPartError: a name that is not registered.
        TypeError: none of the three, or a builder that takes other arguments than it is given.
    """
    if isinstance(choice, str):
        return table.create(choice)
    if isinstance(choice, nn.Module) or (hasattr(choice, "generator") and not isinstance(choice, type)):
        return choice  # an adversarial loss need not be a module
    if callable(choice):
        built = _call(argument, choice)
        if built is None:
            raise TypeError(f"{argument}: the builder {_name(choice)} returned None, and no part")
        return built
    if isinstance(choice, tuple | list):
        raise TypeError(f"{argument} takes one choice here, but was given {len(choice)}: {choice!r}")
    raise TypeError(
        f"{argument} takes a name ({', '.join(table.names())}), a builder without arguments, or a ready part, "
        f"but was given {choice!r}"
    )


def _call(argument: str, builder: Callable[..., Any]) -> Any:
    """What a builder makes when it is called without more arguments."""
    function = builder.func if isinstance(builder, partial) else builder
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters
    except ValueError:  # some functions in C do not say
        return builder()
    if not _takes(builder, follow_wrapped=False):
        raise TypeError(
            f"{argument}: {_name(builder)} cannot be called as given, {builder!r}: it takes "
            f"{', '.join(parameters) or 'nothing'}. Options are given as partial({_name(builder)}, option=value)"
        )
    return builder()


def _takes(function: Callable[..., Any], *arguments: object, follow_wrapped: bool = True) -> bool:
    """Whether a function can be called with these arguments, as far as its signature says."""
    try:
        inspect.signature(function, follow_wrapped=follow_wrapped).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def _name(builder: Any) -> str:
    function = builder.func if isinstance(builder, partial) else builder
    return getattr(function, "__qualname__", type(function).__name__)


def _build_penalty(choice: Any) -> Any:
    if choice is None or (callable(choice) and not _takes(choice)):
        return choice  # what takes a discriminator and images is a penalty, and no builder
    return build_part("penalty", choice, PENALTIES)


def _build_augment(choice: Any) -> Any:
    """A function of images, or none: a class, or a function that takes no images, is a builder."""
    if isinstance(choice, str) or AUGMENTATIONS.named(choice) is not None:
        return build_part("augment", choice, AUGMENTATIONS)
    if choice is None or isinstance(choice, nn.Module) or not callable(choice):
        return choice
    function = choice.func if isinstance(choice, partial) else choice
    is_builder = isinstance(function, type) or (_takes(choice) and not _takes(choice, None))
    return build_part("augment", choice, AUGMENTATIONS) if is_builder else choice


def build_critics(
    domain: str,
    *,
    discriminator: Choices[Discriminator],
    adversarial: Choices[AdversarialLoss],
    replay: Choices[ReplayBuffer],
    augment: AugmentChoice | Sequence[AugmentChoice] = None,
    penalty: Choices[Penalty] | Sequence[Choice[Penalty] | None] | None = None,
    penalty_every: int = 1,
) -> Critics:
    """The critics of one domain: one, or as many as ``discriminator`` lists.

    A choice that is not a list is used for each of them.

    Raises:
        TypeError: lists of different lengths, or a part of the wrong kind.
        UnknownPartError: a name that is not registered.
    """
    for argument, choice in (("discriminator", discriminator), ("adversarial", adversarial)):
        if isinstance(choice, tuple):
            raise TypeError(
                f"{argument} is a pair, but there is one domain to judge: give one, or a list for several critics"
            )
    count = len(discriminator) if isinstance(discriminator, list) else 1

    def each(argument: str, choice: Any) -> list[Any]:
        choices = choice if isinstance(choice, list) else [choice] * count
        if len(choices) != count:
            raise TypeError(
                f"{argument}{f' of domain {domain}' * bool(domain)} lists {len(choices)} choices for {count} "
                f"discriminator(s): {choices!r}"
            )
        return choices

    rows = zip(
        each("discriminator", discriminator),
        each("adversarial", adversarial),
        each("replay", replay),
        each("augment", augment),
        each("penalty", penalty),
        strict=True,
    )
    critics = [
        Critic(
            build_part("discriminator", network, DISCRIMINATORS),
            build_part("adversarial", loss, ADVERSARIAL_LOSSES),
            replay=build_part("replay", buffer, REPLAY_BUFFERS),
            augment=_build_augment(augmentation),
            penalty=_build_penalty(term),
            penalty_every=penalty_every,
        )
        for network, loss, buffer, augmentation, term in rows
    ]
    return Critics(critics, domain)
