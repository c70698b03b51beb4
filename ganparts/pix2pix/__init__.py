"""pix2pix: translation learned from aligned pairs."""

from ganparts.pix2pix.assembly import Pix2Pix, build_pix2pix
from ganparts.pix2pix.presets import Pix2PixPreset

__all__ = ["Pix2Pix", "Pix2PixPreset", "build_pix2pix"]
