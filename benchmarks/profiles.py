"""What a card can do at most, and making one behave like a P100."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch

__all__ = ["P100_TFLOPS", "apply_profile", "matrix_rate"]

P100_TFLOPS = 9.3  # fp32 peak of the PCIe card, NVIDIA's data sheet
_P100_BYTES = 16 * 10**9


def apply_profile(profile: str, device: torch.device) -> dict[str, Any]:
    """Set PyTorch up for a profile; what is to be written into the record about it.

    ``p100`` gives a CUDA card what a P100 has: IEEE fp32 (no TF32), no Triton, 16 GB. Its speed stays the card's own,
    so it is a stand-in; on a real P100 the same settings measure it.
    """
    if profile != "p100":
        return {}
    if device.type != "cuda":
        return {"stand_in": "a CPU: only the settings are a P100's"}
    card = torch.cuda.get_device_properties(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.set_per_process_memory_fraction(min(1.0, _P100_BYTES / card.total_memory), index)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    real = "P100" in card.name
    return {
        "stand_in": None if real else f"{card.name} in place of a P100: fp32, no Triton, 16 GB; the speed is its own"
    }


def matrix_rate(device: torch.device, size: int = 8192) -> dict[str, float]:
    """TFLOP/s of large matrix products, measured: what convolutions can come near to."""
    rates = {}
    capability = torch.cuda.get_device_capability(device)
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("fp16", torch.float16, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        if name in ("tf32", "bf16") and capability < (8, 0):
            continue
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        left, right = torch.randn(2, size, size, device=device, dtype=dtype)
        for _ in range(3):
            torch.mm(left, right)
        torch.cuda.synchronize(device)
        start = perf_counter()
        for _ in range(10):
            torch.mm(left, right)
        torch.cuda.synchronize(device)
        rates[name] = 10 * 2 * size**3 / (perf_counter() - start) / 1e12
        torch.backends.cuda.matmul.allow_tf32 = before
    return rates
