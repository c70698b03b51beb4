"""Networks switched to another way of working: blocks computed twice to save memory, ``eval()`` for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["evaluating", "recompute_blocks", "recomputed"]


def recomputed(
    function: Callable[..., Tensor], *inputs: Tensor, recompute: bool = True, random: bool = False
) -> Tensor:
    """``function(*inputs)``, of which training keeps only the inputs; backward computes the rest again.

    Args:
        function: computes a block's output. Batch norms of a module, or of the module whose method it is, count a
            batch once, in the first pass.
        inputs: its inputs.
        recompute: whether to do so; else, and where no gradient is needed, this is a plain call.
        random: whether the function draws random numbers, which must then be the same again.
    """
    if recompute and torch.is_grad_enabled():
        compiling = torch.compiler.is_compiling()  # then batch norm counts once anyway
        norms = [] if compiling else _batch_norms(getattr(function, "__self__", function))
        once: Any = {"context_fn": lambda: (nullcontext(), _NotCounting(norms))} if norms else {}
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=random, **once)
    return function(*inputs)


def _batch_norms(block: object) -> list[_BatchNorm]:
    layers = block.modules() if isinstance(block, nn.Module) else ()
    return [layer for layer in layers if isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats]


class _NotCounting:
    """Leaves the running statistics of batch norms as they are; it may be entered again, as backwards may."""

    def __init__(self, norms: list[_BatchNorm]):
        self.norms = norms
        self.momenta: list[float | None] = []

    def __enter__(self) -> None:
        self.momenta = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, momentum in zip(self.norms, self.momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)


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
