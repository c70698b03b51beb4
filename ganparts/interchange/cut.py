"""Weights of CUT (arXiv 2007.15651): its antialiased generator and discriminator, and the projector F.

The names are those of the CycleGAN family. Beside them are the blurs' filters, ``model.7.filt``. What CUT trained
without antialiasing is read as that family. The projector is not a registered part: it trains a generator and is not
needed afterwards.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ganparts.interchange.junyanz import patchgan_builder, resnet_builder
from ganparts.interchange.weights import Builder, Weights, layer_numbers
from ganparts.losses import PatchProjector

__all__ = ["find_builder"]


def find_builder(weights: Weights) -> Builder | None:
    """What builds a network for these weights, or None if they are not CUT's."""
    if "mlp_0.0.weight" in weights:
        return _projector
    if not any(name.endswith(".filt") for name in weights):
        return None
    if any(".conv_block." in name for name in weights):
        return partial(resnet_builder, names={6: "resnet6_antialias"}, otherwise="resnet9_antialias")
    if "model.0.weight" in weights:
        return partial(patchgan_builder, name="patchgan_antialias", norm="model.4", before="model.3")
    return None


def _projector(weights: Weights) -> nn.Module:
    layers = layer_numbers(weights, r"mlp_(\d+)\.0\.weight")
    channels = [weights[f"mlp_{layer}.0.weight"].shape[1] for layer in layers]
    return PatchProjector(channels, width=len(weights["mlp_0.0.weight"]))
