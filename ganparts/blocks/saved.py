"""Buffers that are allocated at their first use, saved and loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["adopt_saved"]


def adopt_saved(module: nn.Module, name: str, state_dict: dict[str, Any], prefix: str, *, device: torch.device) -> None:
    """Before ``module`` loads a state, make room for a saved buffer that it has not allocated, or in another shape.

    A state that was saved before the first use has no such buffer. If the module has one, it is kept, since a captured
    graph may hold it, and zeros are put into ``state_dict`` for it.

    Args:
        module: that loads; it has the buffer, which may be None.
        name: of the buffer.
        state_dict: what is loaded.
        prefix: of the module's keys in it.
        device: where to allocate.
    """
    saved, own = state_dict.get(prefix + name), getattr(module, name)
    if saved is not None and (own is None or own.shape != saved.shape):
        setattr(module, name, torch.empty_like(saved, device=device))
    elif saved is None and own is not None:
        state_dict[prefix + name] = torch.zeros_like(own)
