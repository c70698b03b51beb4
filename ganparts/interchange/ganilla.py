"""Weights of GANILLA's generator (arXiv 2002.05638), with the blocks of ResNet-18 or of ResNet-34.

Its discriminator is a PatchGAN with the names of the CycleGAN family.
"""

from __future__ import annotations

from torch import nn

from ganparts.interchange.weights import Builder, Weights, as_module, layer_numbers
from ganparts.registry import GENERATORS

__all__ = ["find_builder"]

_DEPTHS = {2: 18, 6: 34}  # by the blocks of the third stage


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network for these weights, or None if they are not GANILLA's."""
    return _generator if "fpn.P5_1.weight" in weights else None


def _generator(weights: Weights) -> nn.Module:
    width, channels = weights["conv1.weight"].shape[:2]
    blocks = len(layer_numbers(weights, r"layer3\.(\d+)\.conv1\.weight"))
    if blocks not in _DEPTHS:
        raise ValueError(f"its third stage has {blocks} blocks, but GANILLA's has 2 (as ResNet-18) or 6 (ResNet-34)")
    generator = GENERATORS.create(
        "ganilla",
        in_channels=channels,
        out_channels=len(weights["conv2.weight"]),
        width=width,
        depth=_DEPTHS[blocks],
    )
    return as_module(generator)
