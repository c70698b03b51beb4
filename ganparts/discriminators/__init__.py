"""Discriminators: modules that map images to logits [B, objectives, H', W'], or to a tuple of such maps."""

from ganparts.discriminators.batch_head import BatchHeadDiscriminator, FeatureQueue, batch_head
from ganparts.discriminators.multiscale import MultiScalePatchGAN, MUNITDiscriminator, multiscale_patchgan, munit
from ganparts.discriminators.patchgan import PatchGAN, keras_patchgan, patchgan, patchgan_antialias, two_objective
from ganparts.discriminators.pixel import PixelDiscriminator, pixel
from ganparts.discriminators.projected import FeatureDiscriminator, ProjectedDiscriminator, projected
from ganparts.discriminators.r3gan import R3GANDiscriminator, r3gan
from ganparts.discriminators.spectral_patchgan import SpectralPatchGAN, spectral_patchgan
from ganparts.discriminators.stylegan2 import StyleGAN2Discriminator, stylegan2
from ganparts.discriminators.ugatit import UGATITDiscriminator, ugatit_global, ugatit_local
from ganparts.discriminators.unet import UNetDiscriminator, unet_discriminator

__all__ = [
    "BatchHeadDiscriminator",
    "FeatureDiscriminator",
    "FeatureQueue",
    "MUNITDiscriminator",
    "MultiScalePatchGAN",
    "PatchGAN",
    "PixelDiscriminator",
    "ProjectedDiscriminator",
    "R3GANDiscriminator",
    "SpectralPatchGAN",
    "StyleGAN2Discriminator",
    "UGATITDiscriminator",
    "UNetDiscriminator",
    "batch_head",
    "keras_patchgan",
    "multiscale_patchgan",
    "munit",
    "patchgan",
    "patchgan_antialias",
    "pixel",
    "projected",
    "r3gan",
    "spectral_patchgan",
    "stylegan2",
    "two_objective",
    "ugatit_global",
    "ugatit_local",
    "unet_discriminator",
]
