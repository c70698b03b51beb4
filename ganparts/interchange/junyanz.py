"""Weights of the public PyTorch implementation of CycleGAN and pix2pix.

Our networks have its state-dict keys, so what remains is to read kind, depth, width, channels and norm from the
weights themselves. The network is built by name, so that it can be saved with :func:`save_pretrained`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganparts.blocks import Norm
from ganparts.discriminators import PixelDiscriminator
from ganparts.registry import DISCRIMINATORS, GENERATORS

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
    for name, tensor in state_dict.items():
        _check_plain(name, tensor)
    if len({tensor.is_meta for tensor in state_dict.values()}) > 1:
        raise ValueError("some of these tensors are on the meta device, without numbers: load them all to one device")
    weights = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    build = _kind(weights)
    try:
        with torch.device("meta"):  # what does not fit is refused before it takes memory
            network = build(weights)
    except Exception as error:  # names and shapes that no network has make it raise almost anything
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"these weights have the names of a network, but do not fit one: {reason}") from None
    example = next(iter(weights.values()))
    expected = network.state_dict()
    # Instance norms of before PyTorch 0.4 saved statistics that were never used.
    weights = {n: t for n, t in weights.items() if n in expected or not re.search(r"running_|num_batches", n)}
    biases = _biases_that_theirs_lack(network)
    if not biases & weights.keys():
        weights |= {name: torch.zeros_like(expected[name], device=example.device) for name in biases}
    try:
        network.load_state_dict(weights, assign=True)  # the tensors as they are, to see whether they fit
    except RuntimeError as error:
        kind, reason = type(network).__name__, textwrap.shorten(str(error), 500)
        raise ValueError(f"these weights look like a {kind}, but do not fit one: {reason}") from None
    place = partial(torch.Tensor.to, device=example.device, copy=True, memory_format=torch.contiguous_format)
    floats = {name for name, tensor in expected.items() if tensor.is_floating_point()}
    owned = {n: place(t.detach(), dtype=example.dtype if n in floats else t.dtype) for n, t in weights.items()}
    network.load_state_dict(owned, assign=True)
    return network.to(example.device)  # counters that the weights lack


def _check_plain(name: object, tensor: object) -> None:
    """Refuse what is no tensor of floating-point numbers, or none whose numbers are all there."""
    if not isinstance(name, str):
        raise ValueError(f"{name!r:.100} is no name of a tensor: pass the state_dict itself")
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name!r:.100} is not a tensor but {type(tensor).__name__}: pass the state_dict itself")
    counts = name.endswith("num_batches_tracked")
    if tensor.layout != torch.strided or not (tensor.is_floating_point() or counts):
        raise ValueError(f"{name!r:.100} holds no floating-point numbers but {tensor.dtype}, {tensor.layout}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name!r:.100} claims the shape {list(tensor.shape)}, but holds fewer numbers")


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


def _kind(weights: Weights) -> Callable[[Weights], nn.Module]:
    """What builds a network of the right shape, by the layers that only its kind has."""
    if "net.0.weight" in weights:
        return _pixel
    if any(".conv_block." in name for name in weights):
        return _resnet
    if "model.model.0.weight" in weights:
        return _unet
    if "model.0.weight" in weights and weights["model.0.weight"].shape[-1:] == (4,):
        return _patchgan
    shown = textwrap.shorten(", ".join(list(weights)[:4]), 300) or "none"
    raise ValueError(
        f"no ResNet or U-Net generator and no PatchGAN or pixel discriminator has weights of these names: {shown}"
        f"{', ...' if len(weights) > 4 else ''}; pass the state_dict of one network"
    )


def _norm(weights: Weights, layer: str, biased: bool) -> Norm:
    """The norm called ``layer``; ``biased``: whether the convolution before it has a bias."""
    if f"{layer}.weight" in weights:
        # Statistics beside a bias are an old instance norm's: before batch norm the reference has no bias.
        return "batch" if f"{layer}.running_mean" in weights and not biased else "instance_affine"
    return "instance" if biased else "none"


def _indices(weights: Weights, pattern: str) -> list[int]:
    """The numbers that ``pattern`` captures in the names, in order."""
    matches = (re.fullmatch(pattern, name) for name in weights)
    return sorted({int(match[1]) for match in matches if match})


def _pixel(weights: Weights) -> nn.Module:
    width, channels = weights["net.0.weight"].shape[:2]
    norm = _norm(weights, "net.3", "net.2.bias" in weights)
    objectives = len(weights["net.5.weight"])
    return _network(DISCRIMINATORS.create("pixel", in_channels=channels, width=width, objectives=objectives, norm=norm))


def _patchgan(weights: Weights) -> nn.Module:
    width, channels = weights["model.0.weight"].shape[:2]
    convs = [i for i in _indices(weights, r"model\.(\d+)\.weight") if weights[f"model.{i}.weight"].ndim == 4]
    norm = _norm(weights, "model.3", "model.2.bias" in weights)
    objectives = len(weights[f"model.{convs[-1]}.weight"])
    shape = {"in_channels": channels, "width": width, "layers": len(convs) - 2, "objectives": objectives}
    return _network(DISCRIMINATORS.create("patchgan", norm=norm, **shape))


def _resnet(weights: Weights) -> nn.Module:
    width, channels = weights["model.1.weight"].shape[:2]
    blocks = _indices(weights, r"model\.(\d+)\.conv_block\.\d+\.weight")
    if len(blocks) > 100:
        raise ValueError(f"they are of {len(blocks):,} residual blocks, and at most 100 are built")
    last = max(_indices(weights, r"model\.(\d+)\.weight"))
    first, second = (
        i
        for i in _indices(weights, rf"model\.{blocks[0]}\.conv_block\.(\d+)\.weight")
        if weights[f"model.{blocks[0]}.conv_block.{i}.weight"].ndim == 4
    )
    padding = "reflect" if first else "zero"  # a padding layer comes before the convolution
    dropout = 0.5 if second - first == 4 + first else 0.0  # and a dropout layer between the two
    name = "resnet6" if len(blocks) == 6 else "resnet9"
    network = GENERATORS.create(
        name,
        in_channels=channels,
        out_channels=len(weights[f"model.{last}.weight"]),
        width=width,
        norm=_norm(weights, "model.2", "model.1.bias" in weights),
        padding=padding,
        dropout=dropout,
        **({} if len(blocks) in (6, 9) else {"blocks": len(blocks)}),
    )
    return _network(network)


def _unet(weights: Weights) -> nn.Module:
    width, channels = weights["model.model.0.weight"].shape[:2]
    levels = 1 + max(name.count("model.") - 2 for name in weights)
    norm = 2 if levels > 2 else 4  # at the bottom the first norm is on the way up
    network = GENERATORS.create(
        "unet128" if levels == 7 else "unet256",
        in_channels=channels,
        out_channels=weights["model.model.3.weight"].shape[1],
        width=width,
        norm=_norm(weights, f"model.model.1.model.{norm}", f"model.model.1.model.{norm - 1}.bias" in weights),
        **({} if levels in (7, 8) else {"levels": levels}),
    )
    return _network(network)


def _network(part: object) -> nn.Module:
    """A table promises what a part does; that it is a module too, the names of the weights have shown."""
    assert isinstance(part, nn.Module)
    return part
