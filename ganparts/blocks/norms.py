"""Normalisation: by name, as functions and as modules.

Deviation from ``torch.nn``: :class:`InstanceNorm2d` keeps a channels-last layout and copes with a 1x1 map, which
PyTorch's refuses in training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ganparts.blocks.checks import one_of
from ganparts.precision import at_least_fp32

__all__ = [
    "InstanceNorm2d",
    "Norm",
    "images_are_independent",
    "instance_norm",
    "keras_instance_norm",
    "norm_layer",
    "normalized",
]

Norm = Literal["instance", "instance_affine", "batch", "group", "none"] | Callable[[int], nn.Module]
"""A normalisation by name, or a function from the number of channels to a module."""


def instance_norm(images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise every channel of every image over its pixels (Ulyanov et al. 2016, arXiv 1607.08022).

    Args:
        images: [B, C, H, W], any H and W from 1x1 on, in any memory layout. The result has the same layout.
        weight: scale of each channel [C], or None.
        bias: shift of each channel [C], or None.
        eps: added to the (biased) variance.
    """
    if images.is_cuda and images.is_contiguous(memory_format=torch.channels_last):
        # CUDA's group norm would go to NCHW and back.
        return _pointwise_instance_norm(images, weight, bias, eps)
    return torch.group_norm(images, images.shape[1], weight, bias, eps)


def _pointwise_instance_norm(images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    wide = at_least_fp32(images)  # or the mean is rounded
    variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
    normalised = (wide - mean) * torch.rsqrt(variance + eps)
    if weight is not None:
        normalised = normalised * weight[:, None, None]
    if bias is not None:
        normalised = normalised + bias[:, None, None]
    return normalised.to(images.dtype)


class InstanceNorm2d(nn.InstanceNorm2d):
    """:func:`instance_norm` as a module; no running statistics, so ``train()`` and ``eval()`` agree."""

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = False):
        super().__init__(channels, eps=eps, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        return instance_norm(input, self.weight, self.bias, self.eps)


def _group_norm(channels: int) -> nn.Module:
    # 32 groups (Wu and He 2018, arXiv 1803.08494), or the most that divide narrow layers
    return nn.GroupNorm(next(groups for groups in range(min(32, channels), 0, -1) if channels % groups == 0), channels)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": InstanceNorm2d,
    "instance_affine": partial(InstanceNorm2d, affine=True),
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
    "none": lambda channels: nn.Identity(),
}


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """The function from channels to a module that ``norm`` names; a function is returned unchanged.

    Raises:
        ValueError: an unknown name.
    """
    return norm if callable(norm) else _NORMS[one_of("norm", norm, _NORMS)]


def images_are_independent(norm: Norm) -> bool:
    """Whether a network with this norm keeps the images of a batch apart in training.

    Batch norm does not. Of a norm given as a function nothing is known, so the answer is False, except for
    :func:`keras_instance_norm`.
    """
    return norm in ("instance", "instance_affine", "group", "none", keras_instance_norm)


def normalized(conv: nn.Conv2d | nn.ConvTranspose2d, norm: Norm | None) -> list[nn.Module]:
    """``[conv, its norm]``; ``[conv]`` if ``norm`` is None.

    Batch norm replaces the convolution's bias, as in the reference implementation. Instance norm cancels the bias. It
    is kept, since published checkpoints have it, but is not trained: its gradient would be rounding noise.
    """
    if norm is None:
        return [conv]
    layer = norm_layer(norm)(conv.out_channels)
    if isinstance(layer, nn.BatchNorm2d):
        conv.bias = None
    elif isinstance(layer, nn.InstanceNorm2d) and conv.bias is not None:
        conv.bias.requires_grad_(False)
    return [conv, layer]


def keras_instance_norm(channels: int) -> InstanceNorm2d:
    """TensorFlow Addons' instance norm as the Keras tutorial sets it: affine, eps 1e-3, scale from N(0, 0.02)."""
    layer = InstanceNorm2d(channels, eps=1e-3, affine=True)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer
