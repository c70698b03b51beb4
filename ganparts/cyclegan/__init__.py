"""CycleGAN: the assembly of parts, its training step and its presets."""

from ganparts.cyclegan.assembly import CycleGAN, Translation, build_cyclegan
from ganparts.cyclegan.penalties import QueuedZeroCentered
from ganparts.cyclegan.presets import LossWeights, Preset

__all__ = ["CycleGAN", "LossWeights", "Preset", "QueuedZeroCentered", "Translation", "build_cyclegan"]
