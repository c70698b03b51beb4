"""Checks of generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ganparts.blocks import size_limits
from ganparts.registry import GENERATORS
from ganparts.testing.contracts import Subject, contract, require, run_checks, subject
from ganparts.testing.networks import NETWORK_CHECKS, randomized

__all__ = ["GENERATOR_CHECKS", "check_generator"]


@contract(
    "Float images [B, C, H, W] become float images of the same height and width, for one image and for several.",
    remedy="pad the convolutions; if H and W must be multiples of a number, declare it as size_multiple, and the least "
    "as min_size.",
)
def keeps_size(part: Subject) -> None:
    network = part.build()
    for batch in (1, 3):
        images = part.images(network, batch)
        output = network(images)
        require(isinstance(output, torch.Tensor), f"the output is a {type(output).__name__}, not a tensor.")
        require(output.dtype == images.dtype, f"the output is {output.dtype}, of images that are {images.dtype}.")
        fits = output.ndim == 4 and len(output) == batch and output.shape[2:] == images.shape[2:]
        require(fits, f"images {list(images.shape)} became {list(output.shape)}.")


@contract(
    "Pictures need not be square.",
    remedy="compute sizes from the images, height and width apart; if weights are made for one size of image, declare "
    "exportable = False and tileable = False.",
)
def takes_wide_pictures(part: Subject) -> None:
    network = part.build()
    if not getattr(network, "exportable", True):
        return
    images = part.images(network, wide=True)
    output = network(images)
    require(output.shape[2:] == images.shape[2:], f"images {list(images.shape)} became {list(output.shape)}.")


@contract(
    "Every height and width that size_multiple and min_size allow is kept.",
    remedy="declare size_multiple (2 for one halving, 4 for two, and so on): translate then pads and crops pictures.",
)
def keeps_every_size(part: Subject) -> None:
    network = part.build().eval()
    if not getattr(network, "exportable", True):
        return
    multiple, _ = size_limits(network)
    side = part.images(network).shape[-1]
    for more in (1, 3):
        images = torch.rand(1, part.channels, side + more * multiple, side + multiple) * 2 - 1
        with torch.no_grad():
            output = network(images)
        require(output.shape[2:] == images.shape[2:], f"images {list(images.shape)} became {list(output.shape)}.")


@contract("Images are in [-1, 1].", remedy="end with torch.tanh, or clamp to [-1, 1].")
def stays_in_range(part: Subject) -> None:
    network = part.build().eval()
    images = part.images(network)
    with torch.no_grad():
        for given in (images, images.sign()):
            output = network(given)
            require(output.isfinite().all(), "the output has values that are not finite.")
            require(output.abs().max() <= 1 + 1e-5, f"a value is {_farthest(output):.4g}.")
        output = randomized(network)(images)
        output = output[output.isfinite()]  # weights as wild as these may give inf - inf
        far = output.numel() and output.abs().max() > 1 + 1e-5
        require(not far, f"with large weights a value is {_farthest(output):.4g}." if far else "")


def _farthest(output: torch.Tensor) -> float:
    return output.flatten()[output.abs().argmax()].item()


@contract(
    "A height or width that is not a multiple of size_multiple, or is below min_size, is refused; both are at least 1.",
    remedy="call ganparts.blocks.check_images(images, self) at the beginning of forward.",
)
def refuses_other_sizes(part: Subject) -> None:
    network = part.build()
    multiple, least = size_limits(network)
    for name, value in (("size_multiple", multiple), ("min_size", least)):
        require(isinstance(value, int) and value >= 1, f"{name} is {value!r}.")
    side = part.images(network).shape[-1]
    for size, wrong in ((side + 1, multiple > 1), (least - multiple, least > multiple)):
        if wrong:
            try:
                network(torch.zeros(1, part.channels, size, size))
            except Exception:
                continue
            require(False, f"size_multiple is {multiple} and min_size {least}, but it takes {size}x{size} images.")


@contract(
    "A generator that has features gives one for each layer asked, with feature_channels, and the same by "
    "forward_with_features.",
    remedy="see ganparts.protocols.FeatureGenerator for its methods.",
)
def gives_its_features(part: Subject) -> None:
    network = part.build().eval()
    if not hasattr(network, "features"):
        return
    images, layers = part.images(network), network.nce_layers
    with torch.no_grad():
        output, features = network.forward_with_features(images, layers)
        alone = network.features(images, layers)
        require(torch.equal(output, network(images)), "the output of forward_with_features differs from forward's.")
    require(len(alone) == len(features) == len(layers), f"{len(layers)} layers gave {len(alone)} features.")
    same = all(torch.equal(one, other) for one, other in zip(features, alone, strict=True))
    require(same, "features and forward_with_features differ.")
    channels = list(network.feature_channels(layers))
    found = [feature.shape[1] for feature in features]
    require(channels == found, f"feature_channels says {channels}, but the features have {found}.")


GENERATOR_CHECKS = (
    keeps_size,
    takes_wide_pictures,
    keeps_every_size,
    stays_in_range,
    refuses_other_sizes,
    gives_its_features,
    *NETWORK_CHECKS,
)


def check_generator(builder: str | Callable[[], Any], *, channels: int = 3, size: int | None = None) -> None:
    """Check that a generator keeps the contracts of :class:`ganparts.protocols.Generator`.

    It is built several times, with its default options, and gets small images. Take narrow networks: the checks then
    run in about a second.

    Args:
        builder: makes the generator, without arguments; or a registered name.
        channels: of the images that it takes.
        size: height and width of the images that it gets. The default is the smallest from 32 on that ``size_multiple``
            and ``min_size`` allow.

    Raises:
        ContractError: it breaks contracts; the message names each, and how to mend it.
    """
    run_checks(subject(GENERATORS, builder, channels=channels, size=size), GENERATOR_CHECKS)
