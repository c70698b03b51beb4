"""Discriminators: modules that map images to logits [B, objectives, H', W'], or to a tuple of such maps."""

from ganparts.discriminators.patchgan import PatchGAN, keras_patchgan, patchgan, patchgan_antialias, two_objective
from ganparts.discriminators.pixel import PixelDiscriminator, pixel
from ganparts.discriminators.projected import FeatureDiscriminator, ProjectedDiscriminator, projected

__all__ = [
    "FeatureDiscriminator",
    "PatchGAN",
    "PixelDiscriminator",
    "ProjectedDiscriminator",
    "keras_patchgan",
    "patchgan",
    "patchgan_antialias",
    "pixel",
    "projected",
    "two_objective",
]
