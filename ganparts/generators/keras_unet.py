"""The U-Net of the Kaggle competition's Keras tutorial ("Monet CycleGAN Tutorial", after TensorFlow's pix2pix).

It differs from the PyTorch reference's U-Net: affine instance norm (eps 1e-3, scale drawn from N(0, 0.02)) at every
level but the first, the 1x1 bottleneck included; LeakyReLU of slope 0.3 after the norm, so that skips carry its
negatives; no biases but the last; dropout 0.5 in the three deepest upsamplings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganparts.blocks import (
    check_counts,
    check_images,
    init_weights,
    keras_instance_norm,
    residual_output,
    start_as_identity,
)
from ganparts.pretrained import PretrainedModule
from ganparts.registry import GENERATORS

__all__ = ["KerasUNetGenerator", "keras_unet256"]


class KerasUNetGenerator(PretrainedModule):
    """8 halvings with skips: images [B, in_channels, H, W] to [B, out_channels, H, W]; H, W multiples of 256.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        width: channels after the first convolution; at most 8 times as many further down.
        dropout: probability in the three deepest upsamplings.
        residual: return the input plus a change, clamped to [-1, 1], instead of a tanh
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: channels below 1; other channels out than in with ``residual``; in
            ``forward``, a size that is not a multiple of 256.
    """

    size_multiple = 256

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        dropout: float = 0.5,
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        self.in_channels = in_channels
        self.images_are_independent = True  # instance norms alone
        self.residual = residual
        widths = [width * min(2**level, 8) for level in range(8)]

        def down(level: int) -> nn.Module:
            conv = nn.Conv2d(widths[level - 1] if level else in_channels, widths[level], 4, 2, 1, bias=False)
            norm = [keras_instance_norm(widths[level])] if level else []
            return nn.Sequential(conv, *norm, nn.LeakyReLU(0.3))

        def up(level: int) -> nn.Module:  # from the grid of `level` to the next finer one
            channels = widths[level] if level == 7 else 2 * widths[level]
            conv = nn.ConvTranspose2d(channels, widths[level - 1], 4, 2, 1, bias=False)
            drop = [nn.Dropout(dropout)] if level >= 5 else []
            return nn.Sequential(conv, keras_instance_norm(widths[level - 1]), *drop, nn.ReLU())

        self.down = nn.ModuleList(down(level) for level in range(8))
        self.up = nn.ModuleList(up(level) for level in range(7, 0, -1))
        last = nn.ConvTranspose2d(2 * width, out_channels, 4, 2, 1)
        self.last = nn.Sequential(last, nn.Identity() if residual else nn.Tanh())
        self.apply(init_weights)
        if residual:
            start_as_identity(last, in_channels=in_channels, out_channels=out_channels)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        features, skips = images, []
        for layer in self.down:
            features = layer(features)
            skips.append(features)
        skips.pop()
        for layer in self.up:
            features = torch.cat([layer(features), skips.pop()], 1)
        painted = self.last(features)
        return residual_output(images, painted) if self.residual else painted


@GENERATORS.register("keras_unet256")
def keras_unet256(
    *,
    width: int = 64,
    in_channels: int = 3,
    out_channels: int = 3,
    dropout: float = 0.5,
    residual: bool = False,
) -> KerasUNetGenerator:
    """The Keras tutorial's generator: 54,414,979 parameters.

    For comparing with notebooks of the Kaggle competition. At 256x256 its deepest features are 1x1, so it knows the
    whole picture.
    """
    return KerasUNetGenerator(in_channels, out_channels, width=width, dropout=dropout, residual=residual)
