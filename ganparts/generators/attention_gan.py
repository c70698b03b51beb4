"""The generator of AttentionGAN (Tang et al. 2021, arXiv 1911.11897): a ResNet that paints nine pictures and ten
attention maps, and mixes the pictures and its input by them.

Written from the paper and from facts about the reference implementation, with its state-dict keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import (
    Norm,
    ReflectionPad2d,
    check_counts,
    check_images,
    images_are_independent,
    init_weights,
    normalized,
    recomputed,
    residual_output,
    start_as_identity,
)
from ganparts.pretrained import PretrainedModule
from ganparts.registry import GENERATORS

__all__ = ["AttentionGANGenerator", "attention_gan"]

_PICTURES = 9


class _Block(nn.Module):
    """Two 3x3 convolutions with norms and a skip: [B, C, H, W] to the same shape."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        self.recompute = False
        self.pad = ReflectionPad2d(1)
        self.conv1, self.norm1 = normalized(nn.Conv2d(channels, channels, 3), norm)
        self.conv2, self.norm2 = normalized(nn.Conv2d(channels, channels, 3), norm)

    def forward(self, features: Tensor) -> Tensor:
        return features + recomputed(self._change, features, recompute=self.recompute)

    def _change(self, features: Tensor) -> Tensor:
        features = F.relu(self.norm1(self.conv1(self.pad(features))))
        return self.norm2(self.conv2(self.pad(features)))


class AttentionGANGenerator(PretrainedModule):
    """AttentionGAN's generator: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of 4, and at least 8. The tenth attention map weighs the input, so the output has as many
    channels as the input; a single channel is mixed into each of the output's.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image; as many as the input has, unless that has one.
        width: channels after the first convolution; 4 times as many in the residual blocks.
        blocks: residual blocks.
        norm: ``"instance"``, ``"instance_affine"``, ``"batch"``, ``"group"``, ``"none"``, or a function from channels
            to a module.
        residual: the nine pictures are changes of the input, without a tanh, and the mix is clamped to [-1, 1]
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: channels below 1 or blocks below 0; other channels out than in, unless there is one in and
            ``residual`` is False; an unknown norm; in ``forward`` a wrong size.
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
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(blocks=blocks, least=0)
        if in_channels not in (1, out_channels):
            raise ValueError(
                f"this network mixes its input into its output, but in_channels={in_channels} and "
                f"out_channels={out_channels} differ: make them equal, or in_channels 1"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.residual = residual
        self.images_are_independent = images_are_independent(norm)

        def up(channels: int) -> list[nn.Module]:
            return normalized(nn.ConvTranspose2d(channels, channels // 2, 3, 2, padding=1, output_padding=1), norm)

        self.pad = ReflectionPad2d(3)
        self.conv1, self.norm1 = normalized(nn.Conv2d(in_channels, width, 7), norm)
        self.conv2, self.norm2 = normalized(nn.Conv2d(width, 2 * width, 3, 2, 1), norm)
        self.conv3, self.norm3 = normalized(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), norm)
        self.resnet_blocks = nn.Sequential(*(_Block(4 * width, norm) for _ in range(blocks)))
        self.deconv1_content, self.norm1_content = up(4 * width)
        self.deconv2_content, self.norm2_content = up(2 * width)
        self.deconv3_content = nn.Conv2d(width, _PICTURES * out_channels, 7)
        self.deconv1_attention, self.norm1_attention = up(4 * width)
        self.deconv2_attention, self.norm2_attention = up(2 * width)
        self.deconv3_attention = nn.Conv2d(width, _PICTURES + 1, 1)
        self.apply(init_weights)
        if residual:
            start_as_identity(self.deconv3_content, in_channels=in_channels, out_channels=out_channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_with_maps(images)[0]

    def forward_with_maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The image, the pictures it is mixed of [B, 9 C, H, W], and the attention maps [B, 10, H, W]."""
        check_images(images, self)
        features = F.relu(self.norm1(self.conv1(self.pad(images))))
        features = F.relu(self.norm2(self.conv2(features)))
        features = F.relu(self.norm3(self.conv3(features)))
        features = self.resnet_blocks(features)

        content = F.relu(self.norm1_content(self.deconv1_content(features)))
        content = F.relu(self.norm2_content(self.deconv2_content(content)))
        pictures = self.deconv3_content(self.pad(content))
        if not self.residual:
            pictures = torch.tanh(pictures)

        attention = F.relu(self.norm1_attention(self.deconv1_attention(features)))
        attention = F.relu(self.norm2_attention(self.deconv2_attention(attention)))
        attention = torch.softmax(self.deconv3_attention(attention), 1)

        # of single maps, not of one axis for the nine: that runs in tiles, too
        channels = self.out_channels
        mixed = pictures.narrow(1, 0, channels) * attention.narrow(1, 0, 1)
        for index in range(1, _PICTURES):
            mixed = mixed + pictures.narrow(1, index * channels, channels) * attention.narrow(1, index, 1)
        if self.residual:
            return residual_output(images, mixed), pictures, attention
        return mixed + images * attention.narrow(1, _PICTURES, 1), pictures, attention


@GENERATORS.register("attention_gan")
def attention_gan(
    *,
    width: int = 64,
    blocks: int = 9,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    residual: bool = False,
) -> AttentionGANGenerator:
    """AttentionGAN's generator, for multiples of 4: 11,822,949 parameters.

    For changes of one thing in a picture, such as a horse's coat: its maps choose where to paint, and leave the rest of
    the input untouched. A change of style touches everything, so there they help less.
    """
    return AttentionGANGenerator(in_channels, out_channels, width=width, blocks=blocks, norm=norm, residual=residual)
