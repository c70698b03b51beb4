"""Weights of AttentionGAN's generator (arXiv 1911.11897). Its discriminator is a PatchGAN of the CycleGAN family."""

from __future__ import annotations

from torch import nn

from ganparts.interchange.weights import Builder, Weights, as_module, layer_numbers, norm_of
from ganparts.registry import GENERATORS

__all__ = ["find_builder"]

_PICTURES = 9


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network for these weights, or None if they are not AttentionGAN's."""
    return _generator if "deconv3_attention.weight" in weights else None


def _generator(weights: Weights) -> nn.Module:
    width, channels = weights["conv1.weight"].shape[:2]
    generator = GENERATORS.create(
        "attention_gan",
        in_channels=channels,
        out_channels=len(weights["deconv3_content.weight"]) // _PICTURES,
        width=width,
        blocks=len(layer_numbers(weights, r"resnet_blocks\.(\d+)\.conv1\.weight", most=100)),
        norm=norm_of(weights, "norm1", biased="conv1.bias" in weights),
    )
    return as_module(generator)
