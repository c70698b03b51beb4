"""Pixels picked from images, with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["take_places"]


def take_places(images: Tensor, axis: int, places: Tensor) -> Tensor:
    """The rows (axis 2) or columns (axis 3) of each image at its places [B, size]."""
    if torch.are_deterministic_algorithms_enabled():  # gather's backward then asks the device, in some PyTorch
        each = torch.arange(len(images), device=images.device)[:, None]
        return images.movedim(axis, 1)[each, places].movedim(1, axis)
    view = (len(images), 1, -1, 1) if axis == 2 else (len(images), 1, 1, -1)
    return images.gather(axis, places.view(view).expand_as(images))
