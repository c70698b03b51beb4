"""The antialiased ResNet generator of CUT (Park et al. 2020, arXiv 2007.15651).

The ResNet of CycleGAN, but its convolutions have stride 1 and are followed or preceded by a fixed blur that halves or
doubles the map (Zhang 2019, arXiv 1904.11486). Layer for layer the published implementation's, with its state-dict
keys, so that published checkpoints load.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ganparts.blocks import (
    BlurDownsample,
    BlurUpsample,
    Init,
    Norm,
    Padding,
    check_counts,
    images_are_independent,
    init_weights,
    padded_conv,
    start_as_identity,
)
from ganparts.generators.features import ChainGenerator
from ganparts.generators.resnet import ResidualBlock
from ganparts.registry import GENERATORS

__all__ = ["AntialiasedResNetGenerator", "resnet6_antialias", "resnet9_antialias"]


class AntialiasedResNetGenerator(ChainGenerator):
    """Down by 4, residual blocks, up by 4, tanh: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of 4, and at least 8.

    It is a :class:`~ganparts.protocols.FeatureGenerator`. ``nce_layers`` are CUT's: the padded image, the two
    convolutions before a blur, and the first and the fifth residual block: 0, 4, 8, 12 and 16.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        width: channels after the first convolution; 4 times as many in the residual blocks.
        blocks: residual blocks.
        norm: ``"instance"``, ``"instance_affine"``, ``"batch"``, ``"group"``, ``"none"``, or a function from channels
            to a module.
        padding: of the residual blocks: ``"reflect"``, ``"replicate"`` or ``"zero"``. The two 7x7 convolutions
            always reflect.
        dropout: probability inside the residual blocks; CUT has none.
        init: of the convolutions; ``"xavier"`` is CUT's, ``"normal"`` is CycleGAN's
            (:func:`~ganparts.blocks.init_weights`).
        residual: return the input plus a change, not the result of a tanh; see
            :func:`~ganparts.blocks.residual_output`.

    Raises:
        ValueError: channels below 1 or blocks below 0; an unknown norm, padding or init; in ``forward`` a wrong
            size.
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
        dropout: float = 0.0,
        init: Init = "xavier",
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(blocks=blocks, least=0)
        self.in_channels = in_channels
        self.residual = residual
        self.images_are_independent = images_are_independent(norm)
        self.nce_layers = (0, 4, 8, *range(12, 12 + min(blocks, 5), 4))

        layers = [*padded_conv(in_channels, width, 7, "reflect", norm), nn.ReLU(inplace=True)]
        for channels in (width, 2 * width):
            layers += [*padded_conv(channels, 2 * channels, 3, "zero", norm), nn.ReLU(inplace=True)]
            layers += [BlurDownsample(2 * channels)]
        layers += [ResidualBlock(4 * width, norm=norm, padding=padding, dropout=dropout) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [BlurUpsample(channels)]
            layers += [*padded_conv(channels, channels // 2, 3, "zero", norm), nn.ReLU(inplace=True)]
        tanh = [] if residual else [nn.Tanh()]
        self.model = nn.Sequential(*layers, *padded_conv(width, out_channels, 7, "reflect"), *tanh)
        self.apply(partial(init_weights, init=init))
        if residual:
            start_as_identity(self.model[-1], in_channels=in_channels, out_channels=out_channels)


@GENERATORS.register("resnet9_antialias")
def resnet9_antialias(
    *,
    width: int = 64,
    blocks: int = 9,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    padding: Padding = "reflect",
    dropout: float = 0.0,
    init: Init = "xavier",
    residual: bool = False,
) -> AntialiasedResNetGenerator:
    """CUT's generator: 9 residual blocks (or ``blocks``), 11,378,179 parameters, 1.3 times the work of ``resnet9``.

    For CUT, whose contrastive loss compares its features. Blurring before each halving and after each doubling makes it
    steadier when the picture moves, and avoids checkerboards.
    """
    return AntialiasedResNetGenerator(
        in_channels,
        out_channels,
        width=width,
        blocks=blocks,
        norm=norm,
        padding=padding,
        dropout=dropout,
        init=init,
        residual=residual,
    )


@GENERATORS.register("resnet6_antialias")
def resnet6_antialias(
    *,
    width: int = 64,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    padding: Padding = "reflect",
    dropout: float = 0.0,
    init: Init = "xavier",
    residual: bool = False,
) -> AntialiasedResNetGenerator:
    """CUT's smaller generator: 6 residual blocks, 7,837,699 parameters, 1.4 times the work of ``resnet6``.

    For CUT on small images.
    """
    return AntialiasedResNetGenerator(
        in_channels,
        out_channels,
        width=width,
        blocks=6,
        norm=norm,
        padding=padding,
        dropout=dropout,
        init=init,
        residual=residual,
    )
