"""The discriminator of Projected GAN (Sauer et al. 2021, arXiv 2111.01007), with the source's state-dict keys.

A frozen network sees the image. Fixed random 1x1 convolutions mix the channels of each of its feature maps (CCM), then
the maps with one another, from the coarsest up (CSM). Each mixed map has a small head with spectral and batch norm.
Heads without ``separable`` are those of the source's FastGAN configuration, with it those of its StyleGAN2 one.

Deviations: the mixing convolutions run before the bilinear upsampling that they follow in the source. Both are linear
maps that commute, so the result is the same for a quarter of the work. Images keep their size unless ``zoom`` enlarges
them; the source enlarges those below 224x224 to that size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.backbones import Backbone, create_backbone
from ganparts.blocks import check_counts, check_images
from ganparts.discriminators.spectral import SpectralLayer
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["FeatureDiscriminator", "ProjectedDiscriminator", "projected"]

_END = 8  # height and width at which a head stops halving, for images of the size it is made for
_STARTS = (8, 16, 32, 64, 128, 256)
_WIDTHS = {8: 8, 16: 4, 32: 2, 64: 1, 128: 1}  # channels of maps of that height and width, in units of ``width``


class ProjectedDiscriminator(PretrainedModule):
    """Judges features of a frozen network: images [B, in_channels, H, W] to logits [B, 1, 1, places].

    The logits of all heads stand in one row, so that every logit has the same weight in a loss. 256x256 images give
    4 heads of 5x5. The random mixing is saved with the heads; the backbone is neither saved nor copied.

    Args:
        backbone: a registered name (``timm:resnet18`` for short), or a builder without arguments. The strides of its
            feature maps must double from one to the next.
        in_channels: channels of the images, 3, or 1 for grey ones, which the backbone then sees as colours.
        image_size: height and width, in pixels, of the images that the heads are made for: 96 to 512, divided by
            ``zoom``. Others may come, as long as they are at least ``min_size``.
        zoom: images are enlarged this many times, bilinearly, before the backbone sees them. Its feature maps are then
            that much finer, so that it judges smaller strokes and grain; a step takes longer.
        width: channels of the heads at 64x64; 8 times as many at 8x8.
        projection_width: channels that the finest feature map is mixed to; doubled with each coarser one.
        separable: whether the heads have depthwise-separable convolutions, with a tenth of the parameters.

    Raises:
        ValueError: ``in_channels``, an ``image_size``, a ``zoom`` below 1 or a backbone that the heads cannot be made
            for; in ``forward`` images that are too small, or not of a size that all feature maps divide.
        UnavailableError: the backbone's package or weights are not here.
    """

    images_are_independent = False  # the heads have batch norm, and spectral norms that change with every call

    def __init__(
        self,
        backbone: str | Callable[[], Backbone] = "efficientnet_lite0",
        *,
        in_channels: int = 3,
        image_size: int = 256,
        width: int = 64,
        projection_width: int = 64,
        separable: bool = False,
        zoom: int = 1,
    ):
        super().__init__()
        check_counts(zoom=zoom)
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels={in_channels}: the backbone sees images of 3 channels, or of 1, made grey")
        self.in_channels, self.zoom = in_channels, zoom
        self.backbone = create_backbone(backbone)
        strides = self.backbone.strides
        if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise ValueError(
                f"the backbone's feature maps have the strides {list(strides)}, but a projected discriminator needs "
                "each to be twice the one before: take 'efficientnet_lite0' or 'timm:resnet18'"
            )
        sizes = [2 * zoom * image_size / stride for stride in strides]
        self.judge = FeatureDiscriminator(
            self.backbone.channels, sizes, width=width, projection_width=projection_width, separable=separable
        )
        self.size_multiple = strides[-1] // math.gcd(strides[-1], zoom)
        smallest = max(size * stride / (2 * zoom) for size, stride in zip(self.judge.min_sizes, strides, strict=True))
        self.min_size = math.ceil(smallest / self.size_multiple) * self.size_multiple

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        if self.zoom > 1:
            images = F.interpolate(images, scale_factor=self.zoom, mode="bilinear", align_corners=False)
        return self.judge(self.backbone(images.expand(-1, 3, -1, -1)))


class FeatureDiscriminator(nn.Module):
    """What follows the backbone: feature maps, finest first, to logits [B, 1, 1, places].

    Args:
        channels: of each feature map.
        sizes: height and width of each map after mixing (twice the feature map's) that the heads are made for; a
            head halves it until it is 8. What is not a power of two counts as the nearest from 8 to 256.
        width: channels of the heads at 64x64.
        projection_width: channels that the finest feature map is mixed to; doubled with each coarser one.
        separable: whether the heads have depthwise-separable convolutions.

    Raises:
        ValueError: channels below 1; a size beyond 6 to 256; in ``forward`` maps that are not
            each twice as large as the next.
    """

    def __init__(
        self,
        channels: Sequence[int],
        sizes: Sequence[float] = (128, 64, 32, 16),
        *,
        width: int = 64,
        projection_width: int = 64,
        separable: bool = False,
    ):
        super().__init__()
        check_counts(width=width, projection_width=projection_width)
        if not (sizes and min(sizes) >= 6 and max(sizes) <= _STARTS[-1]):
            raise ValueError(
                f"heads are made for mixed maps from 6x6 to {_STARTS[-1]}x{_STARTS[-1]}, but these are "
                f"{', '.join(f'{size:g}x{size:g}' for size in sizes) or 'none'}: with feature maps of strides 4 to 32 "
                "take an image_size from 96 to 512, divided by zoom"
            )
        starts = [min(_STARTS, key=lambda start: abs(start - size)) for size in sizes]
        self.min_sizes = [4 * start // _END for start in starts]
        self.projector = _Projector(channels, projection_width)
        self.discriminator = _Heads(self.projector.out_channels, starts, width, separable)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.discriminator(self.projector(features))


class _Projector(nn.Module):
    """Mixes feature maps by fixed random convolutions; each comes out twice as large."""

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        widths = [width * 2**scale for scale in range(len(channels))]
        self.out_channels = [width, *widths[:-1]]
        mixes: dict[str, nn.Module] = {}
        for scale, (given, mixed, out) in enumerate(zip(channels, widths, self.out_channels, strict=True)):
            mixes[f"layer{scale}_ccm"] = _FixedConv(given, mixed)
            mixes[f"layer{scale}_csm"] = nn.ModuleDict({"out_conv": _FixedConv(mixed, out)})
        self.scratch = nn.ModuleDict(mixes)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        _check_scales(features, len(self.out_channels))
        mixed: list[Tensor] = []
        for scale in reversed(range(len(features))):
            own = self.scratch[f"layer{scale}_ccm"](features[scale])
            own = own + mixed[0] if mixed else own
            own = self.scratch[f"layer{scale}_csm"]["out_conv"](own)  # pyright: ignore[reportIndexIssue]
            mixed.insert(0, F.interpolate(own, scale_factor=2.0, mode="bilinear", align_corners=True))
        return mixed


class _FixedConv(nn.Module):
    """A random 1x1 convolution that is saved, but never trained."""

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        drawn = nn.Conv2d(in_channels, out_channels, 1)
        self.register_buffer("weight", drawn.weight.detach())
        self.register_buffer("bias", None if drawn.bias is None else drawn.bias.detach())

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.weight, self.bias)


class _Heads(nn.Module):
    def __init__(self, channels: Sequence[int], starts: Sequence[int], width: int, separable: bool):
        super().__init__()
        self.mini_discs = nn.ModuleList(
            _Head(given, start, width, separable) for given, start in zip(channels, starts, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits = [head(mixed).flatten(1) for head, mixed in zip(self.mini_discs, maps, strict=True)]
        return torch.cat(logits, 1)[:, None, None, :]


class _Head(nn.Module):
    def __init__(self, channels: int, start: int, width: int, separable: bool):
        super().__init__()
        layers: list[nn.Module] = []
        while start > _END:
            start //= 2
            out_channels = _WIDTHS[start] * width
            layers.append(_Down(channels, out_channels, separable))
            channels = out_channels
        self.main = nn.Sequential(*layers, SpectralLayer(nn.Conv2d(channels, 1, 4, bias=False)))

    def forward(self, features: Tensor) -> Tensor:
        return self.main(features)


class _Down(nn.Module):
    """Halves height and width."""

    def __init__(self, in_channels: int, out_channels: int, separable: bool):
        super().__init__()
        conv = (
            _SeparableConv(in_channels, out_channels)
            if separable
            else SpectralLayer(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1))
        )
        pool = [nn.AvgPool2d(2)] if separable else []
        self.main = nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2), *pool)

    def forward(self, features: Tensor) -> Tensor:
        return self.main(features)


class _SeparableConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.depthwise = SpectralLayer(depthwise)
        self.pointwise = SpectralLayer(nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(features))


def _check_scales(features: Sequence[Tensor], scales: int) -> None:
    shapes = [tuple(feature.shape[-2:]) for feature in features]
    doubled = all(fine == (2 * coarse[0], 2 * coarse[1]) for fine, coarse in pairwise(shapes))
    if len(shapes) != scales or not doubled:
        raise ValueError(
            f"this discriminator takes {scales} feature maps, finest first, each twice as high and wide as the next, "
            f"but these are {', '.join(f'{height}x{width}' for height, width in shapes)}: give it images whose "
            "height and width are multiples of the coarsest stride"
        )


@DISCRIMINATORS.register("projected")
def projected(
    *,
    backbone: str | Callable[[], Backbone] = "efficientnet_lite0",
    image_size: int = 256,
    width: int = 64,
    in_channels: int = 3,
    projection_width: int = 64,
    separable: bool = False,
    zoom: int = 1,
) -> ProjectedDiscriminator:
    """Projected GAN's discriminator: 10,331,328 parameters, 696,512 with ``separable``; 3,335,616 fixed weights.

    For short trainings and few images: it knows much about images from the start, and brings strokes within some
    hundred steps. A generator can also learn patterns that only its backbone likes, so set another beside it, and score
    with another backbone. ``zoom=2`` is for trainings on small crops: it sees them at twice the size.
    """
    return ProjectedDiscriminator(
        backbone,
        in_channels=in_channels,
        image_size=image_size,
        width=width,
        projection_width=projection_width,
        separable=separable,
        zoom=zoom,
    )
