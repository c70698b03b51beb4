"""Parts of GANs for translating images, found by name, swapped in one word, and exact to their papers."""

from ganparts import augment, data, discriminators, generators, interchange, losses, replay
from ganparts.cyclegan import (
    PRESETS,
    CycleGAN,
    LossWeights,
    Translation,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.pretrained import from_pretrained, push_to_hub, save_pretrained
from ganparts.protocols import Pair
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    BACKBONES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    REPLAY_BUFFERS,
)

__version__ = "0.1.0"

__all__ = [
    "ADVERSARIAL_LOSSES",
    "BACKBONES",
    "CONSISTENCY_LOSSES",
    "DISCRIMINATORS",
    "GENERATORS",
    "PENALTIES",
    "PRESETS",
    "REPLAY_BUFFERS",
    "CycleGAN",
    "LossWeights",
    "Pair",
    "Translation",
    "augment",
    "build_cyclegan",
    "data",
    "discriminators",
    "from_pretrained",
    "generators",
    "interchange",
    "losses",
    "make_optimizers",
    "push_to_hub",
    "replay",
    "save_pretrained",
    "train_step",
]
