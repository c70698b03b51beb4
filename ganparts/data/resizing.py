"""Resize images that are bytes, and convert bytes to floats in [-1, 1] and back."""

from __future__ import annotations

import torch
from torch import Tensor

from ganparts.data.decoding import MAX_PIXELS
from ganparts.data.errors import DataError

__all__ = ["resize", "resize_shorter", "resize_square", "scaled_size", "to_bytes", "to_unit_range"]


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize bytes [..., H, W] with a bicubic, antialiased filter; the aspect may change.

    Args:
        image: of any size.
        size: height and width, or one number for both.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[-2:] == (height, width):
        return image
    return functional.resize(image, [height, width], InterpolationMode.BICUBIC, antialias=True)


def resize_shorter(image: Tensor, size: int) -> Tensor:
    """Resize bytes [..., H, W] so that the shorter side has ``size`` pixels; the aspect stays.

    Raises:
        DataError: the image is so narrow that the result would be enormous.
    """
    return resize(image, scaled_size(image.shape[-2], image.shape[-1], size))


def scaled_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after resizing the shorter side to ``size`` pixels.

    Raises:
        DataError: the result would be enormous.
    """
    shorter = min(height, width)
    scaled = round(height * size / shorter), round(width * size / shorter)
    if scaled[0] * scaled[1] > MAX_PIXELS:
        raise DataError(
            f"an image of {width} x {height} pixels is too narrow: with a shorter side of {size} pixels it would have "
            f"{scaled[0] * scaled[1]:,}, and more than {MAX_PIXELS:,} are not made. Crop it, ask for fewer pixels, or "
            "squash it to a square (squash=True)"
        )
    return scaled


def resize_square(image: Tensor, size: int, *, squash: bool = False) -> Tensor:
    """Make a square [..., size, size] of bytes [..., H, W].

    Args:
        image: of any size.
        size: side of the square, in pixels.
        squash: distort an image that is not square, instead of taking its middle square.
    """
    from torchvision.transforms.v2 import functional

    return resize(image if squash else functional.center_crop(image, [min(image.shape[-2:])] * 2), size)


def to_unit_range(images: Tensor) -> Tensor:
    """Convert bytes 0..255 of any shape to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Convert floats in [-1, 1] of any shape to bytes 0..255; values outside are clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
