"""Generators: modules that map images [B, C, H, W] in [-1, 1] to images of the same size."""

from ganparts.generators.attention_gan import AttentionGANGenerator, attention_gan
from ganparts.generators.features import ChainGenerator
from ganparts.generators.ganilla import GANILLAGenerator, ganilla
from ganparts.generators.keras_unet import KerasUNetGenerator, keras_unet256
from ganparts.generators.painter import painter
from ganparts.generators.resnet import ResidualBlock, ResNetGenerator, resnet6, resnet9
from ganparts.generators.resnet_antialias import AntialiasedResNetGenerator, resnet6_antialias, resnet9_antialias
from ganparts.generators.timm_unet import TimmUNetGenerator, timm_unet
from ganparts.generators.ugatit import (
    AdaLIN,
    Attended,
    LayerInstanceNorm2d,
    UGATITGenerator,
    layer_instance_norm,
    ugatit,
)
from ganparts.generators.unet import AttentionGate, UNetGenerator, attention_unet256, unet128, unet256
from ganparts.generators.unet_vit import UNetViTGenerator, unet_vit

__all__ = [
    "AdaLIN",
    "AntialiasedResNetGenerator",
    "Attended",
    "AttentionGANGenerator",
    "AttentionGate",
    "ChainGenerator",
    "GANILLAGenerator",
    "KerasUNetGenerator",
    "LayerInstanceNorm2d",
    "ResNetGenerator",
    "ResidualBlock",
    "TimmUNetGenerator",
    "UGATITGenerator",
    "UNetGenerator",
    "UNetViTGenerator",
    "attention_gan",
    "attention_unet256",
    "ganilla",
    "keras_unet256",
    "layer_instance_norm",
    "painter",
    "resnet6",
    "resnet6_antialias",
    "resnet9",
    "resnet9_antialias",
    "timm_unet",
    "ugatit",
    "unet128",
    "unet256",
    "unet_vit",
]
