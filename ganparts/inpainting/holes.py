"""What is done to images before a generator fills them: small distortions, which it must keep, and holes.

All of it is drawn on the images' device by tensor operations alone, so a step that does it can be captured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor

from ganparts.augment import Changes, apply_changes

__all__ = ["Distortion", "Holes"]


@dataclass(frozen=True)
class Holes:
    """Blackens squares of a grid, each with the same probability: images [B, C, H, W] to the same shape.

    The squares at the right and lower edges are cut off where the image ends.

    Args:
        side: of a square, in pixels.
        fraction: the probability that a square is blackened.

    Raises:
        ValueError: a side below 1, or a fraction that is not from 0 to 1.
    """

    side: int = 32
    fraction: float = 0.4

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side={self.side}: a hole has at least 1 pixel")
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction} is not a fraction of the squares: use a number from 0 to 1")

    def draw(self, images: Tensor) -> Tensor:
        """Which pixels lie in holes: bool [B, 1, H, W]."""
        height, width = images.shape[2:]
        squares = (len(images), 1, -(-height // self.side), -(-width // self.side))
        holes = torch.rand(squares, device=images.device) < self.fraction
        return repeat(holes, "b c h w -> b c (h y) (w x)", y=self.side, x=self.side)[:, :, :height, :width]

    def __call__(self, images: Tensor) -> Tensor:
        return images.masked_fill(self.draw(images), -1.0)


@dataclass(frozen=True)
class Distortion:
    """Rotates images and changes their colours, each image by its own draws: [B, C, H, W] to the same shape.

    Deviations from torchvision's ``ColorJitter`` and ``RandomRotation``, which the source applies: the colours change
    in a fixed order (brightness, contrast, hue, saturation); brightness is shifted by what the factor would change
    middle grey; contrast is about middle grey, not about the image's mean; the hue turns about the grey axis; rotated
    images are resampled bilinearly and go on mirrored beyond their edges, where the source has the nearest pixel and
    black.

    Args:
        degrees: the largest angle, either way.
        colour: the largest change of brightness, contrast, saturation (factors from 1 - colour to 1 + colour) and hue
            (a share of a whole turn).
    """

    degrees: float = 10.0
    colour: float = 0.2

    def draw(self, images: Tensor) -> Changes:
        """Fresh changes for these images, from their device's generator."""
        batch, device = len(images), images.device

        def uniform(limit: float) -> Tensor:
            return limit * (2 * torch.rand(batch, device=device) - 1)

        one, nothing = torch.ones(batch, device=device), torch.zeros(batch, device=device)
        return Changes(
            mirror=nothing,
            turns=nothing,
            shift=torch.zeros(batch, 2, device=device),
            scale=one,
            angle_before=uniform(math.radians(self.degrees)),
            stretch=one,
            angle_after=nothing,
            move=torch.zeros(batch, 2, device=device),
            brightness=uniform(self.colour),
            contrast=1 + uniform(self.colour),
            invert=nothing,
            hue=2 * math.pi * uniform(self.colour),
            saturation=1 + uniform(self.colour),
        )

    def __call__(self, images: Tensor) -> Tensor:
        return apply_changes(images, self.draw(images)).clamp(-1, 1)
