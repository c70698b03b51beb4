"""Weights of the public PyTorch implementation of CycleGAN and pix2pix.

Our networks have its state-dict keys, so what remains is to read kind, depth, width, channels and norm from the
weights themselves. The network is built by name, so that it can be saved with :func:`save_pretrained`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from ganparts.interchange.weights import (
    Builder,
    Weights,
    as_module,
    checked_weights,
    layer_numbers,
    norm_of,
    with_weights,
)
from ganparts.registry import DISCRIMINATORS, GENERATORS

__all__ = ["find_builder", "from_junyanz", "patchgan_builder", "resnet_builder"]


def from_junyanz(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The generator or discriminator that a published checkpoint of this family holds, with its weights.

    Kind (ResNet, U-Net, PatchGAN, pixel), depth, width, channels and norm are read from the weights, whose dtype and
    device the network gets. What leaves no trace in them is taken as the reference's default: no dropout in a U-Net,
    reflection padding in a ResNet. For other families see :func:`~ganparts.interchange.from_published`.

    Args:
        state_dict: the tensors by name, for instance from ``torch.load(file, weights_only=True)``; a prefix
            ``module.`` (from ``nn.DataParallel``) is dropped.

    Raises:
        TypeError: not a mapping.
        ValueError: these are not such weights; the message says what does not fit.
    """
    weights = checked_weights(state_dict, caller="from_junyanz")
    build = find_builder(weights)
    if build is None:
        shown = textwrap.shorten(", ".join(list(weights)[:4]), 300) or "none"
        raise ValueError(
            f"no ResNet or U-Net generator and no PatchGAN or pixel discriminator has weights of these names: {shown}"
            f"{', ...' if len(weights) > 4 else ''}; pass the state_dict of one network"
        )
    return with_weights(build, weights)


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network of the right shape, by the layers that only its kind has; None for another family's."""
    if "net.0.weight" in weights:
        return _pixel
    if any(name.startswith("model.") and ".conv_block." in name for name in weights):
        return partial(resnet_builder, names={6: "resnet6"}, otherwise="resnet9")
    if "model.model.0.weight" in weights:
        return _unet
    if "model.0.weight" in weights and weights["model.0.weight"].shape[-1:] == (4,):
        return partial(patchgan_builder, name="patchgan", norm="model.3", before="model.2")
    return None


def _pixel(weights: Weights) -> nn.Module:
    width, channels = weights["net.0.weight"].shape[:2]
    norm = norm_of(weights, "net.3", biased="net.2.bias" in weights)
    objectives = len(weights["net.5.weight"])
    pixel = DISCRIMINATORS.create("pixel", in_channels=channels, width=width, objectives=objectives, norm=norm)
    return as_module(pixel)


def patchgan_builder(weights: Weights, *, name: str, norm: str, before: str) -> nn.Module:
    """The PatchGAN of these weights.

    Args:
        weights: with the reference's names.
        name: of the part.
        norm: name of its first norm.
        before: name of the convolution before that.
    """
    width, channels = weights["model.0.weight"].shape[:2]
    convs = layer_numbers(weights, r"model\.(\d+)\.weight", dimensions=4)
    patchgan = DISCRIMINATORS.create(
        name,
        in_channels=channels,
        width=width,
        layers=len(convs) - 2,
        objectives=len(weights[f"model.{convs[-1]}.weight"]),
        norm=norm_of(weights, norm, biased=f"{before}.bias" in weights),
    )
    return as_module(patchgan)


def resnet_builder(weights: Weights, *, names: Mapping[int, str], otherwise: str) -> nn.Module:
    """The ResNet generator of these weights.

    Args:
        weights: with the reference's names.
        names: of the parts that have a fixed number of residual blocks, by that number.
        otherwise: name of the part for any other number, 9 by default.
    """
    width, channels = weights["model.1.weight"].shape[:2]
    blocks = layer_numbers(weights, r"model\.(\d+)\.conv_block\.\d+\.weight")
    if len(blocks) > 100:
        raise ValueError(f"they are of {len(blocks):,} residual blocks, and at most 100 are built")
    last = max(layer_numbers(weights, r"model\.(\d+)\.weight"))
    first, second = layer_numbers(weights, rf"model\.{blocks[0]}\.conv_block\.(\d+)\.weight", dimensions=4)
    padding = "reflect" if first else "zero"  # a padding layer comes before the convolution
    dropout = 0.5 if second - first == 4 + first else 0.0  # and a dropout layer between the two
    generator = GENERATORS.create(
        names.get(len(blocks), otherwise),
        in_channels=channels,
        out_channels=len(weights[f"model.{last}.weight"]),
        width=width,
        norm=norm_of(weights, "model.2", biased="model.1.bias" in weights),
        padding=padding,
        dropout=dropout,
        **({} if len(blocks) in (*names, 9) else {"blocks": len(blocks)}),
    )
    return as_module(generator)


def _unet(weights: Weights) -> nn.Module:
    width, channels = weights["model.model.0.weight"].shape[:2]
    levels = 1 + max(name.count("model.") - 2 for name in weights)
    norm = 2 if levels > 2 else 4  # at the bottom the first norm is on the way up
    generator = GENERATORS.create(
        "unet128" if levels == 7 else "unet256",
        in_channels=channels,
        out_channels=weights["model.model.3.weight"].shape[1],
        width=width,
        norm=norm_of(weights, f"model.model.1.model.{norm}", biased=f"model.model.1.model.{norm - 1}.bias" in weights),
        **({} if levels in (7, 8) else {"levels": levels}),
    )
    return as_module(generator)
