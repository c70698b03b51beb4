"""What every assembly of networks offers, and how its parts are chosen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from ganparts.adversarial.critic import Critic
from ganparts.adversarial.critics import Critics, sum_of
from ganparts.adversarial.optimizers import Optimizers
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
    "Assembly",
    "AugmentChoice",
    "Choice",
    "Choices",
    "build_critics",
    "build_part",
    "constrain",
    "losses_of_critics",
    "overridden",
    "pair_of",
    "refuse_shared",
    "train_step",
]

PartT = TypeVar("PartT")
PresetT = TypeVar("PresetT", bound=TrainingSettings)
Choice: TypeAlias = str | Callable[[], PartT] | PartT
"""A registered name, a builder without arguments, or a ready part."""

Choices: TypeAlias = Choice[PartT] | Sequence[Choice[PartT]]
"""One choice, or a list of them where several critics judge."""

AugmentChoice: TypeAlias = str | Augment | Callable[[], Augment] | None


class Assembly(Protocol):
    """What the training loop, the run folder and exports ask of an assembly. It is also a ``torch.nn.Module``.

    Building one for a new method takes these five methods, with :class:`Critic` and :class:`Optimizers` to write
    ``train_step``.

    Optional attribute: ``shared_draws``, the names of its methods that draw random numbers for a whole batch. Processes
    that train together then use what the first one draws; else each draws its own.
    """

    def networks(self) -> Mapping[str, Mapping[str, nn.Module]]:
        """The trained networks, by optimizer and by name."""
        ...

    def stages(self) -> Mapping[str, nn.Module]:
        """The generators by name, in the order in which a sample grid applies them. The first one is exported."""
        ...

    def parts(self) -> Mapping[str, object]:
        """Every part by name, for the record of a run."""
        ...

    def phase(self, step: int) -> Hashable:
        """What kind of step comes at ``step``, counted from 0; steps of one kind run the same operations."""
        ...

    def train_step(
        self,
        batch: Any,
        optimizers: Optimizers,
        *,
        step: int | None = None,
        low_memory: bool = False,
        side_stream: torch.cuda.Stream | None = None,
    ) -> dict[str, Tensor]:
        """Train all networks once; the weighted losses, detached scalars on the device."""
        ...


def train_step(
    model: Assembly,
    batch: Any,
    optimizers: Optimizers,
    *,
    step: int | None = None,
    low_memory: bool = False,
    side_stream: torch.cuda.Stream | None = None,
) -> dict[str, Tensor]:
    """Train all networks of an assembly once.

    Args:
        model: the assembly; its replay buffers are read and filled.
        batch: a :class:`~ganparts.Pair` of images [B, C, H, W], on the model's device.
        optimizers: from :func:`~ganparts.make_optimizers`.
        step: the number of this step, from 0, which decides whether a lazy penalty is due. None: penalties apply in
            every step, with their plain weight.
        low_memory: use less memory, for more time. The numbers stay the same, except with batch norm or dropout; CUT
            draws its positions and augmentations in another order.
            (:func:`ganparts.blocks.recompute_blocks` saves more.)
        side_stream: a CUDA stream for training the discriminators at the same time as the generators, where a replay
            buffer makes them independent; None to train them one after the other.

    Returns:
        The weighted losses, detached scalars on the device. The assembly's ``train_step`` lists their names.
    """
    return model.train_step(batch, optimizers, step=step, low_memory=low_memory, side_stream=side_stream)


def constrain(networks: Iterable[nn.Module]) -> None:
    """After the optimizers' step, let networks with a method ``constrain`` bring their weights back into range."""
    for network in networks:
        method = getattr(network, "constrain", None)
        if method is not None:
            method()


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
        parameters = inspect.signature(function).parameters
    except ValueError:  # some functions in C do not say
        return builder()
    if not _takes(builder):
        raise TypeError(
            f"{argument}: {_name(builder)} cannot be called as it is given, {builder!r}: it takes "
            f"{', '.join(parameters) or 'nothing'}. Options are given as partial({_name(builder)}, option=value)"
        )
    return builder()


def _takes(function: Callable[..., Any], *arguments: object) -> bool:
    """Whether a function can be called with these arguments, as far as its signature says."""
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def _name(builder: Any) -> str:
    function = builder.func if isinstance(builder, partial) else builder
    return getattr(function, "__qualname__", type(function).__name__)


def _build_penalty(choice: Any) -> Any:
    if choice is None or isinstance(choice, str | nn.Module) or not callable(choice):
        return choice if choice is None else build_part("penalty", choice, PENALTIES)
    # what takes a discriminator and images is a penalty, and no builder
    return build_part("penalty", choice, PENALTIES) if _takes(choice) else choice


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
                f"{argument} of domain {domain} lists {len(choices)} choices for {count} discriminator(s): {choices!r}"
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


def losses_of_critics(name: str, each: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """The sum of a loss over critics under one name, and, if there are several, one by one: ``disc_b_0``.

    A critic without such a loss has None.
    """
    given = {number: loss for number, loss in enumerate(each) if loss is not None}
    if not given:
        return {}
    one_by_one = {f"{name}_{number}": loss for number, loss in given.items()} if len(each) > 1 else {}
    return {name: sum_of(list(given.values()))} | one_by_one


def refuse_shared(places: Mapping[str, object]) -> None:
    """Refuse a part that is trained, or that remembers, in two places; frozen parts may be shared.

    Raises:
        ValueError: names the two places.
    """
    owners: dict[int, str] = {}
    for place, part in places.items():
        if not isinstance(part, nn.Module):
            continue
        tensors: list[object] = [parameter for parameter in part.parameters() if parameter.requires_grad]
        remembers = any(True for _ in part.buffers()) and place.startswith(("penalty", "augment"))
        if place.startswith("replay") or remembers:
            tensors = [part]
        for tensor in tensors:
            if (other := owners.setdefault(id(tensor), place)) != place:
                raise ValueError(
                    f"{other} and {place} are the same {type(part).__name__} instance, or share trained weights, so "
                    "they would share what they learn or remember: give a name, a builder that makes a new one each "
                    "time, or a pair"
                )
