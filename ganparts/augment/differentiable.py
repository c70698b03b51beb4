"""DiffAugment: colour, translation and cutout of every image (Zhao et al. 2020, arXiv 2006.10738)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ganparts.blocks.places import take_places
from ganparts.registry import AUGMENTATIONS

__all__ = ["DiffAugment", "Draws", "diffaugment"]

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
        policy: which of them; they apply in the order color, translation, cutout.
        brightness: lowest and highest shift.
        saturation: lowest and highest factor.
        contrast: lowest and highest factor.
        translation: the furthest shift, a fraction of the side from 0 to 1.
        cutout: side of the hole, a fraction of the image's from 0 to 1 (Projected GAN: 0.2).

    Raises:
        ValueError: an unknown policy, or one text instead of a tuple; a fraction that is not from 0 to 1.
    """

    def __init__(
        self,
        policy: tuple[Policy, ...] = ("color", "translation", "cutout"),
        *,
        brightness: tuple[float, float] = (-0.5, 0.5),
        saturation: tuple[float, float] = (0.0, 2.0),
        contrast: tuple[float, float] = (0.5, 1.5),
        translation: float = 0.125,
        cutout: float = 0.5,
    ):
        super().__init__()
        known = ("color", "translation", "cutout")
        if isinstance(policy, str):
            raise ValueError(f"policy={policy!r} is one text: give a tuple, as in ('color', 'cutout')")
        for name in policy:
            if name not in known:
                raise ValueError(f"policy {name!r} is not known: use some of {', '.join(map(repr, known))}")
        for name, fraction in (("translation", translation), ("cutout", cutout)):
            if not 0 <= fraction <= 1:
                raise ValueError(f"{name}={fraction} is not a fraction of the image's side: use a number from 0 to 1")
        self.policy = policy
        self.brightness, self.saturation, self.contrast = brightness, saturation, contrast
        self.translation, self.cutout = translation, cutout

    def draw(self, images: Tensor) -> Draws:
        """Fresh random numbers for these images, from their device's generator."""
        return Draws(*torch.rand(len(Draws._fields), len(images), device=images.device, dtype=images.dtype))

    def forward(self, images: Tensor) -> Tensor:
        return self.apply_draws(images, self.draw(images))

    def apply_draws(self, images: Tensor, draws: Draws) -> Tensor:
        """The augmentation as a pure function of images and random numbers."""
        if "color" in self.policy:
            images = _color(images, draws, self.brightness, self.saturation, self.contrast)
        if "translation" in self.policy:
            images = _translate(images, draws, self.translation)
        if "cutout" in self.policy:
            images = _cut_out(images, draws, self.cutout)
        return images

    def extra_repr(self) -> str:
        return ", ".join(self.policy)


def _color(
    images: Tensor,
    draws: Draws,
    brightness: tuple[float, float],
    saturation: tuple[float, float],
    contrast: tuple[float, float],
) -> Tensor:
    shift = _between(draws.brightness, brightness)
    saturated = _between(draws.saturation, saturation)
    contrasted = _between(draws.contrast, contrast)
    images = images + shift
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * saturated
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * contrasted


def _between(draws: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = limits
    return (draws * (high - low) + low)[:, None, None, None]


def _positions(size: int, starts: Tensor) -> Tensor:
    """Where each place of an axis lies relative to a start of each image: [B, size]."""
    return torch.arange(size, device=starts.device) - starts[:, None]


def _translate(images: Tensor, draws: Draws, fraction: float) -> Tensor:
    for axis, draw in ((2, draws.shift_y), (3, draws.shift_x)):
        size = images.shape[axis]
        furthest = int(size * fraction + 0.5)
        shifts = (draw * (2 * furthest + 1)).long() - furthest
        source = _positions(size, shifts)
        inside = (source >= 0) & (source < size)
        view = (len(images), 1, size, 1) if axis == 2 else (len(images), 1, 1, size)
        images = take_places(images, axis, source.clamp(0, size - 1)) * inside.view(view)
    return images


def _cut_out(images: Tensor, draws: Draws, fraction: float) -> Tensor:
    inside = []
    for size, draw in ((images.shape[2], draws.cutout_y), (images.shape[3], draws.cutout_x)):
        hole = int(size * fraction + 0.5)
        # centres from the first pixel to one beyond the last for an even hole: part of it may lie outside
        centres = (draw * (size + 1 - hole % 2)).long()
        place = _positions(size, centres - hole // 2)
        inside.append((place >= 0) & (place < hole))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * ~hole


@AUGMENTATIONS.register("diffaugment")
def diffaugment(
    *,
    policy: tuple[Policy, ...] = ("color", "translation", "cutout"),
    brightness: tuple[float, float] = (-0.5, 0.5),
    saturation: tuple[float, float] = (0.0, 2.0),
    contrast: tuple[float, float] = (0.5, 1.5),
    translation: float = 0.125,
    cutout: float = 0.5,
) -> DiffAugment:
    """Colour, translation and cutout of every image.

    Zhao et al. 2020, arXiv 2006.10738.
    """
    return DiffAugment(
        policy,
        brightness=brightness,
        saturation=saturation,
        contrast=contrast,
        translation=translation,
        cutout=cutout,
    )
