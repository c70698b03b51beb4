"""Losses: adversarial ones of logits, consistency ones of images, contrastive ones of features."""

from ganparts.losses.adversarial import BCE, LSGAN, Hinge, MultiObjective, bce, hinge, lsgan, two_objective
from ganparts.losses.consistency import l1
from ganparts.losses.contrastive import PatchProjector, draw_positions, patch_nce, sample_patches

__all__ = [
    "BCE",
    "LSGAN",
    "Hinge",
    "MultiObjective",
    "PatchProjector",
    "bce",
    "draw_positions",
    "hinge",
    "l1",
    "lsgan",
    "patch_nce",
    "sample_patches",
    "two_objective",
]
