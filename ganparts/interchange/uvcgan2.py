"""Weights of UVCGAN2 (arXiv 2303.16280): the generator with a transformer, and the two discriminators.

The source's networks take images in [0, 1]; ours take them in [-1, 1] and convert them inside.
"""

from __future__ import annotations

from itertools import count, takewhile

from torch import nn

from ganparts.interchange.weights import Builder, Weights, as_module, layer_numbers
from ganparts.registry import DISCRIMINATORS, GENERATORS

__all__ = ["find_builder"]

_HEADS = 6
_LEAST_CHANNELS = 8  # of a head
_INNER = "inner_module."


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network for these weights, or None if they are not UVCGAN2's."""
    if "net.modnet.conv.downsample.weight" in weights:
        return _generator
    return _discriminator if "_body.model.0.parametrizations.weight.original" in weights else None


def _generator(weights: Weights) -> nn.Module:
    def level(depth: int) -> str:
        return f"net.modnet.{_INNER * depth}conv.downsample.weight"

    levels = [len(weights[level(depth)]) for depth in takewhile(lambda depth: level(depth) in weights, count())]
    inside = f"net.modnet.{_INNER * len(levels)}"
    hidden, channels = weights[f"{inside}encoder.encoder.0.ffn.net.0.weight"].shape
    generator = GENERATORS.create(
        "unet_vit",
        in_channels=weights["net.layer_input.0.weight"].shape[1],
        out_channels=len(weights["net.layer_output.weight"]),
        levels=levels,
        channels=channels,
        heads=_heads(channels),
        blocks=len(layer_numbers(weights, rf"{inside}encoder\.encoder\.(\d+)\.re_alpha", most=100)),
        hidden=hidden,
        code=len(weights[f"{inside}trans_input.embed.projector.weight"]),
    )
    return as_module(generator)


def _heads(channels: int) -> int:
    """Attention heads leave no trace in the weights: 6 as published, or fewer so that each has at least 8 channels."""
    fitting = (heads for heads in range(_HEADS, 1, -1) if channels % heads == 0 and channels >= _LEAST_CHANNELS * heads)
    return next(fitting, 1)


def _discriminator(weights: Weights) -> nn.Module:
    width, channels = weights["_body.model.0.parametrizations.weight.original"].shape[:2]
    convs = layer_numbers(weights, r"_body\.model\.(\d+)\.parametrizations\.weight\.original")
    by_norm = "_head.norm.weight" in weights
    discriminator = DISCRIMINATORS.create(
        "batch_head",
        in_channels=channels,
        width=width,
        layers=len(convs) - 1,
        objectives=len(weights[f"_head.net.{2 if by_norm else 3}.weight"]),
        head="batch_norm" if by_norm else "batch_stdev",
    )
    return as_module(discriminator)
