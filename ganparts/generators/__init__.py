"""Generators: modules that map images [B, C, H, W] in [-1, 1] to images of the same size."""

from ganparts.generators.keras_unet import KerasUNetGenerator, keras_unet256
from ganparts.generators.painter import painter
from ganparts.generators.resnet import ResidualBlock, ResNetGenerator, resnet6, resnet9
from ganparts.generators.resnet_antialias import AntialiasedResNetGenerator, resnet6_antialias, resnet9_antialias
from ganparts.generators.unet import AttentionGate, UNetGenerator, attention_unet256, unet128, unet256

__all__ = [
    "AntialiasedResNetGenerator",
    "AttentionGate",
    "KerasUNetGenerator",
    "ResNetGenerator",
    "ResidualBlock",
    "UNetGenerator",
    "attention_unet256",
    "keras_unet256",
    "painter",
    "resnet6",
    "resnet6_antialias",
    "resnet9",
    "resnet9_antialias",
    "unet128",
    "unet256",
]
