"""Where a step's time goes on a CUDA device: convolution, norm and padding, optimizer, copies, gaps.

Run it from the repository: ``python -m benchmarks.kernels --help``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.modes import build, make_step, possible_modes
from benchmarks.profiles import apply_profile
from benchmarks.record import write_json
from ganparts import Pair
from ganparts.training import pick_device

CLASSES = {  # the first class one of whose words is in a kernel's name
    "fused by the compiler": ("triton_",),
    "copies": ("memcpy", "memset", "copy_kernel"),
    "convolution": ("conv", "gemm", "cutlass", "wgrad", "dgrad", "fprop", "winograd", "xmma", "cudnn", "implicit"),
    "optimizer": ("adam", "multi_tensor", "lerp"),
    "norm and padding": ("norm", "moments", "reduce", "welford", "pad", "elementwise", "var_mean", "cat", "index"),
}


@dataclass(frozen=True)
class Config:
    """Milliseconds of a step by class of kernel."""

    modes: tuple[str, ...] = ("textbook_tf32", "captured", "bf16_compiled_captured")
    """Of benchmarks/modes.py."""
    generator: str = "resnet9"
    """Registered generator."""
    size: int = 256
    """Height and width of the images, in pixels."""
    batch_size: int = 1
    """Pairs a step."""
    steps: int = 10
    """Steps to look at."""
    profile: Literal["none", "p100"] = "none"
    """p100: IEEE fp32 and 16 GB."""
    device: str = "auto"
    """A CUDA device."""
    out: Path = Path("benchmarks/results/kernels.json")
    """Where the record goes."""


def class_of(kernel: str) -> str:
    """The class of a kernel, by its name."""
    name = kernel.lower()
    return next((kind for kind, words in CLASSES.items() if any(word in name for word in words)), "other")


def by_class(intervals: list[tuple[str, float, float]], steps: int) -> dict[str, float]:
    """Milliseconds a step of each class, and of the gaps in which no kernel runs.

    Args:
        intervals: name, start and end of each kernel, in microseconds.
        steps: in which they ran.
    """
    totals: dict[str, float] = dict.fromkeys((*CLASSES, "other", "gaps"), 0.0)
    last = min((start for _, start, _ in intervals), default=0.0)
    for name, start, end in sorted(intervals, key=lambda interval: interval[1]):
        totals[class_of(name)] += end - start
        totals["gaps"] += max(0.0, start - last)
        last = max(last, end)
    return {kind: round(total / steps / 1e3, 3) for kind, total in totals.items()}


def main() -> int:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    if device.type != "cuda":
        print("error: kernels are timed on a CUDA device only, and there is none")
        return 1
    notes = apply_profile(config.profile, device)
    results: list[dict[str, Any]] = []
    table = Table("mode", *CLASSES, "other", "gaps")
    for name, mode in possible_modes(device, config.modes).items():
        torch.manual_seed(0)
        pair = Pair(*(torch.rand(2, config.batch_size, 3, config.size, config.size, device=device) * 2 - 1))
        model = build(config.generator, width=64, identity_weight=5.0, replay="history").to(device)
        step = make_step(mode, model, pair)
        for _ in range(5):
            step()
        torch.cuda.synchronize(device)
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(config.steps):
                step()
            torch.cuda.synchronize(device)
        intervals = [
            (event.name, float(event.time_range.start), float(event.time_range.end))
            for event in profiler.events() or ()
            if str(event.device_type) == "DeviceType.CUDA"
        ]
        row = by_class(intervals, config.steps)
        results.append({"mode": name, "kernels_per_step": round(len(intervals) / config.steps), **row})
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
        write_json(config.out, settings=vars(config) | notes, results=results, device=device)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
