"""Weights of Projected GAN's discriminator (arXiv 2111.01007) without the backbone that sees the images.

What is read is a :class:`~ganparts.discriminators.FeatureDiscriminator`, which takes the backbone's feature maps.
"""

from __future__ import annotations

from torch import nn

from ganparts.discriminators import FeatureDiscriminator
from ganparts.interchange.weights import Builder, Weights, layer_numbers

__all__ = ["find_builder"]

_END = 8  # height and width at which a head stops halving, and its channels there in units of ``width``


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network for these weights, or None if they are not this discriminator's."""
    return _heads if "projector.scratch.layer0_ccm.weight" in weights else None


def _heads(weights: Weights) -> nn.Module:
    scales = layer_numbers(weights, r"projector\.scratch\.layer(\d+)_ccm\.weight", most=16)
    mixes = [weights[f"projector.scratch.layer{scale}_ccm.weight"] for scale in scales]
    halvings, width = [], 1
    for scale in scales:
        head = rf"discriminator\.mini_discs\.{scale}\.main\.(\d+)\."
        last = max(layer_numbers(weights, head + "weight_orig"))
        halvings.append(len(layer_numbers(weights, head + r"main\.1\.weight")))
        if last:
            width = weights[f"discriminator.mini_discs.{scale}.main.{last}.weight_orig"].shape[1] // _END
    return FeatureDiscriminator(
        [mix.shape[1] for mix in mixes],
        [_END * 2**count for count in halvings],
        width=width,
        projection_width=len(mixes[0]),
        separable=any(".depthwise." in name for name in weights),
    )
