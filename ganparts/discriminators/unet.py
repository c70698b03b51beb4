"""The U-Net discriminator (Schoenfeld et al. 2020, arXiv 2002.12655): judges an image as a whole and every pixel of it.

The encoder is BigGAN's discriminator (Brock et al. 2019, arXiv 1809.11096), whose logit judges the whole image. A
decoder with skip connections goes on to a logit for each pixel. All layers but the last have spectral norm.

The paper adds up the cross-entropies of the two judgements. The losses here take their mean, so ``bce`` with
``weight=2`` keeps the paper's balance with other losses. Its CutMix regularisation is not part of this network.

Written from the paper's description, without its code. The source's class has ``width + 1`` more parameters, those of a
linear layer that has no part in either judgement.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import check_counts, check_images
from ganparts.discriminators.spectral import SpectralLayer
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["UNetDiscriminator", "unet_discriminator"]

_DOWN = {128: (1, 2, 4, 8, 16), 256: (1, 2, 4, 8, 8, 16)}  # widths of the encoder's blocks, by the size of the images
_UP = {128: (8, 4, 2, 1, 1), 256: (8, 8, 4, 2, 1, 1)}


def _orthogonal(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Initialises a layer as BigGAN does; on the meta device there is nothing to fill."""
    if not layer.weight.is_meta:
        nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layer


def _spectral(layer: nn.Conv2d | nn.Linear) -> SpectralLayer:
    return SpectralLayer(_orthogonal(layer))


class _Down(nn.Module):
    """Two convolutions and a skip, averaged to half the size; the first block of all begins without activation."""

    def __init__(self, in_channels: int, out_channels: int, *, first: bool):
        super().__init__()
        self.first = first
        self.conv1 = _spectral(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.conv2 = _spectral(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = _spectral(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv1(features if self.first else F.relu(features))
        x = F.avg_pool2d(self.conv2(F.relu(x)), 2)
        return x + self.skip(F.avg_pool2d(features, 2))  # the 1x1 convolution and the mean can change places


class _Up(nn.Module):
    """Nearest neighbours to twice the size, two convolutions and a skip."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = _spectral(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.conv2 = _spectral(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = _spectral(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv1(F.interpolate(F.relu(features), scale_factor=2.0))
        return self.conv2(F.relu(x)) + F.interpolate(self.skip(features), scale_factor=2.0)


class UNetDiscriminator(PretrainedModule):
    """Judges pixels and the whole: images [B, in_channels, H, W] to (logits [B, 1, H, W], logits [B, 1, 1, 1]).

    Args:
        in_channels: channels of the images.
        width: channels of the first block; 16 times as many in the deepest.
        size: 128 or 256, for which image size the paper gives the widths: 5 halvings or 6. Any H and W that are
            multiples of 32 or 64 are judged, but the logit of the whole is a sum over places and grows with them.

    Raises:
        ValueError: channels below 1; another ``size``; in ``forward`` images whose sides are no
            multiples.
    """

    images_are_independent = False  # the spectral norms change with every call

    def __init__(self, in_channels: int = 3, *, width: int = 64, size: int = 256):
        super().__init__()
        check_counts(in_channels=in_channels, width=width)
        if size not in _DOWN:
            raise ValueError(
                f"size={size}: the paper has this network for images of 128 or 256 pixels; take the nearer one"
            )
        self.in_channels = in_channels
        down, up = ([width * factor for factor in factors[size]] for factors in (_DOWN, _UP))
        self.size_multiple = 2 ** len(down)
        inputs = [in_channels, *down[:-1]]
        self.down = nn.ModuleList(_Down(inputs[i], down[i], first=i == 0) for i in range(len(down)))
        self.whole = _spectral(nn.Linear(down[-1], 1))
        # each block but the first also gets the encoder's map of its size
        inputs = [down[-1], *(above + skip for above, skip in zip(up[:-1], reversed(down[:-1]), strict=True))]
        self.up = nn.ModuleList(_Up(inputs[i], up[i]) for i in range(len(up)))
        self.pixels = _orthogonal(nn.Conv2d(up[-1], 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images, self)
        skips: list[Tensor] = []
        features = images
        for block in self.down:
            features = block(features)
            skips.append(features)
        whole = self.whole(F.relu(features).sum((2, 3)))
        skips.pop()
        features = self.up[0](features)
        for block in self.up[1:]:
            features = block(torch.cat([features, skips.pop()], 1))
        return self.pixels(features), whole[..., None, None]


@DISCRIMINATORS.register("unet_discriminator")
def unet_discriminator(*, width: int = 64, in_channels: int = 3, size: int = 256) -> UNetDiscriminator:
    """The U-Net discriminator for 256x256 images, 44,067,586 parameters; for 128x128 31,481,602.

    It judges the whole image and every pixel, so the generator hears where a picture is wrong. It is large.
    """
    return UNetDiscriminator(in_channels, width=width, size=size)
