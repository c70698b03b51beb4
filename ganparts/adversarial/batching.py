"""Several batches of images in one call of a network, where this changes only the speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["apply_to_each"]


def apply_to_each(network: nn.Module, *batches: Tensor, call: Callable[[Tensor], Any] | None = None) -> list:
    """Apply ``network`` to each batch and return the list of outputs.

    All batches go through in one call if the network says that its images are independent
    (``network.images_are_independent``) and the images have one size. Otherwise each batch is a call of its own, as in
    the reference implementations: batch norm, for one, mixes the images of a batch. Tuples of outputs are split too.

    ``call`` applies the network, where that is not its ``forward``.
    """
    call = call or network
    together = getattr(network, "images_are_independent", False) and len({batch.shape[1:] for batch in batches}) == 1
    if len(batches) == 1 or not together:
        return [call(batch) for batch in batches]
    sizes = [len(batch) for batch in batches]
    outputs = call(torch.cat(batches))
    if isinstance(outputs, Tensor):
        return list(outputs.split(sizes))
    return list(zip(*(scale.split(sizes) for scale in outputs), strict=True))
