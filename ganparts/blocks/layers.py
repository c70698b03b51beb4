"""Padding, convolutions that keep or double the size, blurs, initialisation.

Deviations from ``torch.nn``: :class:`ReflectionPad2d` is deterministic on CUDA under deterministic algorithms. Under
autocast on a CPU, padding keeps bf16, where PyTorch's returns fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks.checks import one_of
from ganparts.blocks.norms import Norm, normalized
from ganparts.precision import without_autocast

__all__ = [
    "BlurDownsample",
    "BlurUpsample",
    "Init",
    "Padding",
    "ReflectionPad2d",
    "Upsample",
    "init_weights",
    "padded_conv",
    "strided_conv",
    "upsampling",
]

Padding = Literal["reflect", "replicate", "zero"]
Upsample = Literal["transposed", "resize_conv", "bilinear"]
Init = Literal["normal", "xavier"]


class ReflectionPad2d(nn.ReflectionPad2d):
    """PyTorch's, except under deterministic algorithms on CUDA, and under autocast on a CPU.

    With ``torch.use_deterministic_algorithms`` on CUDA the padding is made of mirrored slices, since PyTorch's backward
    adds in no fixed order. Autocast on a CPU would convert bf16 to fp32 before it pads; here it does not.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda and torch.are_deterministic_algorithms_enabled():
            left, right, top, bottom = self.padding
            return _mirror_margins(_mirror_margins(input, left, right, 3), top, bottom, 2)
        with _keeping_precision(input):
            return super().forward(input)


class _ReplicationPad2d(nn.ReplicationPad2d):
    """PyTorch's, except under autocast on a CPU, as :class:`ReflectionPad2d`."""

    def forward(self, input: Tensor) -> Tensor:
        with _keeping_precision(input):
            return super().forward(input)


def _keeping_precision(images: Tensor) -> AbstractContextManager[object]:
    """On a CPU under autocast: without it. Elsewhere nothing, which leaves no trace in an exported program."""
    on_cpu = images.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return without_autocast(images.device) if on_cpu else nullcontext()


def _mirror_margins(images: Tensor, before: int, after: int, axis: int) -> Tensor:
    size = images.shape[axis]
    first = images.narrow(axis, 1, before).flip(axis)
    last = images.narrow(axis, size - 1 - after, after).flip(axis)
    return torch.cat([first, images, last], axis)


def padded_conv(
    in_channels: int, out_channels: int, kernel: int, padding: Padding, norm: Norm | None = None
) -> list[nn.Module]:
    """Layers of stride 1 that keep the size: padding (unless the convolution pads with zeros), convolution, norm.

    Raises:
        ValueError: an unknown padding or norm.
    """
    margin = kernel // 2
    pad = _padding_layer(padding, margin)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=0 if pad else margin)
    return [*([pad] if pad else []), *normalized(conv, norm)]


def _padding_layer(padding: Padding, margin: int) -> nn.Module | None:
    """None for zeros, with which the convolution pads."""
    if one_of("padding", padding, get_args(Padding)) == "zero":
        return None
    return (ReflectionPad2d if padding == "reflect" else _ReplicationPad2d)(margin)


def strided_conv(in_channels: int, out_channels: int, padding: Padding) -> nn.Conv2d:
    """A 3x3 convolution of stride 2: [B, in_channels, H, W] to half the size, rounded up.

    Its state dict is the same, whatever the padding.

    Raises:
        ValueError: an unknown padding.
    """
    pad = _padding_layer(padding, 1)
    if pad is None:
        return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
    return _PaddedConv2d(in_channels, out_channels, pad)


class _PaddedConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 with a layer that pads."""

    def __init__(self, in_channels: int, out_channels: int, pad: nn.Module):
        super().__init__(in_channels, out_channels, 3, stride=2)
        self.pad = pad

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.pad(input))


def upsampling(
    in_channels: int, out_channels: int, kernel: Literal[3, 4], upsample: Upsample, norm: Norm | None = None
) -> list[nn.Module]:
    """Layers that double height and width, then the norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: of the transposed convolution; 3 in the ResNet, 4 in the U-Net.
        upsample: ``"transposed"``; or, against checkerboard patterns, ``"resize_conv"``, nearest neighbour and then a
            3x3 convolution (Odena et al. 2016, doi 10.23915/distill.00003), or ``"bilinear"``, the same with bilinear
            interpolation. Nearest neighbour turns slopes into steps; bilinear does not.
        norm: as :func:`norm_layer`; None for an output layer.

    Raises:
        ValueError: an unknown ``upsample`` or norm.
    """
    if one_of("upsample", upsample, get_args(Upsample)) != "transposed":
        enlarge = nn.Upsample(scale_factor=2, mode="bilinear" if upsample == "bilinear" else "nearest")
        return [enlarge, *padded_conv(in_channels, out_channels, 3, "reflect", norm)]
    conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride=2, padding=1, output_padding=kernel % 2)
    return normalized(conv, norm)


class BlurDownsample(nn.Module):
    """Blurs, then keeps every second pixel (Zhang 2019, arXiv 1904.11486): [B, C, H, W] to half the size, rounded up.

    The filter is [1, 2, 1] x [1, 2, 1] / 16 on reflected borders. It is the buffer ``filt`` [C, 1, 3, 3], as in
    published checkpoints. Height and width must be at least 2.
    """

    filt: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.pad = ReflectionPad2d(1)
        self.register_buffer("filt", _blur_filter((1.0, 2.0, 1.0), channels))

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(self.pad(features), self.filt, stride=2, groups=self.filt.shape[0])


class BlurUpsample(nn.Module):
    """Doubles height and width, then blurs (Zhang 2019, arXiv 1904.11486): [B, C, H, W] to [B, C, 2H, 2W].

    The filter is [1, 3, 3, 1] x [1, 3, 3, 1] / 16 on replicated borders, which is bilinear interpolation. It is the
    buffer ``filt`` [C, 1, 4, 4], as in published checkpoints.
    """

    filt: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.pad = _ReplicationPad2d(1)
        self.register_buffer("filt", 4 * _blur_filter((1.0, 3.0, 3.0, 1.0), channels))

    def forward(self, features: Tensor) -> Tensor:
        # CUT pads its transposed convolution by 2 and cuts off the outermost pixels: the same as padding by 3.
        return F.conv_transpose2d(self.pad(features), self.filt, stride=2, padding=3, groups=self.filt.shape[0])


def _blur_filter(taps: Sequence[float], channels: int) -> Tensor:
    line = torch.tensor(taps)
    square = line[:, None] * line
    return (square / square.sum()).repeat(channels, 1, 1, 1)


def init_weights(module: nn.Module, init: Init = "normal") -> None:
    """Initialise one layer as the reference implementation does, for ``network.apply(init_weights)``.

    Convolutions have zero bias; batch norm's scale is N(1, 0.02). On the meta device there is nothing to fill.

    Args:
        module: of any kind; layers without such weights stay as they are.
        init: of convolutions: ``"normal"`` is CycleGAN's N(0, 0.02), ``"xavier"`` is CUT's Xavier normal
            (Glorot and Bengio 2010) with gain 0.02.

    Raises:
        ValueError: an unknown ``init``.
    """
    one_of("init", init, ("normal", "xavier"))
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.is_meta:  # for meta PyTorch would import its compiler, to do nothing
        return
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        if init == "xavier":
            nn.init.xavier_normal_(module.weight, 0.02)
        else:
            nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
