"""CycleGAN: the assembly of parts, its losses, its training step and its presets."""

from ganparts.cyclegan.assembly import CycleGAN, Translation, build_cyclegan
from ganparts.cyclegan.losses import discriminator_loss, generator_loss
from ganparts.cyclegan.optimizers import Optimizers, make_optimizers
from ganparts.cyclegan.presets import PRESETS, LossWeights, Preset
from ganparts.cyclegan.schedules import ConstantThenLinear, PiecewiseConstant
from ganparts.cyclegan.step import train_step

__all__ = [
    "PRESETS",
    "ConstantThenLinear",
    "CycleGAN",
    "LossWeights",
    "Optimizers",
    "PiecewiseConstant",
    "Preset",
    "Translation",
    "build_cyclegan",
    "discriminator_loss",
    "generator_loss",
    "make_optimizers",
    "train_step",
]
