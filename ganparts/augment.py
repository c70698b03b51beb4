"""Differentiable augmentation of what discriminators see.

With few real images a discriminator learns them by heart. Augmenting real and generated images alike, and letting
gradients through, prevents it without teaching the generator to make augmented images.

DiffAugment: Zhao et al. 2020, arXiv 2006.10738. ADA: Karras et al. 2020, arXiv 2006.06676.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ganparts.precision import at_least_fp32
from ganparts.registry import AUGMENTATIONS

__all__ = ["AdaptiveAugment", "Changes", "DiffAugment", "Draws", "ada", "diffaugment"]

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
        images = _take(images, axis, source.clamp(0, size - 1)) * inside.view(view)
    return images


def _take(images: Tensor, axis: int, places: Tensor) -> Tensor:
    """The rows (axis 2) or columns (axis 3) of each image at its places [B, size]."""
    if torch.are_deterministic_algorithms_enabled():  # gather's backward then asks the device, in some PyTorch
        each = torch.arange(len(images), device=images.device)[:, None]
        return images.movedim(axis, 1)[each, places].movedim(1, axis)
    view = (len(images), 1, -1, 1) if axis == 2 else (len(images), 1, 1, -1)
    return images.gather(axis, places.view(view).expand_as(images))


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


class Changes(NamedTuple):
    """What :class:`AdaptiveAugment` does to each of B images: [B], shifts and moves [B, 2] (x, y).

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
        return self.apply_changes(images, self.draw(images))

    def apply_changes(self, images: Tensor, changes: Changes) -> Tensor:
        """The augmentation as a pure function of images and changes."""
        if images.shape[1] not in (1, 3):
            raise ValueError(
                f"ADA changes the colours of images with 1 or 3 channels, but these have {images.shape[1]}: take "
                f"DiffAugment(('translation', 'cutout'))"
            )
        changed = at_least_fp32(images)
        x, y = _sources(changed, changes)
        return _recolour(_sample(changed, x, y), changes).to(images.dtype)

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
    return _take(flat[:, :, None], 3, places.flatten(1)).view_as(images)


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
