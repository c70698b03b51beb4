"""Weights of U-GAT-IT (arXiv 1907.10830), of its PyTorch version: generators, full and light, and discriminators."""

from __future__ import annotations

import math

from torch import nn

from ganparts.interchange.weights import Builder, Weights, as_module, layer_numbers
from ganparts.registry import DISCRIMINATORS, GENERATORS

__all__ = ["find_builder"]


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network for these weights, or None if they are not U-GAT-IT's."""
    if "DownBlock.1.weight" in weights:
        return _generator
    return _discriminator if "gap_fc.weight_orig" in weights else None


def _generator(weights: Weights) -> nn.Module:
    width, channels = weights["DownBlock.1.weight"].shape[:2]
    inner, flat = weights["FC.0.weight"].shape
    light = flat == inner
    last = max(layer_numbers(weights, r"UpBlock2\.(\d+)\.weight"))
    blocks = layer_numbers(weights, r"UpBlock1_(\d+)\.conv1\.weight", most=100)
    generator = GENERATORS.create(
        "ugatit",
        in_channels=channels,
        out_channels=len(weights[f"UpBlock2.{last}.weight"]),
        width=width,
        blocks=len(blocks),
        light=light,
        **({} if light else {"img_size": 4 * math.isqrt(flat // inner)}),
    )
    return as_module(generator)


def _discriminator(weights: Weights) -> nn.Module:
    width, channels = weights["model.1.weight_orig"].shape[:2]
    layers = 1 + len(layer_numbers(weights, r"model\.(\d+)\.weight_orig"))
    discriminator = DISCRIMINATORS.create(
        "ugatit_global" if layers == 7 else "ugatit_local",
        in_channels=channels,
        width=width,
        **({} if layers in (5, 7) else {"layers": layers}),
    )
    return as_module(discriminator)
