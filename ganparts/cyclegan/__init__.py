"""CycleGAN: the assembly of parts, its losses, its training step and its presets."""

from ganparts.cyclegan.assembly import CycleGAN, Translation, build_cyclegan
from ganparts.cyclegan.averaging import AveragedGenerators
from ganparts.cyclegan.losses import discriminator_loss, generator_loss
from ganparts.cyclegan.memory import MEMORY_LEVELS, MemoryNeed, MemoryPlan, memory_need, plan_memory
from ganparts.cyclegan.optimizers import Optimizers, make_optimizers
from ganparts.cyclegan.presets import PRESETS, LossWeights, Preset
from ganparts.cyclegan.schedules import ConstantThenLinear, PiecewiseConstant
from ganparts.cyclegan.step import train_step

__all__ = [
    "MEMORY_LEVELS",
    "PRESETS",
    "AveragedGenerators",
    "ConstantThenLinear",
    "CycleGAN",
    "LossWeights",
    "MemoryNeed",
    "MemoryPlan",
    "Optimizers",
    "PiecewiseConstant",
    "Preset",
    "Translation",
    "build_cyclegan",
    "discriminator_loss",
    "generator_loss",
    "make_optimizers",
    "memory_need",
    "plan_memory",
    "train_step",
]
