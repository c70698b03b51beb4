"""Checks of replay buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.registry import REPLAY_BUFFERS
from ganparts.testing.contracts import Subject, contract, host_draws, require, run_checks, subject

__all__ = ["REPLAY_CHECKS", "check_replay_buffer"]

_BATCHES = 40  # of 2 images: more than the usual 50


def _batch(device: str = "cpu") -> Tensor:
    return torch.rand(2, 3, 4, 4, device=device) * 2 - 1


@contract(
    "A module that returns as many images as it is given, each one of these or an older one.",
    remedy="derive from torch.nn.Module, and return stored images unchanged, in the type of those given.",
)
def returns_given_or_older(part: Subject) -> None:
    buffer, seen = part.build(), []
    require(isinstance(buffer, nn.Module), f"the builder made a {type(buffer).__name__}.")
    for _ in range(_BATCHES):
        images = _batch()
        seen.extend(images)
        returned = buffer(images)
        require(isinstance(returned, Tensor), f"it returned a {type(returned).__name__}, not a tensor.")
        kept = returned.shape == images.shape and returned.dtype == images.dtype
        require(kept, f"images {list(images.shape)} became {list(returned.shape)}, {returned.dtype}.")
        known = all(any(torch.equal(image, old) for old in seen) for image in returned)
        require(known, "it returned an image that it was never given.")


@contract(
    "It keeps copies: images that are changed later are returned as they were, and those given stay as they are.",
    remedy="copy into a buffer (stored.copy_(images), index_copy_), and use no operation in place on the images.",
)
def keeps_copies(part: Subject) -> None:
    buffer, seen = part.build(), []
    for _ in range(_BATCHES):
        images = _batch()
        before = images.clone()
        seen.extend(before)
        returned = buffer(images).clone()
        require(torch.equal(images, before), "it changed the images in place.")
        known = all(any(torch.equal(image, old) for old in seen) for image in returned)
        require(known, "an image that was changed after it was given came back changed.")
        images.zero_()


@contract(
    "What it remembers is in state_dict: a new one that loads it returns the same images.",
    remedy="keep images and counts in buffers (register_buffer), not in Python lists and numbers, and take over their "
    "shapes when loading.",
)
def restores_its_state(part: Subject) -> None:
    buffer, fresh = part.build(), part.build()
    for _ in range(_BATCHES):
        buffer(_batch())
    fresh.load_state_dict({name: value.clone() for name, value in buffer.state_dict().items()})
    later = [_batch() for _ in range(_BATCHES)]
    returned = []
    for each in (buffer, fresh):
        torch.manual_seed(1)
        returned.append(torch.stack([each(images.clone()) for images in later]))
    require(torch.equal(*returned), "a new one that loaded its state returns other images.")


@contract(
    "It runs without data, on the device meta, and draws nothing on the host.",
    remedy="use tensor operations alone (torch.where, index_copy_) instead of if and lists, and draw with torch on the "
    "images' device.",
)
def runs_without_data(part: Subject) -> None:
    buffer = part.build()
    with host_draws(torch_too=False) as used:
        for _ in range(_BATCHES):
            buffer(_batch())
    require(not used, f"it drew from {' and '.join(used)}.")
    with torch.device("meta"):
        buffer = part.build()
    with host_draws(torch_too=True) as used:
        for _ in range(3):
            require(buffer(_batch("meta")).is_meta, "images on the device meta came back on another.")
    require(not used, f"it drew from {' and '.join(used)}.")


REPLAY_CHECKS = (returns_given_or_older, keeps_copies, restores_its_state, runs_without_data)


def check_replay_buffer(builder: str | Callable[[], Any]) -> None:
    """Check that a replay buffer keeps the contracts of :class:`ganparts.protocols.ReplayBuffer`.

    Args:
        builder: makes the buffer, without arguments; or a registered name.

    Raises:
        ContractError: it breaks contracts; the message names each, and how to mend it.
    """
    run_checks(subject(REPLAY_BUFFERS, builder), REPLAY_CHECKS)
