"""The ResNet generator of CycleGAN (Zhu et al. 2017, arXiv 1703.10593; after Johnson et al. 2016, arXiv 1603.08155).

Layer for layer the reference implementation's, with its state-dict keys, so that published checkpoints load.
"""

from __future__ import annotations

from typing import get_args

from torch import Tensor, nn

from ganparts.blocks import (
    Norm,
    Padding,
    Upsample,
    check_counts,
    images_are_independent,
    init_weights,
    normalized,
    one_of,
    padded_conv,
    recomputed,
    start_as_identity,
    strided_conv,
    upsampling,
)
from ganparts.generators.features import ChainGenerator
from ganparts.registry import GENERATORS

__all__ = ["ResNetGenerator", "ResidualBlock", "resnet6", "resnet9"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norms and a skip: [B, C, H, W] to the same shape.

    While its attribute ``recompute`` is True, training keeps only its input and recomputes the rest in backward.
    """

    def __init__(self, channels: int, *, norm: Norm = "instance", padding: Padding = "reflect", dropout: float = 0.0):
        super().__init__()
        self.recompute = False
        self.random = dropout > 0
        first, second = (padded_conv(channels, channels, 3, padding, norm) for _ in range(2))
        drop = [nn.Dropout(dropout)] if dropout else []
        self.conv_block = nn.Sequential(*first, nn.ReLU(inplace=True), *drop, *second)

    def forward(self, features: Tensor) -> Tensor:
        return features + recomputed(self.conv_block, features, recompute=self.recompute, random=self.random)


class ResNetGenerator(ChainGenerator):
    """Down by 4, residual blocks, up by 4, tanh: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of 4, and at least 8.

    It is a :class:`~ganparts.protocols.FeatureGenerator`. ``nce_layers`` are the padded image, the two convolutions of
    stride 2, and the first and the fifth residual block: 0, 4, 7, 10 and 14.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        width: channels after the first convolution; 4 times as many in the residual blocks.
        blocks: residual blocks; the paper has 9 for 256x256 and larger, 6 for 128x128.
        norm: ``"instance"``, ``"instance_affine"``, ``"batch"``, ``"group"``, ``"none"``, or a function from channels
            to a module.
        padding: of the residual blocks: ``"reflect"``, ``"replicate"`` or ``"zero"``. The two 7x7 convolutions
            always reflect.
        strided_padding: of the two convolutions of stride 2. With zeros, as published, a network may treat the borders
            of a picture differently, which shows as a frame.
        dropout: probability inside the residual blocks; the paper's CycleGAN has none.
        upsample: ``"transposed"`` convolution; or, against checkerboards, ``"resize_conv"`` or ``"bilinear"``
            (:func:`ganparts.blocks.upsampling`).
        residual: return the input plus a change, clamped to [-1, 1], instead of a tanh
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: channels below 1 or blocks below 0; an unknown norm, padding, strided_padding or upsample;
            other channels out than in with ``residual``; in ``forward`` a wrong size.
    """

    size_multiple = 4
    min_size = 8

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        padding: Padding = "reflect",
        strided_padding: Padding = "zero",
        dropout: float = 0.0,
        upsample: Upsample = "transposed",
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(blocks=blocks, least=0)
        self.in_channels = in_channels
        self.images_are_independent = images_are_independent(norm)
        self.nce_layers = (0, 4, 7, *range(10, 10 + min(blocks, 5), 4))
        self.residual = residual
        one_of("strided_padding", strided_padding, get_args(Padding))

        layers = [*padded_conv(in_channels, width, 7, "reflect", norm), nn.ReLU(inplace=True)]
        for channels in (width, 2 * width):
            conv = strided_conv(channels, 2 * channels, strided_padding)
            layers += [*normalized(conv, norm), nn.ReLU(inplace=True)]
        layers += [ResidualBlock(4 * width, norm=norm, padding=padding, dropout=dropout) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [*upsampling(channels, channels // 2, 3, upsample, norm), nn.ReLU(inplace=True)]
        pad, last = padded_conv(width, out_channels, 7, "reflect")
        self.model = nn.Sequential(*layers, pad, last, nn.Identity() if residual else nn.Tanh())
        self.apply(init_weights)
        if residual:
            start_as_identity(last, in_channels=in_channels, out_channels=out_channels)


@GENERATORS.register("resnet9")
def resnet9(
    *,
    width: int = 64,
    blocks: int = 9,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    padding: Padding = "reflect",
    strided_padding: Padding = "zero",
    dropout: float = 0.0,
    upsample: Upsample = "transposed",
    residual: bool = False,
) -> ResNetGenerator:
    """The paper's generator for 256x256 and larger: 9 residual blocks (or ``blocks``), 11,378,179 parameters.

    The usual choice for a change of style, given some hours on a GPU. It paints any size, in tiles if need be.
    """
    return ResNetGenerator(
        in_channels,
        out_channels,
        width=width,
        blocks=blocks,
        norm=norm,
        padding=padding,
        strided_padding=strided_padding,
        dropout=dropout,
        upsample=upsample,
        residual=residual,
    )


@GENERATORS.register("resnet6")
def resnet6(
    *,
    width: int = 64,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    padding: Padding = "reflect",
    strided_padding: Padding = "zero",
    dropout: float = 0.0,
    upsample: Upsample = "transposed",
    residual: bool = False,
) -> ResNetGenerator:
    """The paper's generator for 128x128: 6 residual blocks, 7,837,699 parameters.

    For small images and short trainings.
    """
    return ResNetGenerator(
        in_channels,
        out_channels,
        width=width,
        blocks=6,
        norm=norm,
        padding=padding,
        strided_padding=strided_padding,
        dropout=dropout,
        upsample=upsample,
        residual=residual,
    )
