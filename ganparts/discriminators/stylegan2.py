"""StyleGAN2's discriminator (Karras et al. 2020, arXiv 1912.04958), in the residual form of StyleGAN2-ADA (2006.06676).

Weights are drawn from N(0, 1) and divided by the root of their inputs at every use (equalised learning rate), so that
Adam moves all layers alike. Convolutions that halve the size blur first. The last layers see how much the images of a
batch differ (minibatch standard deviation).

Deviations from the source: no fused kernels, no clamping for half precision, no class labels. Groups of images need not
divide the batch by 4: the largest number up to 4 that divides it is taken.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import check_counts
from ganparts.discriminators.whole_image import Blur, check_size, halvings
from ganparts.precision import at_least_fp32
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["StyleGAN2Discriminator", "stylegan2"]


def _normal(*shape: int) -> nn.Parameter:
    weight = torch.empty(shape)
    return nn.Parameter(weight if weight.is_meta else weight.normal_())  # for meta PyTorch would import its compiler


class _Conv(nn.Module):
    """An equalised convolution, blurred and of stride 2 if ``down``; with bias and scaled LeakyReLU if ``active``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, down: bool = False, active: bool = True):
        super().__init__()
        self.weight = _normal(out_channels, in_channels, kernel, kernel)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if active else None
        # where the kernel is 1x1, only what is kept needs to be blurred
        self.before = Blur(padding=1 + kernel // 2, stride=2 if kernel == 1 else 1) if down else nn.Identity()
        self.stride, self.padding = (2 if down and kernel > 1 else 1), (0 if down else kernel // 2)

    def forward(self, features: Tensor) -> Tensor:
        weight = self.weight / math.sqrt(self.weight[0].numel())
        features = F.conv2d(self.before(features), weight, stride=self.stride, padding=self.padding)
        return features if self.bias is None else _activated(features + self.bias[:, None, None])


class _Linear(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = _normal(out_features, in_features)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


def _activated(features: Tensor) -> Tensor:
    return F.leaky_relu(features, 0.2) * math.sqrt(2)  # which keeps the variance


class _Block(nn.Module):
    """Two convolutions and a skip, at half the size: [B, in_channels, H, W] to [B, out_channels, H / 2, W / 2]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv0 = _Conv(in_channels, in_channels, 3)
        self.conv1 = _Conv(in_channels, out_channels, 3, down=True)
        self.skip = _Conv(in_channels, out_channels, 1, down=True, active=False)

    def forward(self, features: Tensor) -> Tensor:
        return (self.skip(features) + self.conv1(self.conv0(features))) * math.sqrt(0.5)


def _with_deviation(features: Tensor, most: int) -> Tensor:
    """Appends a channel: how much the images of a group differ, a mean over channels and places."""
    batch, channels, height, width = features.shape
    group = next(size for size in range(min(most, batch), 0, -1) if batch % size == 0)
    wide = at_least_fp32(features)  # 1e-8 is nothing in half precision
    groups = wide.reshape(group, batch // group, channels, height, width)  # images of a group are far apart
    variance = (groups - groups.mean(0)).square().mean(0)
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3)).to(features.dtype).repeat(group)
    return torch.cat([features, deviation[:, None, None, None].expand(batch, 1, height, width)], 1)


class StyleGAN2Discriminator(PretrainedModule):
    """Judges an image as a whole: images [B, in_channels, size, size] to logits [B, 1, 1, 1].

    Args:
        in_channels: channels of the images.
        width: channels at the full size; doubled with each halving, up to 512.
        size: height and width of the images, a power of two of at least 8.
        group: images that the minibatch standard deviation compares; 1 makes the images of a batch independent.

    Raises:
        ValueError: channels below 1; a ``size`` that is no such power, ``group`` below 1; in
            ``forward`` images of another size.
    """

    def __init__(self, in_channels: int = 3, *, width: int = 64, size: int = 256, group: int = 4):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, group=group)
        self.in_channels, self.size, self.group = in_channels, size, group
        self.images_are_independent = group == 1
        widths = [min(width * 2**halving, 512) for halving in range(halvings(size) + 1)]
        self.from_rgb = _Conv(in_channels, widths[0], 1)
        self.blocks = nn.Sequential(*(_Block(widths[i], widths[i + 1]) for i in range(halvings(size))))
        self.conv = _Conv(widths[-1] + 1, widths[-1], 3)
        self.hidden = _Linear(16 * widths[-1], widths[-1])
        self.out = _Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images, self, self.size)
        features = _with_deviation(self.blocks(self.from_rgb(images)), self.group)
        hidden = _activated(self.hidden(self.conv(features).flatten(1)))
        return self.out(hidden)[..., None, None]


@DISCRIMINATORS.register("stylegan2")
def stylegan2(*, width: int = 64, in_channels: int = 3, size: int = 256, group: int = 4) -> StyleGAN2Discriminator:
    """StyleGAN2's discriminator, 24,001,089 parameters; with a width of 128 (channel base 32768) 28,864,129.

    For a single verdict on the whole image, with the loss ``logistic`` and the penalty ``r1``. It wants many images or
    strong augmentation.
    """
    return StyleGAN2Discriminator(in_channels, width=width, size=size, group=group)
