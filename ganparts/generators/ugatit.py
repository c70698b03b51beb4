"""The generator of U-GAT-IT (Kim et al. 2020, arXiv 1907.10830): class activation maps weigh its features, and what
they show sets the scale and shift of adaptive layer-instance norms.

Layer for layer the PyTorch version's, with its state-dict keys and PyTorch's own initialisation. Deviation: the layer
statistics are put together from those of the channels, which reads the features once instead of twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import (
    InstanceNorm2d,
    ReflectionPad2d,
    check_counts,
    check_images,
    recomputed,
    residual_output,
    start_as_identity,
)
from ganparts.generators.resnet import ResidualBlock
from ganparts.precision import at_least_fp32
from ganparts.pretrained import PretrainedModule
from ganparts.registry import GENERATORS

__all__ = ["AdaLIN", "Attended", "LayerInstanceNorm2d", "UGATITGenerator", "layer_instance_norm", "ugatit"]


def layer_instance_norm(images: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """``gamma * (rho * IN(x) + (1 - rho) * LN(x)) + beta``, with unbiased variances.

    Args:
        images: features [B, C, H, W] of more than one pixel.
        rho: share of the instance norm, [1, C, 1, 1].
        gamma: scale, broadcast to [B, C, 1, 1].
        beta: shift, as gamma.
        eps: added to the variances.
    """
    wide = at_least_fp32(images)  # or the mean is rounded
    channels, pixels = images.shape[1], images.shape[2] * images.shape[3]
    mean = wide.mean((2, 3), keepdim=True)
    centred = wide - mean
    variance = centred.square().sum((2, 3), keepdim=True) / (pixels - 1)  # on a CPU, var_mean takes ten times as long
    layer_mean = mean.mean(1, keepdim=True)
    squares = ((pixels - 1) * variance + pixels * (mean - layer_mean) ** 2).sum(1, keepdim=True)
    layer_variance = squares / (channels * pixels - 1)
    instance = centred * torch.rsqrt(variance + eps)
    layer = (wide - layer_mean) * torch.rsqrt(layer_variance + eps)
    return (gamma * (rho * instance + (1 - rho) * layer) + beta).to(images.dtype)


class AdaLIN(nn.Module):
    """:func:`layer_instance_norm` whose scale and shift [B, C] are given; rho is 0.9 at the start."""

    def __init__(self, channels: int):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), 0.9))

    def forward(self, features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return layer_instance_norm(features, self.rho, gamma[..., None, None], beta[..., None, None])


class LayerInstanceNorm2d(nn.Module):
    """:func:`layer_instance_norm` with a learned scale and shift; rho is 0 at the start."""

    def __init__(self, channels: int):
        super().__init__()
        self.rho = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        return layer_instance_norm(features, self.rho, self.gamma, self.beta)


class _AdaptiveBlock(nn.Module):
    """A residual block with AdaLIN: features [B, C, H, W], scale and shift [B, C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.recompute = False
        self.pad = ReflectionPad2d(1)
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.norm1 = AdaLIN(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3)
        self.norm2 = AdaLIN(channels)

    def forward(self, features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return features + recomputed(self._change, features, gamma, beta, recompute=self.recompute)

    def _change(self, features: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        features = F.relu(self.norm1(self.conv1(self.pad(features)), gamma, beta))
        return self.norm2(self.conv2(self.pad(features)), gamma, beta)


class Attended(NamedTuple):
    """What :meth:`UGATITGenerator.forward_with_attention` returns.

    Attributes:
        image: [B, out_channels, H, W] in [-1, 1].
        logits: [B, 2], whether the input is of the source domain, by its average and by its largest features.
        heatmap: [B, 1, H/4, W/4], the sum of the weighed features.
    """

    image: Tensor
    logits: Tensor
    heatmap: Tensor


class UGATITGenerator(PretrainedModule):
    """U-GAT-IT's generator: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of 4 and at least 8; without ``light`` they must be ``img_size``. The maps are averages
    over the whole picture, so the network does not run in tiles. Training calls :meth:`constrain` after every step of
    the generator's optimizer.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        width: channels after the first convolution; 4 times as many in the residual blocks.
        blocks: residual blocks before, and as many after the attention.
        light: take the scale and shift of AdaLIN from the features' averages instead of from all of their pixels.
        img_size: side of the images; without ``light`` it decides how many weights there are.
        residual: return the input plus a change, clamped to [-1, 1], instead of a tanh
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: channels below 1 or blocks below 0; ``img_size`` is not a multiple of 4; other channels out than
            in with ``residual``; in ``forward`` a wrong size.
    """

    images_are_independent = True
    tileable = False

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        blocks: int = 4,
        light: bool = True,
        img_size: int = 256,
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(blocks=blocks, least=0)
        if img_size % 4 or img_size < 8:
            raise ValueError(f"img_size={img_size} is not a multiple of 4 from 8 on: take {max(8, img_size // 4 * 4)}")
        self.in_channels = in_channels
        self.residual = residual
        self.light = self.exportable = light
        self.size_multiple, self.min_size = (4, 8) if light else (img_size, img_size)
        channels = 4 * width

        layers: list[nn.Module] = [
            ReflectionPad2d(3),
            nn.Conv2d(in_channels, width, 7),
            InstanceNorm2d(width),
            nn.ReLU(),
        ]
        for wide in (width, 2 * width):
            conv = nn.Conv2d(wide, 2 * wide, 3, stride=2)
            layers += [ReflectionPad2d(1), conv, InstanceNorm2d(2 * wide), nn.ReLU()]
        self.DownBlock = nn.Sequential(*layers, *(ResidualBlock(channels) for _ in range(blocks)))

        self.gap_fc = nn.Linear(channels, 1, bias=False)
        self.gmp_fc = nn.Linear(channels, 1, bias=False)
        self.conv1x1 = nn.Conv2d(2 * channels, channels, 1)
        flat = channels if light else channels * (img_size // 4) ** 2
        dense = [nn.Linear(wide, channels, bias=False) for wide in (flat, channels)]
        self.FC = nn.Sequential(dense[0], nn.ReLU(), dense[1], nn.ReLU())
        self.gamma = nn.Linear(channels, channels, bias=False)
        self.beta = nn.Linear(channels, channels, bias=False)

        self.blocks = blocks
        for block in range(1, blocks + 1):
            self.add_module(f"UpBlock1_{block}", _AdaptiveBlock(channels))
        layers = []
        for wide in (channels, channels // 2):
            conv = nn.Conv2d(wide, wide // 2, 3)
            layers += [nn.Upsample(scale_factor=2), ReflectionPad2d(1), conv, LayerInstanceNorm2d(wide // 2), nn.ReLU()]
        last = nn.Conv2d(width, out_channels, 7)
        self.UpBlock2 = nn.Sequential(*layers, ReflectionPad2d(3), last, nn.Identity() if residual else nn.Tanh())
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer is not self.conv1x1:
                layer.bias = None
        if residual:
            start_as_identity(last, in_channels=in_channels, out_channels=out_channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_with_attention(images).image

    def forward_with_attention(self, images: Tensor) -> Attended:
        """The image, and what the attention sees: a loss may teach it to tell the domains apart."""
        check_images(images, self)
        if not self.light and images.shape[2:] != (self.min_size, self.min_size):
            raise ValueError(
                f"the images are {images.shape[2]}x{images.shape[3]}, but this network was built for {self.min_size}x"
                f"{self.min_size}: resize them, build it with another img_size, or with light=True for all sizes"
            )
        features = self.DownBlock(images)
        average, largest = features.mean((2, 3)), features.amax((2, 3))
        logits = torch.cat([self.gap_fc(average), self.gmp_fc(largest)], 1)
        weights = [rearrange(layer.weight, "1 c -> c 1 1") for layer in (self.gap_fc, self.gmp_fc)]
        features = F.relu(self.conv1x1(torch.cat([features * weight for weight in weights], 1)))
        heatmap = features.sum(1, keepdim=True)

        seen = self.FC(features.mean((2, 3)) if self.light else features.flatten(1))
        gamma, beta = self.gamma(seen), self.beta(seen)
        for block in range(1, self.blocks + 1):
            features = self.get_submodule(f"UpBlock1_{block}")(features, gamma, beta)
        painted = self.UpBlock2(features)
        return Attended(residual_output(images, painted) if self.residual else painted, logits, heatmap)

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring every rho back into [0, 1], in place. Training calls this after each step of the optimizer."""
        for layer in self.modules():
            if isinstance(layer, AdaLIN | LayerInstanceNorm2d):
                layer.rho.clamp_(0, 1)


@GENERATORS.register("ugatit")
def ugatit(
    *,
    width: int = 64,
    blocks: int = 4,
    light: bool = True,
    img_size: int = 256,
    in_channels: int = 3,
    out_channels: int = 3,
    residual: bool = False,
) -> UGATITGenerator:
    """U-GAT-IT's generator, for multiples of 4: 10,589,888 parameters.

    For changes of shape as well as of texture, such as a selfie to an anime face: attention from a classifier of the
    two domains says where they differ, and norms say how much. Larger than style transfer needs.

    Without ``light`` it is for images of ``img_size`` alone: 278,959,808 parameters at 256.
    """
    return UGATITGenerator(
        in_channels,
        out_channels,
        width=width,
        blocks=blocks,
        light=light,
        img_size=img_size,
        residual=residual,
    )
