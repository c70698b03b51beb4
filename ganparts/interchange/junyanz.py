"""Weights of the public PyTorch implementation of CycleGAN and pix2pix.

Our networks have its state-dict keys, so what remains is to read kind, depth, width, channels and norm from the
weights themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganparts.blocks import InstanceNorm2d, Norm
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import ResNetGenerator, UNetGenerator

__all__ = ["from_junyanz"]

Weights = dict[str, Tensor]


def from_junyanz(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The generator or discriminator that a published checkpoint holds, with its weights.

    Kind (ResNet, U-Net, PatchGAN, pixel), depth, width, channels and norm are read from the weights, whose dtype and
    device the network gets. What leaves no trace in them is taken as the reference's default: no dropout in a U-Net,
    reflection padding in a ResNet.

    Args:
        state_dict: the tensors by name, for instance from ``torch.load(file, weights_only=True)``; a prefix
            ``module.`` (from ``nn.DataParallel``) is dropped.

    Raises:
        TypeError: not a mapping.
        ValueError: these are not such weights; the message says what does not fit.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"from_junyanz takes a state_dict, for instance torch.load(file, weights_only=True), but was given a "
            f"{type(state_dict).__name__}"
        )
    weights = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name!r} is not a tensor but {type(tensor).__name__}: pass the state_dict itself")
    network = _network(weights)
    example = next(iter(weights.values()))
    network = network.to(example.device, example.dtype)
    expected = network.state_dict()
    # Instance norms of before PyTorch 0.4 saved statistics that were never used.
    weights = {n: t for n, t in weights.items() if n in expected or not re.search(r"running_|num_batches", n)}
    biases = _biases_that_theirs_lack(network)
    if not biases & weights.keys():
        weights |= {name: torch.zeros_like(expected[name]) for name in biases}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        kind, reason = type(network).__name__, " ".join(str(error).split())
        raise ValueError(f"these weights look like a {kind}, but do not fit one: {reason}") from None
    return network


def _biases_that_theirs_lack(network: nn.Module) -> set[str]:
    """Of convolutions before norm "none", and of the last one of a pixel discriminator with batch norm."""
    biases = set()
    for name, layers in network.named_modules():
        if isinstance(layers, nn.Sequential):
            for (place, _), (_, after) in pairwise(layers.named_children()):
                if isinstance(after, nn.Identity):
                    biases.add(f"{name}.{place}.bias")
    if isinstance(network, PixelDiscriminator) and isinstance(network.net[3], nn.BatchNorm2d | nn.Identity):
        biases.add("net.5.bias")
    return biases


def _network(weights: Weights) -> nn.Module:
    """A network of the right shape, by the layers that only its kind has."""
    if "net.0.weight" in weights:
        return _pixel(weights)
    if any(".conv_block." in name for name in weights):
        return _resnet(weights)
    if "model.model.0.weight" in weights:
        return _unet(weights)
    if "model.0.weight" in weights and weights["model.0.weight"].shape[-1] == 4:
        return _patchgan(weights)
    shown = ", ".join(list(weights)[:4]) or "none"
    raise ValueError(
        f"no ResNet or U-Net generator and no PatchGAN or pixel discriminator has weights of these names: {shown}"
        f"{', ...' if len(weights) > 4 else ''}; pass the state_dict of one network"
    )


def _norm(weights: Weights, layer: str, biased: bool) -> Norm:
    """The norm called ``layer``; ``biased``: whether the convolution before it has a bias."""
    if f"{layer}.weight" in weights:
        return "batch" if f"{layer}.running_mean" in weights else partial(InstanceNorm2d, affine=True)
    return "instance" if biased else "none"


def _indices(weights: Weights, pattern: str) -> list[int]:
    """The numbers that ``pattern`` captures in the names, in order."""
    matches = (re.fullmatch(pattern, name) for name in weights)
    return sorted({int(match[1]) for match in matches if match})


def _pixel(weights: Weights) -> nn.Module:
    width, channels = weights["net.0.weight"].shape[:2]
    norm = _norm(weights, "net.3", "net.2.bias" in weights)
    return PixelDiscriminator(channels, width=width, objectives=len(weights["net.5.weight"]), norm=norm)


def _patchgan(weights: Weights) -> nn.Module:
    width, channels = weights["model.0.weight"].shape[:2]
    convs = [i for i in _indices(weights, r"model\.(\d+)\.weight") if weights[f"model.{i}.weight"].ndim == 4]
    norm = _norm(weights, "model.3", "model.2.bias" in weights)
    objectives = len(weights[f"model.{convs[-1]}.weight"])
    return PatchGAN(channels, width=width, layers=len(convs) - 2, objectives=objectives, norm=norm)


def _resnet(weights: Weights) -> nn.Module:
    width, channels = weights["model.1.weight"].shape[:2]
    blocks = _indices(weights, r"model\.(\d+)\.conv_block\.\d+\.weight")
    last = max(_indices(weights, r"model\.(\d+)\.weight"))
    first, second = (
        i
        for i in _indices(weights, rf"model\.{blocks[0]}\.conv_block\.(\d+)\.weight")
        if weights[f"model.{blocks[0]}.conv_block.{i}.weight"].ndim == 4
    )
    padding = "reflect" if first else "zero"  # a padding layer comes before the convolution
    dropout = 0.5 if second - first == 4 + first else 0.0  # and a dropout layer between the two
    return ResNetGenerator(
        channels,
        len(weights[f"model.{last}.weight"]),
        width=width,
        blocks=len(blocks),
        norm=_norm(weights, "model.2", "model.1.bias" in weights),
        padding=padding,
        dropout=dropout,
    )


def _unet(weights: Weights) -> nn.Module:
    width, channels = weights["model.model.0.weight"].shape[:2]
    levels = 1 + max(name.count("model.") - 2 for name in weights)
    norm = 2 if levels > 2 else 4  # at the bottom the first norm is on the way up
    return UNetGenerator(
        channels,
        weights["model.model.3.weight"].shape[1],
        width=width,
        levels=levels,
        norm=_norm(weights, f"model.model.1.model.{norm}", f"model.model.1.model.{norm - 1}.bias" in weights),
    )
