"""R3GAN's discriminator (Huang et al. 2024, arXiv 2501.05441): a modern ResNet without norms.

Each residual block widens its input by 1x1 convolutions around a grouped 3x3 one. Initial weights are scaled by the
number of blocks, and each block begins as the identity. It is trained with the loss ``rsgan`` and with penalties on
the gradients at real and at generated images. Written from the paper's numbers, without the source's kernels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import check_counts
from ganparts.discriminators.whole_image import Blur, check_size, halvings
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["R3GANDiscriminator", "r3gan"]

_SLOPE = 0.2
_GROUP = 16  # channels of a group in the widened 3x3 convolutions


def _scaled(layer: nn.Conv2d | nn.Linear, gain: float) -> nn.Conv2d | nn.Linear:
    """The layer with weights from N(0, gain / sqrt(inputs)); on the meta device there is nothing to fill."""
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    return layer


class _Biased(nn.Module):
    """LeakyReLU of the features with a bias added."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        return F.leaky_relu(features + self.bias[:, None, None], _SLOPE)


class _Residual(nn.Module):
    """[B, C, H, W] to the same shape; ``blocks`` is how many such blocks the network has."""

    def __init__(self, channels: int, *, blocks: int):
        super().__init__()
        wide = 2 * channels
        groups = wide // _GROUP if wide % _GROUP == 0 else 1
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * blocks**-0.25
        self.layers = nn.Sequential(
            _scaled(nn.Conv2d(channels, wide, 1, bias=False), gain),
            _Biased(wide),
            _scaled(nn.Conv2d(wide, wide, 3, padding=1, groups=groups, bias=False), gain),
            _Biased(wide),
            _scaled(nn.Conv2d(wide, channels, 1, bias=False), 0.0),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


def _halving(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Blurs to half the size; a 1x1 convolution follows if the number of channels changes."""
    conv = [] if in_channels == out_channels else [_scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False), 1.0)]
    return [Blur(padding=1, stride=2), *conv]


class R3GANDiscriminator(PretrainedModule):
    """Judges an image as a whole: images [B, in_channels, size, size] to logits [B, 1, 1, 1].

    Groups of 16 channels share a 3x3 convolution; where a width does not allow for that, all channels do.

    Args:
        in_channels: channels of the images.
        width: channels at the full size; doubled with each halving, up to 8 times as many.
        size: height and width of the images, a power of two of at least 8.
        blocks: residual blocks at each size, at least 1.

    Raises:
        ValueError: channels or blocks below 1; a ``size`` that is no such power; in
            ``forward`` images of another size.
    """

    images_are_independent = True

    def __init__(self, in_channels: int = 3, *, width: int = 96, size: int = 256, blocks: int = 2):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, blocks=blocks)
        self.in_channels, self.size = in_channels, size
        widths = [width * min(2**halving, 8) for halving in range(halvings(size) + 1)]
        layers: list[nn.Module] = [_scaled(nn.Conv2d(in_channels, width, 1, bias=False), 1.0)]
        for channels, after in zip(widths, [*widths[1:], None], strict=True):
            layers += [_Residual(channels, blocks=blocks * len(widths)) for _ in range(blocks)]
            if after is not None:
                layers += _halving(channels, after)
        self.trunk = nn.Sequential(*layers)
        self.pool = _scaled(nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False), 1.0)
        self.out = _scaled(nn.Linear(widths[-1], 1, bias=False), 1.0)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images, self, self.size)
        return self.out(self.pool(self.trunk(images)).flatten(1))[..., None, None]


@DISCRIMINATORS.register("r3gan")
def r3gan(*, width: int = 96, in_channels: int = 3, size: int = 256, blocks: int = 2) -> R3GANDiscriminator:
    """R3GAN's discriminator as it has it for FFHQ at 256x256: 23,009,568 parameters.

    For a single verdict on the whole image, with the loss ``rsgan`` and the penalty ``r1_r2``. It has no norm; the
    penalties keep it steady.
    """
    return R3GANDiscriminator(in_channels, width=width, size=size, blocks=blocks)
