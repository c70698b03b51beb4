"""The pattern of a generator's own grid in its pictures, the regular kind of checkerboard (Odena et al. 2016,
doi 10.23915/distill.00003).

A generator that halves the size twice and doubles it again sees every fourth pixel alike. Where a photo is even, all
that it can add is a pattern that repeats every four pixels.
"""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor

from ganparts.blocks import check_counts
from ganparts.precision import at_least_fp32

__all__ = ["grid_pattern"]

_LEAST = 1e-8  # of a squared amplitude, whose root has no gradient at 0


def grid_pattern(images: Tensor, *, period: int = 4) -> Tensor:
    """Amplitude of the pattern that repeats every ``period`` pixels, all over an image.

    It is the root of the power at all multiples of 1 / ``period`` but 0, under a Hann window, so that smooth areas
    count nothing. What repeats in places only, as a texture may by chance, nearly cancels out.

    Args:
        images: [B, C, H, W], of any range. Rows and columns beyond a multiple of ``period`` are left out.
        period: in pixels: 2 for each time that a generator doubles the size, multiplied.

    Returns:
        A scalar, the mean over images and channels, at least 1e-4; with gradients for ``images``.

    Raises:
        ValueError: ``period`` is no whole number from 2 on, or an image has fewer than 2 periods.
    """
    check_counts(least=2, period=period)
    height, width = (side // period * period for side in images.shape[-2:])
    if min(height, width) < 2 * period:
        raise ValueError(
            f"images of {images.shape[-2]}x{images.shape[-1]} hold no pattern of {period} pixels: give sides of at "
            f"least {2 * period}"
        )
    rows, columns = (torch.hann_window(side, dtype=torch.float32, device=images.device) for side in (height, width))
    window = torch.outer(rows / rows.sum(), columns / columns.sum())
    windowed = at_least_fp32(images[..., :height, :width]) * window
    pattern = reduce(windowed, "b c (h p) (w q) -> b c p q", "sum", p=period, q=period)
    power = period**2 * (pattern - pattern.mean((2, 3), keepdim=True)).square().sum((2, 3))
    return (power + _LEAST).sqrt().mean()
