"""Losses: adversarial ones of logits, consistency ones of images, contrastive ones of features."""

from ganparts.losses.adversarial import BCE, LSGAN, Hinge, MultiObjective, bce, hinge, lsgan, two_objective
from ganparts.losses.consistency import l1
from ganparts.losses.contrastive import PatchProjector, draw_positions, patch_nce, sample_patches
from ganparts.losses.perceptual import LPIPS, FeatureLoss, feature_distance, features, lpips, lpips_distance

__all__ = [
    "BCE",
    "LPIPS",
    "LSGAN",
    "FeatureLoss",
    "Hinge",
    "MultiObjective",
    "PatchProjector",
    "bce",
    "draw_positions",
    "feature_distance",
    "features",
    "hinge",
    "l1",
    "lpips",
    "lpips_distance",
    "lsgan",
    "patch_nce",
    "sample_patches",
    "two_objective",
]
