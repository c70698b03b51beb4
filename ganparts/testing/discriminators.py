"""Checks of discriminators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ganparts.registry import DISCRIMINATORS
from ganparts.testing.contracts import Subject, contract, maps_of, require, run_checks, subject
from ganparts.testing.networks import NETWORK_CHECKS, randomized

__all__ = ["DISCRIMINATOR_CHECKS", "check_discriminator"]


@contract(
    "Images become logits [B, objectives, H', W'], or a tuple of such maps.",
    remedy="give one score an image as [B, 1, 1, 1] (scores[:, :, None, None]), and several maps as a tuple.",
)
def gives_maps(part: Subject) -> None:
    network = part.build()
    for batch in (1, 3):
        images = part.images(network, batch)
        logits = network(images)
        tensors = isinstance(logits, tuple | torch.Tensor) and all(isinstance(m, torch.Tensor) for m in maps_of(logits))
        require(tensors, f"the output is a {type(logits).__name__}.")
        shapes = [list(each.shape) for each in maps_of(logits)]
        require(len(shapes) > 0 and all(len(s) == 4 and s[0] == batch for s in shapes), f"the logits are {shapes}.")
        require(len({shape[1] for shape in shapes}) == 1, f"maps differ in their number of objectives: {shapes}.")
        require(all(each.dtype == images.dtype for each in maps_of(logits)), "the logits have another type.")


@contract(
    "Logits are not squashed: the adversarial loss does that.", remedy="remove the sigmoid (or tanh) from the end."
)
def gives_logits(part: Subject) -> None:
    network = part.build().eval()
    values = []
    with torch.no_grad():
        for _ in range(3):
            logits = maps_of(randomized(network)(part.images(network, 4)))
            values += [each[each.isfinite()].flatten() for each in logits]
    everything = torch.cat(values)
    low, high = (everything.min(), everything.max()) if len(everything) else (-torch.inf, torch.inf)
    for name, least in (("sigmoid", 0), ("tanh", -1)):
        squashed = low >= least and high <= 1
        require(not squashed, f"with large weights all values stay in [{least}, 1], as after a {name}.")


DISCRIMINATOR_CHECKS = (gives_maps, gives_logits, *NETWORK_CHECKS)


def check_discriminator(builder: str | Callable[[], Any], *, channels: int = 3, size: int | None = None) -> None:
    """Check that a discriminator keeps the contracts of :class:`ganparts.protocols.Discriminator`.

    Args:
        builder: makes the discriminator, without arguments; or a registered name.
        channels: of the images that it takes.
        size: height and width of the images that it gets. The default is its attribute ``size``, if it takes one size
            alone, else as for :func:`check_generator`.

    Raises:
        ContractError: it breaks contracts; the message names each, and how to mend it.
    """
    run_checks(subject(DISCRIMINATORS, builder, channels=channels, size=size), DISCRIMINATOR_CHECKS)
