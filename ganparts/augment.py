"""Differentiable augmentation of what discriminators see (DiffAugment, Zhao et al. 2020, arXiv 2006.10738).

With few real images a discriminator learns them by heart. Augmenting real and generated images alike, and letting
gradients through, prevents it without teaching the generator to make augmented images.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["DiffAugment", "Draws"]

Policy = Literal["color", "translation", "cutout"]


class Draws(NamedTuple):
    """Random numbers for B images, each [B] in [0, 1)."""

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    shift_y: Tensor
    shift_x: Tensor
    cutout_y: Tensor
    cutout_x: Tensor


class DiffAugment(nn.Module):
    """Augment each image by its own draws: [B, C, H, W] to the same shape, differentiably, on its device.

    - color: brightness plus U(-0.5, 0.5), saturation times U(0, 2), contrast times U(0.5, 1.5). Values may leave
      [-1, 1], as in the paper's code.
    - translation: by up to 1/8 of the height and width, zeros behind.
    - cutout: a square hole of half the height and width, zeros inside.

    Args:
        policy: which of them, in this order.

    Raises:
        ValueError: an unknown policy.
    """

    def __init__(self, policy: tuple[Policy, ...] = ("color", "translation", "cutout")):
        super().__init__()
        known = ("color", "translation", "cutout")
        for name in policy:
            if name not in known:
                raise ValueError(f"policy {name!r} is not known: use some of {', '.join(map(repr, known))}")
        self.policy = policy

    def draw(self, images: Tensor) -> Draws:
        """Fresh random numbers for these images, from their device's generator."""
        return Draws(*torch.rand(len(Draws._fields), len(images), device=images.device, dtype=images.dtype))

    def forward(self, images: Tensor) -> Tensor:
        return self.apply_draws(images, self.draw(images))

    def apply_draws(self, images: Tensor, draws: Draws) -> Tensor:
        """The augmentation as a pure function of images and random numbers."""
        if "color" in self.policy:
            images = _color(images, draws)
        if "translation" in self.policy:
            images = _translate(images, draws)
        if "cutout" in self.policy:
            images = _cut_out(images, draws)
        return images

    def extra_repr(self) -> str:
        return ", ".join(self.policy)


def _color(images: Tensor, draws: Draws) -> Tensor:
    brightness, saturation, contrast = (draw[:, None, None, None] for draw in draws[:3])
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def _positions(size: int, starts: Tensor) -> Tensor:
    """Where each place of an axis lies relative to a start of each image: [B, size]."""
    return torch.arange(size, device=starts.device) - starts[:, None]


def _translate(images: Tensor, draws: Draws) -> Tensor:
    for axis, draw in ((2, draws.shift_y), (3, draws.shift_x)):
        size = images.shape[axis]
        furthest = int(size / 8 + 0.5)
        shifts = (draw * (2 * furthest + 1)).long() - furthest
        source = _positions(size, shifts)
        inside = (source >= 0) & (source < size)
        view = (len(images), 1, size, 1) if axis == 2 else (len(images), 1, 1, size)
        images = _take(images, axis, source.clamp(0, size - 1)) * inside.view(view)
    return images


def _take(images: Tensor, axis: int, places: Tensor) -> Tensor:
    """The rows (axis 2) or columns (axis 3) of each image at its places [B, size]."""
    if torch.are_deterministic_algorithms_enabled():  # gather's backward then asks the device, in some PyTorch
        each = torch.arange(len(images), device=images.device)[:, None]
        return images.movedim(axis, 1)[each, places].movedim(1, axis)
    view = (len(images), 1, -1, 1) if axis == 2 else (len(images), 1, 1, -1)
    return images.gather(axis, places.view(view).expand_as(images))


def _cut_out(images: Tensor, draws: Draws) -> Tensor:
    inside = []
    for size, draw in ((images.shape[2], draws.cutout_y), (images.shape[3], draws.cutout_x)):
        hole = int(size / 2 + 0.5)
        # centres from the first pixel to one beyond the last for an even hole: part of it may lie outside
        centres = (draw * (size + 1 - hole % 2)).long()
        place = _positions(size, centres - hole // 2)
        inside.append((place >= 0) & (place < hole))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * ~hole
