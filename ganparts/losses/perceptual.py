"""Consistency losses in the features of a frozen network: content may change its pixels, not what is seen in it.

LPIPS: Zhang et al. 2018, arXiv 1801.03924, version 0.1, with the trunks AlexNet and VGG16. It deviates from its source
in one place: where a feature vector is all zero its gradient is finite, not NaN.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ganparts.backbones import Backbone, UnavailableError, create_backbone
from ganparts.backbones.weights import build_quietly, is_planning, read_weights, wrong_weights
from ganparts.blocks import one_of
from ganparts.precision import at_least_fp32
from ganparts.registry import BACKBONES, CONSISTENCY_LOSSES

__all__ = ["LPIPS", "FeatureLoss", "feature_distance", "features", "lpips", "lpips_distance"]

_SMALL = 1e-10  # LPIPS adds it to the length of a feature vector


def feature_distance(prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of feature maps, relative to the target's own mean square; the mean over the maps.

    0 if they are equal; about 2 if they are unrelated and of one size. The division is made image by image, so that an
    image with weak features counts as much as another.

    Args:
        prediction: feature maps [B, C, H, W].
        target: as many, of the same shapes.

    Returns:
        A scalar.
    """
    terms = []
    for ours, theirs in zip(prediction, target, strict=True):
        ours, theirs = at_least_fp32(ours), at_least_fp32(theirs)
        own = theirs.square().mean((1, 2, 3)).clamp_min(1e-8)
        terms.append(((ours - theirs).square().mean((1, 2, 3)) / own).mean())
    return torch.stack(terms).mean()


def lpips_distance(features0: Sequence[Tensor], features1: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """LPIPS of feature maps: [B], 0 for equal ones.

    Every feature vector is brought to unit length. The squared differences are weighted by channel, averaged over
    places and summed over the maps.

    Args:
        features0: feature maps [B, C, H, W].
        features1: as many, of the same shapes.
        weights: one [C] for each, not negative.
    """
    terms = []
    for first, second, weight in zip(features0, features1, weights, strict=True):
        squared = (_unit(first) - _unit(second)).square()
        terms.append((squared * weight.to(squared)[:, None, None]).sum(1).mean((1, 2)))
    return torch.stack(terms).sum(0)


def _unit(features: Tensor) -> Tensor:
    wide = at_least_fp32(features)  # squares overflow half precision
    squares = wide.square().sum(1, keepdim=True)
    present = squares > 0
    length = torch.where(present, squares, 1).sqrt()  # the root of 0 has no gradient
    return wide / torch.where(present, length + _SMALL, 1)


class FeatureLoss(nn.Module):
    """:func:`feature_distance` of two image batches [B, 3, H, W] in [-1, 1]: a scalar.

    The target gets no gradient. The backbone is neither saved nor copied.

    Args:
        backbone: a registered name (``timm:resnet18`` for short), or a builder without arguments.
        strides: the feature maps compared, by their strides in pixels.

    Raises:
        ValueError: the backbone has no feature map of such a stride.
        UnavailableError: the backbone's package or weights are not here.
    """

    def __init__(
        self, backbone: str | Callable[[], Backbone] = "efficientnet_lite0", *, strides: Sequence[int] = (8, 16, 32)
    ):
        super().__init__()
        self.backbone = create_backbone(backbone)
        self.strides = tuple(strides)
        if not self.strides or not set(self.strides) <= set(self.backbone.strides):
            raise ValueError(
                f"strides={list(self.strides)}: this backbone has feature maps of the strides "
                f"{list(self.backbone.strides)}; choose from them"
            )

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._features(target)
        return feature_distance(self._features(prediction), wanted)

    def _features(self, images: Tensor) -> list[Tensor]:
        maps = zip(self.backbone.strides, self.backbone(images), strict=True)
        return [features for stride, features in maps if stride in self.strides]


class LPIPS(nn.Module):
    """:func:`lpips_distance` of two image batches [B, 3, H, W] in [-1, 1]: a scalar, the mean over the batch.

    The target gets no gradient. Nothing of it is saved.

    Args:
        backbone: a trunk, from a builder without arguments or by its name.
        weights: one [C] for each of its feature maps.

    Raises:
        ValueError: the weights do not fit the trunk.
        UnavailableError: the trunk's package or weights are not here.
    """

    def __init__(self, backbone: str | Callable[[], Backbone], weights: Sequence[Tensor]):
        super().__init__()
        self.backbone = create_backbone(backbone)
        if [tuple(weight.shape) for weight in weights] != [(channels,) for channels in self.backbone.channels]:
            raise ValueError(
                f"LPIPS needs weights of {list(self.backbone.channels)} channels for this trunk, but these have the "
                f"shapes {[list(weight.shape) for weight in weights]}: take the file made for it"
            )
        for layer, weight in enumerate(weights):
            self.register_buffer(f"weight_{layer}", weight, persistent=False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.backbone(target)
        weights = [self.get_buffer(f"weight_{layer}") for layer in range(len(wanted))]
        return lpips_distance(self.backbone(prediction), wanted, weights).mean()


@CONSISTENCY_LOSSES.register("features")
def features(
    *, backbone: str | Callable[[], Backbone] = "efficientnet_lite0", strides: Sequence[int] = (8, 16, 32)
) -> FeatureLoss:
    """Relative squared difference of a frozen network's features.

    For keeping content while every pixel may change: what a network sees stays, colours and strokes need not.
    """
    return FeatureLoss(backbone, strides=strides)


@CONSISTENCY_LOSSES.register("lpips")
def lpips(
    *,
    trunk: Literal["alexnet", "vgg16"] = "alexnet",
    trunk_weights: Path | str | None = None,
    weights: Path | str | None = None,
) -> LPIPS:
    """LPIPS 0.1.

    For differences as people see them. Its networks must be downloaded.

    Args:
        trunk: the network whose features are compared.
        trunk_weights: its file; None: torchvision downloads it once; ``"random"`` for tests.
        weights: the file of LPIPS's own weights, ``alex.pth`` or ``vgg.pth``; None: that of torchmetrics, if it is
            installed (``pip install 'ganparts[metrics]'``); ``"random"`` for tests.

    Raises:
        UnavailableError: weights are not here, or a file holds something else.
        ValueError: an unknown trunk.
    """
    names = {"alexnet": "alex", "vgg16": "vgg"}
    one_of("trunk", trunk, names)
    backbone = BACKBONES.create(trunk, weights=trunk_weights)
    assert isinstance(backbone, Backbone)
    if weights == "random" or is_planning():
        return LPIPS(lambda: backbone, _random(backbone.channels))
    path = Path(weights) if weights else _torchmetrics_file(names[trunk])
    held = read_weights(path)
    try:
        linear = [held[f"lin{layer}.model.1.weight"].reshape(-1) for layer in range(len(backbone.channels))]
        return LPIPS(lambda: backbone, linear)
    except (KeyError, ValueError, AttributeError) as error:
        raise wrong_weights(path, f"lpips of {trunk}", error) from None


def _random(channels: Sequence[int]) -> list[Tensor]:
    drawn = build_quietly(lambda: nn.ParameterList(torch.rand(count) / count for count in channels))
    return [weight.detach() for weight in drawn]


def _torchmetrics_file(name: str) -> Path:
    found = importlib.util.find_spec("torchmetrics")
    file = Path(found.origin or "").parent / "functional" / "image" / "lpips_models" / f"{name}.pth" if found else None
    if file is None or not file.is_file():
        raise UnavailableError(
            f"LPIPS's own weights {name}.pth are not here: give their file, weights=PATH, or pip install "
            "'ganparts[metrics]', whose torchmetrics has them"
        )
    return file
