"""One call of a network for several batches of images, where that changes nothing but the speed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["apply_to_each"]


def apply_to_each(network: nn.Module, *batches: Tensor) -> list:
    """What ``network`` makes of each batch.

    In one call if the images of a batch do not influence each other; batch norm mixes them, so there each batch is a
    call of its own, as in the reference implementation. A tuple of outputs is split too.
    """
    if len(batches) == 1:
        return [network(batches[0])]
    if network.training and any(isinstance(layer, _BatchNorm) for layer in network.modules()):
        return [network(batch) for batch in batches]
    sizes = [len(batch) for batch in batches]
    outputs = network(torch.cat(batches))
    if isinstance(outputs, Tensor):
        return list(outputs.split(sizes))
    return list(zip(*(scale.split(sizes) for scale in outputs), strict=True))
