"""The generator of UVCGAN2: a U-Net whose bottleneck is a vision transformer and whose decoder is modulated by a style
(Torbunov et al. 2023, arXiv 2303.16280; the U-Net with a transformer is UVCGAN's, arXiv 2203.02557).

Layer for layer the published ``vit-modnet``, with its state-dict keys. Deviations: the source takes and returns images
in [0, 1] with a sigmoid; here they are in [-1, 1], converted on the way in and out, so that published weights compute
what they did. ``transformer.py`` says how its position codes differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import check_counts, check_images, init_weights, residual_output, start_as_identity
from ganparts.generators.transformer import Transformer
from ganparts.pretrained import PretrainedModule
from ganparts.registry import GENERATORS

__all__ = ["UNetViTGenerator", "unet_vit"]


class _Scales(nn.Module):
    """A style [B, S] to a scale of each channel [B, C], 1 at the start."""

    def __init__(self, style_channels: int, channels: int):
        super().__init__()
        self.affine_mod = nn.Linear(style_channels, channels)
        self.re_alpha = nn.Parameter(torch.zeros(1))

    def forward(self, style: Tensor) -> Tensor:
        return 1 + self.re_alpha * self.affine_mod(style)


class _ModulatedConv(nn.Module):
    """A 3x3 convolution of scaled channels, divided by the norm of its scaled weights (StyleGAN2, arXiv 1912.04958)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, features: Tensor, scales: Tensor) -> Tensor:
        energy = self.conv.weight.square().sum((2, 3)) * scales.square()[:, None]  # [B, out, in]
        norm = torch.rsqrt(energy.sum(2) + 1e-6)
        return self.conv(features * scales[..., None, None]) * norm[..., None, None]


class _ModulatedBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, out_channels: int, style_channels: int):
        super().__init__()
        self.style_block1 = _Scales(style_channels, in_channels)
        self.conv_block1 = _ModulatedConv(in_channels, channels)
        self.style_block2 = _Scales(style_channels, channels)
        self.conv_block2 = _ModulatedConv(channels, out_channels)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        features = F.leaky_relu(self.conv_block1(features, self.style_block1(style)))
        return F.leaky_relu(self.conv_block2(features, self.style_block2(style)))


class _PlainBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.block = nn.Sequential(  # the source has norms before the convolutions, here none
            nn.Identity(),
            nn.Conv2d(in_channels, channels, 3, padding=1),
            nn.LeakyReLU(),
            nn.Identity(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.block(features)


class _Down(nn.Module):
    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.block = _PlainBlock(in_channels, channels)
        self.downsample = nn.Conv2d(channels, channels, 2, stride=2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.block(features)
        return self.downsample(skip), skip


class _Up(nn.Module):
    def __init__(self, channels: int, out_channels: int, style_channels: int):
        super().__init__()
        self.upsample = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1))
        self.block = _ModulatedBlock(2 * channels, channels, out_channels, style_channels)

    def forward(self, features: Tensor, skip: Tensor, style: Tensor) -> Tensor:
        return self.block(torch.cat([self.upsample(features), skip], 1), style)


class _Level(nn.Module):
    """One resolution of the U, with those below inside: features of ``in_channels`` to as many, and the style."""

    def __init__(self, in_channels: int, channels: int, inner: nn.Module, style_channels: int):
        super().__init__()
        self.conv = _Down(in_channels, channels)
        self.inner_module = inner
        self.deconv = _Up(channels, in_channels, style_channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        down, skip = self.conv(features)
        features, style = self.inner_module(down)
        return self.deconv(features, skip, style), style


class _Net(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, width: int, modnet: nn.Module):
        super().__init__()
        self.layer_input = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.LeakyReLU())
        self.modnet = modnet
        self.layer_output = nn.Conv2d(width, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        features, _ = self.modnet(self.layer_input(images))
        return self.layer_output(features)


class UNetViTGenerator(PretrainedModule):
    """A U-Net around a transformer: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of 2 to the power of the number of levels. Attention is over the whole picture, so its
    memory grows with the square of the pixels, and the network does not run in tiles.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        levels: channels of each resolution, the finest first.
        channels: of the transformer's tokens and of the style.
        heads: of its attention; must divide ``channels``.
        blocks: transformer blocks.
        hidden: channels inside their feed-forward layers.
        code: channels of the position code.
        residual: return the input plus a change, clamped to [-1, 1], instead of a sigmoid
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: no levels; channels below 1 or blocks below 0; ``heads`` does not divide ``channels``; other
            channels out than in with ``residual``; in ``forward`` a wrong size.
    """

    images_are_independent = True
    tileable = False

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        levels: Sequence[int] = (48, 96, 192, 384),
        channels: int = 384,
        heads: int = 6,
        blocks: int = 12,
        hidden: int = 1536,
        code: int = 384,
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, channels=channels, heads=heads)
        check_counts(blocks=blocks, least=0)
        check_counts(hidden=hidden, code=code)
        if not levels:
            raise ValueError(f"levels={levels!r}: give the channels of at least one level")
        for count in levels:
            check_counts(levels=count)
        if channels % heads:
            raise ValueError(
                f"heads={heads} does not divide the transformer's {channels} channels: choose one that does"
            )
        self.in_channels = in_channels
        self.residual = residual
        self.size_multiple = 2 ** len(levels)
        level: nn.Module = Transformer(
            levels[-1], channels=channels, heads=heads, blocks=blocks, hidden=hidden, code=code
        )
        for outer, inner in reversed(list(zip((levels[0], *levels), levels, strict=False))):
            level = _Level(outer, inner, level, channels)
        self.net = _Net(in_channels, out_channels, levels[0], level)
        self.apply(_init)
        if residual:
            start_as_identity(self.net.layer_output, in_channels=in_channels, out_channels=out_channels)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        painted = self.net(0.5 * images + 0.5)
        if self.residual:
            return residual_output(images, painted)
        return 2 * torch.sigmoid(painted) - 1


def _init(module: nn.Module) -> None:
    """As the source: convolutions and linear layers N(0, 0.02) with zero bias."""
    init_weights(module)
    if isinstance(module, nn.Linear) and not module.weight.is_meta:
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)


@GENERATORS.register("unet_vit")
def unet_vit(
    *,
    width: int = 48,
    blocks: int = 12,
    heads: int | None = None,
    levels: Sequence[int] | None = None,
    channels: int | None = None,
    hidden: int | None = None,
    code: int | None = None,
    in_channels: int = 3,
    out_channels: int = 3,
    residual: bool = False,
) -> UNetViTGenerator:
    """UVCGAN2's generator, for multiples of 16: 32,192,231 parameters.

    For long trainings on a GPU, after filling holes (``recipes/pretrain_inpainting.py``): its transformer sees the
    whole picture at once.

    By default its ``levels`` have 1, 2, 4 and 8 times ``width`` channels, the tokens (``channels``) and the position
    ``code`` 8 times, and the feed-forward layers (``hidden``) 4 times as many as the tokens. ``heads`` is 6 by
    default, or as many of these as divide the tokens' channels.
    """
    check_counts(width=width)
    channels = 8 * width if channels is None else channels
    return UNetViTGenerator(
        in_channels,
        out_channels,
        levels=(width, 2 * width, 4 * width, 8 * width) if levels is None else levels,
        channels=channels,
        heads=math.gcd(6, channels) if heads is None else heads,
        blocks=blocks,
        hidden=4 * channels if hidden is None else hidden,
        code=channels if code is None else code,
        residual=residual,
    )
