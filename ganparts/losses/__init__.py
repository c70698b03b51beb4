"""Losses: adversarial ones of logits, consistency ones of images; each gives a scalar."""

from ganparts.losses.adversarial import BCE, LSGAN, Hinge, MultiObjective, bce, hinge, lsgan, two_objective
from ganparts.losses.consistency import l1

__all__ = ["BCE", "LSGAN", "Hinge", "MultiObjective", "bce", "hinge", "l1", "lsgan", "two_objective"]
