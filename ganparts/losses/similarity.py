"""Structural similarity as a loss: SSIM (Wang et al. 2004, doi 10.1109/TIP.2003.819861) and multi-scale SSIM (Wang et
al. 2003, doi 10.1109/ACSSC.2003.1292216).

The definition is pytorch-msssim's: a Gaussian window without padding, each channel by itself, K 0.01 and 0.03.
Deviation: the window has the images' precision, where pytorch-msssim rounds it to fp32; values differ by up to 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import check_weight
from ganparts.precision import at_least_fp32, without_autocast
from ganparts.registry import CONSISTENCY_LOSSES

__all__ = [
    "MSSSIM",
    "SSIM",
    "gaussian_window",
    "ms_ssim",
    "multi_scale_similarity",
    "ssim",
    "structural_similarity",
]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales of MS-SSIM, finest first, from the paper."""


def gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    """A Gaussian [size] whose sum is 1, of the precision and on the device of ``like``."""
    places = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    window = torch.exp(-places.square() / (2 * sigma**2))
    return window / window.sum()


def structural_similarity(first: Tensor, second: Tensor, window: Tensor, *, data_range: float = 1.0) -> Tensor:
    """SSIM of each image: [B], at most 1.

    Args:
        first: [B, C, H, W], from 0 to ``data_range``, at least fp32.
        second: of the same shape.
        window: [size], of odd size; H and W must be at least that.
        data_range: the difference between the largest and the smallest value that is possible.
    """
    return _similarity(first, second, window, data_range)[0].mean(1)


def multi_scale_similarity(
    first: Tensor, second: Tensor, window: Tensor, *, data_range: float = 1.0, weights: Sequence[float] = SCALE_WEIGHTS
) -> Tensor:
    """MS-SSIM of each image: [B], from 0 to 1. See :func:`structural_similarity`.

    At each scale but the last only contrast and structure count, and then the images are halved. A term that is not
    positive makes its product 0, without a gradient.
    """
    product = None
    for scale, weight in enumerate(weights):
        whole, structure = _similarity(first, second, window, data_range)
        last = scale == len(weights) - 1
        term = F.relu(whole if last else structure) ** weight  # relu also stops the infinite gradient at 0
        product = term if product is None else product * term
        if not last:
            padding = [side % 2 for side in first.shape[2:]]
            first, second = (F.avg_pool2d(images, 2, padding=padding) for images in (first, second))
    assert product is not None
    return product.mean(1)


def _similarity(first: Tensor, second: Tensor, window: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure factor, each the mean over places: [B, C]."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    moments = torch.stack([first, second, first * first, second * second, first * second])
    mean1, mean2, square1, square2, product = _blur(moments, window)
    variances = square1 - mean1.square() + square2 - mean2.square()
    covariance = product - mean1 * mean2
    structure = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean1 * mean2 + c1) / (mean1.square() + mean2.square() + c1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


def _blur(maps: Tensor, window: Tensor) -> Tensor:
    """Blur maps [..., H, W] down and along, without padding.

    Each map is a channel with a filter of its own: PyTorch then uses no TF32, in which a variance would drown.
    """
    flat = maps.reshape(1, -1, *maps.shape[-2:]).contiguous()
    filters = window.repeat(flat.shape[1], 1)
    flat = F.conv2d(flat, filters[:, None, :, None], groups=len(filters))
    flat = F.conv2d(flat, filters[:, None, None, :], groups=len(filters))
    return flat.view(*maps.shape[:-2], *flat.shape[-2:])


class SSIM(nn.Module):
    """1 - mean SSIM of images in [-1, 1], which are compared as values from 0 to 1.

    Args:
        window: side of the Gaussian window, odd; H and W must be at least that.
        sigma: its standard deviation.

    Raises:
        ValueError: an even window, a deviation that is not above 0; in ``forward``, images that are too small.
    """

    def __init__(self, *, window: int = 11, sigma: float = 1.5):
        super().__init__()
        check_weight("sigma", sigma, above_zero=True)
        self.window, self.sigma = _odd(window), sigma
        self.min_size = window

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        _check_size("SSIM", prediction, self.min_size, f"a window below {self.window}")
        first, second = _from_zero_to_one(prediction), _from_zero_to_one(target)
        with without_autocast(first.device):
            window = gaussian_window(self.window, self.sigma, first)
            return 1 - structural_similarity(first, second, window).mean()

    def extra_repr(self) -> str:
        return f"window={self.window}, sigma={self.sigma}"


class MSSSIM(nn.Module):
    """1 - mean MS-SSIM of images in [-1, 1], which are compared as values from 0 to 1.

    Args:
        window: side of the Gaussian window, odd.
        sigma: its standard deviation.
        weights: one for each scale, finest first. H and W must be above (window - 1) * 2**(scales - 1), by default 160.

    Raises:
        ValueError: an even window, a deviation that is not above 0, no weights or a negative one; in ``forward``,
            images that are too small.
    """

    def __init__(self, *, window: int = 11, sigma: float = 1.5, weights: Sequence[float] = SCALE_WEIGHTS):
        super().__init__()
        if not weights:
            raise ValueError("weights=() gives no scale to compare at: give at least one weight")
        check_weight("sigma", sigma, above_zero=True)
        for number, weight in enumerate(weights):
            check_weight(f"weights[{number}]", weight)
        self.window, self.sigma, self.weights = _odd(window), sigma, tuple(weights)
        self.min_size = (window - 1) * 2 ** (len(weights) - 1) + 1

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        _check_size("MS-SSIM", prediction, self.min_size, "'ssim', a smaller window or fewer weights")
        first, second = _from_zero_to_one(prediction), _from_zero_to_one(target)
        with without_autocast(first.device):
            window = gaussian_window(self.window, self.sigma, first)
            return 1 - multi_scale_similarity(first, second, window, weights=self.weights).mean()

    def extra_repr(self) -> str:
        return f"window={self.window}, sigma={self.sigma}, weights={self.weights}"


def _from_zero_to_one(images: Tensor) -> Tensor:
    return (at_least_fp32(images) + 1) / 2


def _odd(window: int) -> int:
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window} has no middle: use an odd number, such as 11")
    return window


def _check_size(loss: str, images: Tensor, minimum: int, remedy: str) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < minimum:
        raise ValueError(
            f"the images are {height}x{width}, but this {loss} needs at least {minimum}x{minimum}: use larger images, "
            f"or {remedy}"
        )


@CONSISTENCY_LOSSES.register("ssim")
def ssim(*, window: int = 11, sigma: float = 1.5) -> SSIM:
    """1 - SSIM: luminance, contrast and structure of the 11x11 pixels round each place.

    For keeping structure. Alone it lets colours drift.
    """
    return SSIM(window=window, sigma=sigma)


@CONSISTENCY_LOSSES.register("ms_ssim")
def ms_ssim(*, window: int = 11, sigma: float = 1.5, weights: Sequence[float] = SCALE_WEIGHTS) -> MSSSIM:
    """1 - SSIM at five scales; images above 160 pixels a side.

    ``ssim`` for forms of all sizes.
    """
    return MSSSIM(window=window, sigma=sigma, weights=weights)
