"""The trunks of AlexNet and VGG16 that LPIPS was calibrated on (Zhang et al. 2018, arXiv 1801.03924).

torchvision's networks, cut after the activations that are compared. None of their weights ships with a package: they
come from a file, or torchvision downloads them once. Images are normalised as torchvision's weights want it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.backbones.backbone import Backbone, share_backbone
from ganparts.backbones.networks import weights_key
from ganparts.backbones.weights import build_quietly, is_planning, load_into
from ganparts.optional import UnavailableError, require
from ganparts.registry import BACKBONES

__all__ = ["alexnet", "vgg16"]

_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet, in [-1, 1]


@BACKBONES.register("alexnet")
def alexnet(*, weights: Path | str | None = None) -> Backbone:
    """AlexNet, relu1 to relu5: 64, 192, 384, 256 and 256 channels.

    Args:
        weights: torchvision's file ``alexnet-owt-7be5be79.pth``, or a file of the convolutions alone; None: it is
            downloaded once (233 MB); ``"random"`` for random weights, always the same.

    Raises:
        UnavailableError: no torchvision, no such file, no network, or a file that holds something else.
    """
    return _trunk(
        "alexnet", "AlexNet_Weights", weights, (2, 5, 8, 10, 12), (64, 192, 384, 256, 256), (4, 8, 16, 16, 16), 31
    )


@BACKBONES.register("vgg16")
def vgg16(*, weights: Path | str | None = None) -> Backbone:
    """VGG16, relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3: 64, 128, 256, 512 and 512 channels.

    Args:
        weights: torchvision's file ``vgg16-397923af.pth``, or a file of the convolutions alone; None: it is downloaded
            once (528 MB); ``"random"`` for random weights, always the same.

    Raises:
        UnavailableError: no torchvision, no such file, no network, or a file that holds something else.
    """
    channels, strides = (64, 128, 256, 512, 512), (1, 2, 4, 8, 16)
    return _trunk("vgg16", "VGG16_Weights", weights, (4, 9, 16, 23, 30), channels, strides, 16)


class _Trunk(nn.Module):
    """Convolutions with the outputs of some of their layers.

    Args:
        layers: the convolutions and activations.
        ends: how many layers come before each output.
        least: height and width, in pixels, below which nothing is left after the last pooling.
    """

    def __init__(self, layers: nn.Sequential, ends: Sequence[int], least: int):
        super().__init__()
        self.features, self.ends, self.least = layers[: ends[-1]], ends, least

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[-2:]
        if min(height, width) < self.least:
            raise ValueError(f"images of {height}x{width} are too small for this trunk: give at least {self.least}")
        outputs, features = [], images
        for index, layer in enumerate(self.features, start=1):
            features = layer(features)
            if index in self.ends:
                outputs.append(features)
        return tuple(outputs)


def _trunk(
    name: str,
    pretrained: str,
    weights: Path | str | None,
    ends: Sequence[int],
    channels: Sequence[int],
    strides: Sequence[int],
    least: int,
) -> Backbone:
    def build() -> Backbone:
        models = require("torchvision.models", "torchvision")
        trunk = build_quietly(lambda: _Trunk(_features(getattr(models, name)), ends, least))
        if weights is None and not is_planning():
            try:
                held = getattr(models, pretrained).DEFAULT.get_state_dict(progress=True, check_hash=True)
            except (OSError, RuntimeError) as error:  # no network, or a download cut short
                advice = f"give torchvision's file, BACKBONES.create({name!r}, weights=PATH)"
                raise UnavailableError(f"the weights of {name} cannot be downloaded ({error}): {advice}") from None
            trunk.load_state_dict({key: value for key, value in held.items() if _is_kept(key)})
        elif weights not in (None, "random") and not is_planning():
            load_into(trunk, Path(str(weights)), name=name, keep=_is_kept)
        return Backbone(trunk, channels=channels, strides=strides, mean=_MEAN, std=_STD)

    return share_backbone((name, weights_key(weights)), build)


def _is_kept(key: str) -> bool:
    return not key.startswith("classifier.")


def _features(build: Callable[[], nn.Module]) -> Any:
    """The convolutions of a network of torchvision, without ever allocating its classifier of up to 500 MB."""
    with torch.device("meta"):
        features: Any = build().features
    features.to_empty(device=torch.empty(0).device)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.ReLU):
            layer.inplace = False  # what comes before it may be an output
    return features
