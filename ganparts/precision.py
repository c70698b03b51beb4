"""Which precision suits a processor, and what must keep fp32 whatever precision the networks compute in."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["at_least_fp32", "native_bf16", "without_autocast"]


def at_least_fp32(values: Tensor) -> Tensor:
    """``values``, half precision (bf16, fp16) made fp32."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast is off for ``device``."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device has none
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def native_bf16() -> str | None:
    """The instructions with which this CPU computes in bf16: ``"AMX"``, ``"AVX512-BF16"``, ``"Arm BF16"`` or None.

    Other CPUs convert every number and are many times slower in bf16 than in fp32.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "Arm BF16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
    if torch.cpu._is_amx_tile_supported():  # no CPU has the tiles without bf16
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None
