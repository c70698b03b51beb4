"""Weights of pix2pixHD's discriminator (arXiv 1711.11585), which judges images at several scales.

A checkpoint that was trained with feature matching calls its layers ``scale0_layer1.0``, one without ``layer0.2``.
"""

from __future__ import annotations

from torch import nn

from ganparts.discriminators.multiscale import plain_key
from ganparts.interchange.weights import Builder, Weights, as_module, layer_numbers, norm_of
from ganparts.registry import DISCRIMINATORS

__all__ = ["find_builder", "plain_names"]


def plain_names(weights: Weights) -> Weights:
    """The same tensors, with the names that a checkpoint without feature matching has."""
    return {plain_key(name): tensor for name, tensor in weights.items()}


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network for these weights, or None if they are not this discriminator's."""
    return _multiscale if "layer0.0.weight" in weights else None


def _multiscale(weights: Weights) -> nn.Module:
    width, channels = weights["layer0.0.weight"].shape[:2]
    convs = layer_numbers(weights, r"layer0\.(\d+)\.weight", dimensions=4)
    norm = norm_of(weights, "layer0.3", biased="layer0.2.bias" in weights)
    if norm == "instance_affine" and "layer0.3.running_mean" in weights:  # here batch norm comes after a bias, too
        raise ValueError("its convolutions have biases before batch norm, which ours do not have")
    discriminator = DISCRIMINATORS.create(
        "multiscale_patchgan",
        in_channels=channels,
        width=width,
        scales=len(layer_numbers(weights, r"layer(\d+)\.0\.weight")),
        layers=len(convs) - 2,
        objectives=len(weights[f"layer0.{convs[-1]}.weight"]),
        norm=norm,
    )
    return as_module(discriminator)
