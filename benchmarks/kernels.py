"""Where a step's time goes: convolution, norm and padding, optimizer, copies, and gaps, or what is not an operation.

Run it from the repository: ``python -m benchmarks.kernels --help``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
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
    "copies": ("memcpy", "memset", "copy_kernel", "aten::copy_", "aten::clone", "aten::contiguous", "mkldnn_reorder"),
    "convolution": (
        "conv",
        "aten::addmm",
        "aten::mm",
        "aten::bmm",
        "gemm",
        "cutlass",
        "wgrad",
        "dgrad",
        "fprop",
        "winograd",
        "xmma",
        "cudnn",
        "implicit",
    ),
    "optimizer": ("adam", "multi_tensor", "lerp"),
    "norm and padding": (
        *("norm", "moments", "reduce", "welford", "pad", "elementwise", "var_mean", "cat", "index"),
        *(
            f"aten::{word}"
            for word in ("relu", "leaky", "threshold", "tanh", "add", "sub", "mul", "div", "mean", "sum")
        ),
    ),
}


@dataclass(frozen=True)
class Config:
    """Milliseconds of a step by class of kernel, or on a CPU of operation."""

    modes: tuple[str, ...] = ("textbook", "textbook_tf32", "ours", "captured", "bf16_compiled_captured", "auto")
    """Of benchmarks/modes.py; what the device cannot do is left out."""
    generator: str = "resnet9"
    """Registered generator."""
    size: int = 256
    """Height and width of the images, in pixels."""
    batch_size: int = 1
    """Pairs a step."""
    width: int = 64
    """Channels after the first convolution of each network."""
    steps: int = 10
    """Steps to look at."""
    profile: Literal["none", "p100"] = "none"
    """p100: IEEE fp32 and 16 GB."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
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


def by_operation(step: Callable[[], object], steps: int) -> tuple[dict[str, float], float]:
    """Milliseconds a step of each class of operation on a CPU, gaps included, and how many operations a step has."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = perf_counter()
        for _ in range(steps):
            step()
        whole = 1e3 * (perf_counter() - start) / steps
    totals: dict[str, float] = dict.fromkeys((*CLASSES, "other", "gaps"), 0.0)
    operations = [event for event in profiler.key_averages() if event.key.startswith("aten::")]
    for event in operations:
        totals[class_of(event.key)] += event.self_cpu_time_total / steps / 1e3
    totals["gaps"] = whole - sum(totals.values())
    return {kind: round(total, 3) for kind, total in totals.items()}, sum(event.count for event in operations) / steps


def by_kernel(step: Callable[[], object], steps: int, device: torch.device) -> tuple[dict[str, float], float]:
    """Milliseconds a step of each class of kernel on a GPU, gaps included, and how many kernels a step has."""
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize(device)
    intervals = [
        (event.name, float(event.time_range.start), float(event.time_range.end))
        for event in profiler.events() or ()
        if str(event.device_type) == "DeviceType.CUDA"
    ]
    return by_class(intervals, steps), len(intervals) / steps


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    notes = apply_profile(config.profile, device)
    results: list[dict[str, Any]] = []
    table = Table("mode", *CLASSES, "other", "gaps")
    for name, mode in possible_modes(device, config.modes).items():
        torch.manual_seed(0)
        pair = Pair(*(torch.rand(2, config.batch_size, 3, config.size, config.size, device=device) * 2 - 1))
        model = build(config.generator, width=config.width, identity_weight=5.0, replay="history").to(device)
        step = make_step(mode, model, pair)
        for _ in range(5 if device.type == "cuda" else 1):
            step()
        looked = by_kernel(step, config.steps, device) if device.type == "cuda" else by_operation(step, config.steps)
        row, count = looked
        results.append({"mode": name, "kernels_per_step": round(count), **row})
        table.add_row(name, *(f"{value:.2f}" for value in row.values()))
        write_json(config.out, settings=vars(config) | notes, results=results, device=device)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
