"""What discriminators share that judge an image of one size as a whole, with a single logit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import check_images

__all__ = ["Blur", "check_size", "halvings"]


class Blur(nn.Module):
    """Blurs each channel with [1, 3, 3, 1] x [1, 3, 3, 1] / 64: [B, C, H, W] to [B, C, H', W'].

    Args:
        padding: with zeros.
        stride: 2 keeps every second pixel; with ``padding=1`` even sizes are halved exactly.
    """

    kernel: Tensor

    def __init__(self, *, padding: int, stride: int = 1):
        super().__init__()
        line = (1, 3, 3, 1)
        self.register_buffer("kernel", torch.tensor([[y * x / 64 for x in line] for y in line]), persistent=False)
        self.padding, self.stride = padding, stride

    def forward(self, features: Tensor) -> Tensor:
        channels = features.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        return F.conv2d(features, kernel, stride=self.stride, padding=self.padding, groups=channels)


def halvings(size: int) -> int:
    """How often images of this size are halved until they are 4x4.

    Raises:
        ValueError: ``size`` is not a power of two of at least 8.
    """
    if size < 8 or size & (size - 1):
        raise ValueError(f"size={size}: images have a power of two of at least 8 pixels a side")
    return size.bit_length() - 3


def check_size(images: Tensor, network: nn.Module, size: int) -> None:
    """:func:`~ganparts.blocks.check_images` for a network that takes one size alone.

    Raises:
        ValueError: also for another size.
    """
    check_images(images, network)
    height, width = images.shape[-2:]
    if (height, width) != (size, size):
        raise ValueError(
            f"the images are {height}x{width}, but {type(network).__name__} judges {size}x{size} alone: resize or crop "
            "them, or build it with another size"
        )
