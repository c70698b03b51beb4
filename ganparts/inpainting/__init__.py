"""Training a generator to fill holes in images, before a GAN goes on with it."""

from ganparts.inpainting.assembly import Inpainting, build_inpainting
from ganparts.inpainting.holes import Distortion, Holes
from ganparts.inpainting.presets import CosineRestarts, InpaintingPreset

__all__ = ["CosineRestarts", "Distortion", "Holes", "Inpainting", "InpaintingPreset", "build_inpainting"]
