"""Whether images, sizes and options are such that a network can take them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_counts", "check_images", "check_sizes", "check_weight", "is_exporting", "one_of", "size_limits"]

# PyTorch 2.6 cannot tell export from compilation.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def size_limits(network: object) -> tuple[int, int]:
    """``size_multiple`` and ``min_size`` of a network: 1 and ``size_multiple`` where it does not say."""
    multiple = getattr(network, "size_multiple", 1)
    return multiple, getattr(network, "min_size", multiple)


def check_images(images: Tensor, network: object) -> None:
    """Refuse images that a network cannot take; during export check nothing, so that sizes stay free.

    Args:
        images: should be float [B, C, H, W].
        network: says what it takes: C is its ``in_channels`` (3 if it does not say), H and W are multiples of its
            ``size_multiple`` and at least its ``min_size`` (:func:`size_limits`).

    Raises:
        ValueError: names the type or shape, what is wanted, and the remedy.
    """
    if is_exporting():
        return
    name, channels = type(network).__name__, getattr(network, "in_channels", 3)
    multiple, minimum = size_limits(network)
    if not images.is_floating_point():
        raise ValueError(f"images are floats in [-1, 1], but these are {images.dtype}: see ganparts.data.to_unit_range")
    if images.ndim != 4:
        raise ValueError(
            f"images are [B, C, H, W], but this has the shape {list(images.shape)}: a single one is image[None]"
        )
    if images.shape[1] != channels:
        raise ValueError(
            f"{name} takes images [B, C, H, W] with C={channels}, but these have the shape "
            f"{list(images.shape)}: convert them, or build it with in_channels={images.shape[1]}"
        )
    height, width = images.shape[-2:]
    nearest = [max(minimum, (side + multiple // 2) // multiple * multiple, multiple) for side in (height, width)]
    if height % multiple or width % multiple:
        raise ValueError(
            f"the images are {height}x{width}, but {name} needs a height and a width that are multiples of "
            f"{multiple}: resize, crop or pad them to {nearest[0]}x{nearest[1]}"
        )
    if min(height, width) < minimum:
        raise ValueError(
            f"the images are {height}x{width}, but {name} needs at least {minimum}x{minimum}: resize or pad them"
        )


def check_sizes(a: Tensor, b: Tensor, *, aligned: bool = False) -> None:
    """Refuse a batch whose images of ``a`` and ``b`` differ in height or width, or, if ``aligned``, in number.

    Raises:
        ValueError: names both shapes.
    """
    if a.shape[-2:] != b.shape[-2:] or (aligned and len(a) != len(b)):
        wanted = "equally many, all" if aligned else "all"
        raise ValueError(
            f"images of a have the shape {list(a.shape)} and those of b {list(b.shape)}: give {wanted} of one height "
            "and width"
        )


def check_weight(name: str, value: Any, *, above_zero: bool = False) -> None:
    """Refuse what is no finite number from 0 on, or, with ``above_zero``, no finite number above 0.

    A tensor of one number is taken as it is: looking at its value would wait for its device.

    Raises:
        ValueError: names the number and its value.
    """
    if isinstance(value, Tensor) and value.ndim == 0:
        return
    number = isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf
    if not number or (above_zero and not value):
        raise ValueError(f"{name}={value!r}: give a number {'above 0' if above_zero else 'from 0 on'}")


def check_counts(*, least: int = 1, **options: Any) -> None:
    """Refuse options that are not whole numbers from ``least`` on, such as channels.

    Raises:
        ValueError: names the option and its value.
    """
    for name, value in options.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r}: give a whole number, at least {least}")


def one_of(option: str, value: Any, known: Collection[Any]) -> Any:
    """``value``, if it is one of those that an option knows.

    Raises:
        ValueError: names the option, its value and those that are known.
    """
    if value not in known:
        raise ValueError(f"{option}={value!r} is not known: use one of {', '.join(map(repr, known))}")
    return value
