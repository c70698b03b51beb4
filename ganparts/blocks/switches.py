"""Networks switched to another way of working: blocks computed twice to save memory, ``eval()`` for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["evaluating", "recompute_blocks", "recomputed"]


def recomputed(
    function: Callable[..., Tensor], *inputs: Tensor, recompute: bool = True, random: bool = False
) -> Tensor:
    """``function(*inputs)``, of which training keeps only the inputs; backward computes the rest again.

    Args:
        function: computes a block's output.
        inputs: its inputs.
        recompute: whether to do so; else, and where no gradient is needed, this is a plain call.
        random: whether the function draws random numbers, which must then be the same again.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=random)
    return function(*inputs)


def recompute_blocks(network: nn.Module, recompute: bool = True) -> int:
    """Make every layer with an attribute ``recompute`` (a residual block) keep only its input for backward.

    The rest is computed again when backward needs it (Chen et al. 2016, arXiv 1604.06174): less memory for more time.

    Returns:
        The number of such layers.
    """
    layers = [layer for layer in network.modules() if hasattr(layer, "recompute")]
    for layer in layers:
        layer.recompute = recompute  # pyright: ignore[reportArgumentType]
    return len(layers)


@contextmanager
def evaluating(*modules: nn.Module | None) -> Iterator[None]:
    """Put modules in ``eval()`` mode; on leaving, put each of their submodules back in its former mode."""
    modes = {part: part.training for module in modules if module is not None for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
