"""What every assembly of networks offers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ganparts.adversarial.critics import sum_of
from ganparts.adversarial.optimizers import Optimizers

__all__ = ["Assembly", "constrain", "losses_of_critics", "refuse_shared", "train_step"]


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
