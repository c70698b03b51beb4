"""Losses and penalties work in at least fp32, whatever precision the networks work in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["at_least_fp32", "without_autocast"]


def at_least_fp32(values: Tensor) -> Tensor:
    """``values``, half precision (bf16, fp16) made fp32."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast is off for ``device``."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device has none
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
