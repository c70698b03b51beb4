"""Make a training square of an image of any size: resize it, cut a square out, mirror it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ganparts.data.resizing import resize, resize_shorter, scaled_size

__all__ = ["Framing", "Window"]


class Window(NamedTuple):
    """Where to cut a square out, and whether to mirror it."""

    top: int
    left: int
    mirrored: bool


@dataclass(frozen=True)
class Framing:
    """How training images are framed.

    Args:
        resize: length in pixels that the shorter side is resized to first (bicubic, antialiased). None keeps the size;
            only images smaller than the crop are enlarged to it.
        crop: side of the square that is cut out at random, in pixels.
        flip: mirror the square with probability 1/2.
        squash: resize both sides to ``resize`` and ignore the aspect, as the reference implementation of CycleGAN does.

    Raises:
        ValueError: ``crop`` is larger than ``resize`` or not positive, or ``squash`` is given without ``resize``.
    """

    resize: int | None = 286
    crop: int = 256
    flip: bool = True
    squash: bool = False

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ValueError(f"crop={self.crop}: it is at least 1 pixel")
        if self.resize is not None and self.crop > self.resize:
            raise ValueError(
                f"crop={self.crop} is larger than resize={self.resize}: images are resized first, then cropped"
            )
        if self.squash and self.resize is None:
            raise ValueError("squash=True needs a size to squash images to: give resize")

    def fit(self, image: Tensor) -> Tensor:
        """Resize a whole image, uint8 [3, H, W], for cutting; an image that is resized already stays as it is."""
        if self.resize is not None:
            return resize(image, self.resize) if self.squash else resize_shorter(image, self.resize)
        return resize_shorter(image, self.crop) if min(image.shape[-2:]) < self.crop else image

    def fitted_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after :meth:`fit`, of an image of this height and width."""
        if self.squash and self.resize is not None:
            return self.resize, self.resize
        return scaled_size(height, width, self.resize or max(self.crop, min(height, width)))

    def draw(self, image: Tensor, draws: random.Random) -> Window:
        """Draw a random window of a fitted image."""
        top, left = (draws.randrange(side - self.crop + 1) for side in image.shape[-2:])
        return Window(top, left, self.flip and draws.random() < 0.5)

    def cut(self, image: Tensor, window: Window) -> Tensor:
        """Cut a window out of a fitted image: [3, crop, crop]."""
        top, left, mirrored = window
        image = image[:, top : top + self.crop, left : left + self.crop]
        return image.flip(-1) if mirrored else image
