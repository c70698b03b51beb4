"""Consistency losses: how far an image is from what it should have stayed."""

from __future__ import annotations

from torch import nn

from ganparts.registry import CONSISTENCY_LOSSES

__all__ = ["l1"]


@CONSISTENCY_LOSSES.register("l1")
def l1() -> nn.L1Loss:
    """Mean absolute difference over all values, the paper's CycleGAN (arXiv 1703.10593)."""
    return nn.L1Loss()
