"""Parts of GANs for translating images, found by name, swapped in one word, and exact to their papers."""

from ganparts import (
    adversarial,
    augment,
    backbones,
    data,
    discriminators,
    generators,
    inpainting,
    interchange,
    losses,
    replay,
)
from ganparts._version import __version__
from ganparts.adversarial import make_optimizers, train_step
from ganparts.cut import CUT, build_cut
from ganparts.cyclegan import CycleGAN, LossWeights, Translation, build_cyclegan
from ganparts.pix2pix import Pix2Pix, build_pix2pix
from ganparts.pretrained import from_pretrained, push_to_hub, save_pretrained
from ganparts.protocols import Pair
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    AUGMENTATIONS,
    BACKBONES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
)

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AUGMENTATIONS",
    "BACKBONES",
    "CONSISTENCY_LOSSES",
    "CUT",
    "DISCRIMINATORS",
    "GENERATORS",
    "PENALTIES",
    "PRESETS",
    "REPLAY_BUFFERS",
    "CycleGAN",
    "LossWeights",
    "Pair",
    "Pix2Pix",
    "Translation",
    "__version__",
    "adversarial",
    "augment",
    "backbones",
    "build_cut",
    "build_cyclegan",
    "build_pix2pix",
    "data",
    "discriminators",
    "from_pretrained",
    "generators",
    "inpainting",
    "interchange",
    "losses",
    "make_optimizers",
    "push_to_hub",
    "replay",
    "save_pretrained",
    "train_step",
]
