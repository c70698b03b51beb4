"""ADA: geometry and colour, more often the surer a discriminator is (Karras et al. 2020, arXiv 2006.06676)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganparts.blocks.places import take_places
from ganparts.precision import at_least_fp32
from ganparts.registry import AUGMENTATIONS

__all__ = ["AdaptiveAugment", "Changes", "ada", "apply_changes"]


class Changes(NamedTuple):
    """What :func:`apply_changes` does to each of B images: [B], shifts and moves [B, 2] (x, y).

    ``mirror`` and ``invert`` are 0 or 1, ``turns`` (by 90 degrees) 0 to 3. ``shift`` (by whole pixels) and ``move`` (by
    any distance) are fractions of the sides. Angles are in radians; ``hue`` is one, about the grey axis. ``stretch`` is
    a factor on the width by which the height is divided. ``brightness`` is added; the others are factors.
    """

    mirror: Tensor
    turns: Tensor
    shift: Tensor
    scale: Tensor
    angle_before: Tensor
    stretch: Tensor
    angle_after: Tensor
    move: Tensor
    brightness: Tensor
    contrast: Tensor
    invert: Tensor
    hue: Tensor
    saturation: Tensor


class AdaptiveAugment(nn.Module):
    """ADA with its "bgc" changes of geometry and colour: [B, C, H, W] to the same shape, differentiably.

    Each change is made to each image with the probability p. ``observe`` raises p while the discriminator is surer of
    real images than ``target``, and lowers it otherwise, so whoever trains the discriminator calls
    ``observe(real_logits)`` after each pass. One discriminator needs one of these.

    Deviation: images are resampled bilinearly, mirrored at their edges. The paper's code filters with a wavelet first,
    which keeps more detail and avoids aliasing. This one can be differentiated twice, as R1 needs.

    Args:
        target: wanted mean of sign(real logits - threshold), from -1 to 1.
        interval: calls of ``observe`` between changes of p.
        images_to_full: how many images it takes p to go from 0 to 1.
        probability: p at the start.
        threshold: logits above it mean "real": 0 for hinge, logistic and BCE losses, 0.5 for least squares.

    Raises:
        ValueError: ``target``, ``interval``, ``images_to_full`` or ``probability`` out of range; in ``forward``, images
            that have neither 1 nor 3 channels.
    """

    probability: Tensor
    observed: Tensor
    calls: Tensor

    def __init__(
        self,
        *,
        target: float = 0.6,
        interval: int = 4,
        images_to_full: int = 500_000,
        probability: float = 0.0,
        threshold: float = 0.0,
    ):
        super().__init__()
        if not -1 < target < 1:
            raise ValueError(f"target={target} is not between -1 and 1: the paper's is 0.6")
        for name, count in (("interval", interval), ("images_to_full", images_to_full)):
            if count < 1:
                raise ValueError(f"{name}={count} must be at least 1")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability} is not from 0 to 1")
        self.target, self.interval, self.images_to_full, self.threshold = target, interval, images_to_full, threshold
        self.register_buffer("probability", torch.tensor(float(probability)))
        self.register_buffer("observed", torch.zeros(3))  # since the last change: sum of signs, logits, images
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def draw(self, images: Tensor) -> Changes:
        """Fresh changes for these images, from their device's generator."""
        batch, device = len(images), images.device
        dtype = torch.promote_types(images.dtype, torch.float32)
        p = self.probability.to(device, dtype)
        rotating = 1 - (1 - p).sqrt()  # of two rotations, so that one happens with the probability p

        def sometimes(values: Tensor, neutral: float, probability: Tensor = p) -> Tensor:
            return torch.where(torch.rand(batch, 1, device=device) < probability, values, neutral).squeeze(1)

        def uniform(limit: float, numbers: int = 1) -> Tensor:
            return limit * (2 * torch.rand(batch, numbers, device=device, dtype=dtype) - 1)

        def normal(deviation: float, numbers: int = 1) -> Tensor:
            return deviation * torch.randn(batch, numbers, device=device, dtype=dtype)

        def one_of(choices: int) -> Tensor:
            return torch.randint(choices, (batch, 1), device=device).to(dtype)

        return Changes(
            mirror=sometimes(one_of(2), 0),
            turns=sometimes(one_of(4), 0),
            shift=sometimes(uniform(0.125, 2), 0),
            scale=sometimes(normal(0.2).exp2(), 1),
            angle_before=sometimes(uniform(math.pi), 0, rotating),
            stretch=sometimes(normal(0.2).exp2(), 1),
            angle_after=sometimes(uniform(math.pi), 0, rotating),
            move=sometimes(normal(0.125, 2), 0),
            brightness=sometimes(normal(0.2), 0),
            contrast=sometimes(normal(0.5).exp2(), 1),
            invert=sometimes(one_of(2), 0),
            hue=sometimes(uniform(math.pi), 0),
            saturation=sometimes(normal(1.0).exp2(), 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return apply_changes(images, self.draw(images))

    @torch.no_grad()
    def observe(self, real_logits: Tensor | Sequence[Tensor]) -> None:
        """Note what the discriminator says of real images, and change p at each ``interval``-th call.

        Args:
            real_logits: a map [B, objectives, H', W'], of which the first objective counts, or several, one a scale.
                NaN counts neither way.
        """
        maps = (real_logits,) if isinstance(real_logits, Tensor) else tuple(real_logits)
        logits = torch.cat([(m[:, 0] if m.ndim == 4 else m).flatten() for m in maps]).to(self.observed)
        signs = (logits - self.threshold).sign().nan_to_num()
        # made of tensors on the device: a number from the host could not be part of a CUDA graph
        self.observed.add_(torch.stack([signs.sum(), torch.ones_like(signs).sum(), signs.new_full((), len(maps[0]))]))
        self.calls.add_(1)
        due = self.calls % self.interval == 0
        total, count, images = self.observed
        change = (total / count - self.target).sign() * images / self.images_to_full
        self.probability.copy_(torch.where(due, (self.probability + change).clamp(0, 1), self.probability))
        self.observed.mul_(~due)

    def extra_repr(self) -> str:
        return f"target={self.target}, interval={self.interval}, images_to_full={self.images_to_full}"


def apply_changes(images: Tensor, changes: Changes) -> Tensor:
    """Images with these changes of geometry and colour: [B, C, H, W] to the same shape, differentiably.

    Raises:
        ValueError: images that have neither 1 nor 3 channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(
            f"ADA changes the colours of images with 1 or 3 channels, but these have {images.shape[1]}: take "
            f"DiffAugment(('translation', 'cutout'))"
        )
    changed = at_least_fp32(images)
    x, y = _sources(changed, changes)
    return _recolour(_sample(changed, x, y), changes).to(images.dtype)


def _sources(images: Tensor, changes: Changes) -> tuple[Tensor, Tensor]:
    """Which place of its image each pixel shows: x and y [B, H, W], in pixels from the top left one's centre.

    The changes are made to the image in the order of their fields, so places go back through them from the last.
    """
    height, width = images.shape[2:]
    sides = torch.stack([images.new_full((), width), images.new_full((), height)])
    x = torch.arange(width, device=images.device, dtype=images.dtype).sub((width - 1) / 2).view(1, 1, -1)
    y = torch.arange(height, device=images.device, dtype=images.dtype).sub((height - 1) / 2).view(1, -1, 1)
    move = (changes.move * sides)[..., None, None]
    shift = (changes.shift * sides).round()[..., None, None]
    mirror, turns, scale, before, stretch, after = (
        values[:, None, None] for values in (changes.mirror, changes.turns, changes.scale, *changes[4:7])
    )
    x, y = _rotate(x - move[:, 0], y - move[:, 1], after.cos(), after.sin())
    x, y = _rotate(x / stretch, y * stretch, before.cos(), before.sin())
    x, y = x / scale - shift[:, 0], y / scale - shift[:, 1]
    quarter = turns * (math.pi / 2)
    x, y = _rotate(x, y, quarter.cos().round(), quarter.sin().round())
    return x * (1 - 2 * mirror) + (width - 1) / 2, y + (height - 1) / 2


def _rotate(x: Tensor, y: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    return cosine * x - sine * y, sine * x + cosine * y


def _sample(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Images at places x, y [B, H, W], bilinearly, mirrored beyond their edges; ``grid_sample`` has no second
    derivative.
    """
    height, width = images.shape[2:]
    left, top = x.floor(), y.floor()
    right_share, lower_share = (x - left)[:, None], (y - top)[:, None]
    first_column, second_column = (_mirrored(left.long() + step, width) for step in (0, 1))
    upper, lower = (
        torch.lerp(_pick(images, row + first_column), _pick(images, row + second_column), right_share)
        for row in (_mirrored(top.long() + step, height) * width for step in (0, 1))
    )
    return torch.lerp(upper, lower, lower_share)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places of an axis that goes on mirrored at both ends, without its last pixel twice."""
    places = places.remainder(max(2 * (size - 1), 1))
    return torch.where(places < size, places, 2 * (size - 1) - places)


def _pick(images: Tensor, places: Tensor) -> Tensor:
    """The pixels of each image at places [B, H, W] of its flattened form."""
    flat = images.flatten(2)
    return take_places(flat[:, :, None], 3, places.flatten(1)).view_as(images)


def _recolour(images: Tensor, changes: Changes) -> Tensor:
    brightness, contrast, invert, hue, saturation = (values[:, None, None, None] for values in changes[-5:])
    images = (images + brightness) * contrast
    images = images - 2 * invert * images.mean(1, keepdim=True)
    if images.shape[1] == 1:
        return images
    grey = images.mean(1, keepdim=True)
    colour = images - grey
    across = (colour.roll(1, 1) - colour.roll(-1, 1)) / math.sqrt(3)  # the cross product with the grey axis
    change = colour * (hue.cos() * saturation - 1) + across * (hue.sin() * saturation)
    return images + change  # exactly the images where nothing is to be changed


@AUGMENTATIONS.register("ada")
def ada(
    *,
    target: float = 0.6,
    interval: int = 4,
    images_to_full: int = 500_000,
    probability: float = 0.0,
    threshold: float = 0.0,
) -> AdaptiveAugment:
    """ADA: geometry and colour, more often the surer the discriminator is of real images.

    Karras et al. 2020, arXiv 2006.06676. With the loss ``lsgan`` take ``threshold=0.5``.
    """
    return AdaptiveAugment(
        target=target,
        interval=interval,
        images_to_full=images_to_full,
        probability=probability,
        threshold=threshold,
    )
