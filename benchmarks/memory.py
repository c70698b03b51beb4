"""The memory that a step needs: estimated, and measured where the device can tell.

Run it from the repository: ``python -m benchmarks.memory --help``.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.modes import Mode, build, make_step
from benchmarks.profiles import apply_profile
from benchmarks.record import write_json
from ganparts import Pair
from ganparts.adversarial import MEMORY_LEVELS, MemoryNeed, memory_need
from ganparts.training import PolicyOptions, available_memory, choose_policy, pick_device


@dataclass(frozen=True)
class Config:
    """Estimated and measured memory of a step, by batch size."""

    generators: tuple[str, ...] = ("resnet9", "unet256")
    """Registered generators."""
    size: int = 256
    """Height and width of the images, in pixels."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 24)
    """Pairs a step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the networks."""
    width: int = 64
    """Channels after the first convolution of each network."""
    profile: Literal["none", "p100"] = "none"
    """p100: 16 GB."""
    device: str = "auto"
    """auto, cpu, cuda ...; only CUDA is measured."""
    out: Path = Path("benchmarks/results/memory.json")
    """Where the record goes."""


def rows_of(config: Config, generator: str, level: str, device: torch.device) -> list[dict[str, Any]]:
    """A row for each batch size, until one does not fit."""
    layout: Any = "channels_last" if config.precision == "bf16" else "channels_first"
    options = PolicyOptions(config.precision, layout, "1", "off", "off")
    make = partial(build, generator, width=config.width, identity_weight=5.0, replay="history")
    context = choose_policy(device, options).autocast
    need = memory_need(
        make(),
        lambda pairs: Pair(*torch.empty(2, pairs, 3, config.size, config.size)),
        level=level,
        device_type=device.type,
        context=context,
        layout=layout,
    )
    rows = []
    for batch_size in config.batch_sizes:
        row: dict[str, Any] = {"generator": generator, "level": level, "batch_size": batch_size}
        row |= {"precision": config.precision, "estimate_mib": round(need.at(batch_size) / 2**20)}
        if device.type == "cuda":
            row["measured_mib"] = measured(Mode(options, level), make, config.size, batch_size, device)
            if row["measured_mib"] is not None:
                row["estimate_over_measured"] = round(row["estimate_mib"] / row["measured_mib"], 3)
        rows.append(row)
    rows.append(largest(generator, level, need, device))
    return rows


def largest(generator: str, level: str, need: MemoryNeed, device: torch.device) -> dict[str, Any]:
    """What would fit on this device, and into the 16 GB of a P100."""
    return {
        "generator": generator,
        "level": level,
        "largest_batch_here": need.largest_batch(available_memory(device)),
        "largest_batch_in_16_gb": need.largest_batch(16e9),
    }


def measured(mode: Mode, make: Any, size: int, batch_size: int, device: torch.device) -> int | None:
    """Peak MiB that PyTorch's allocator gave out in a step; None if it did not fit."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        before = torch.cuda.memory_allocated(device)
        pair = Pair(*torch.rand(2, batch_size, 3, size, size, device=device))
        step = make_step(mode, make().to(device), pair)
        gc.collect()
        for _ in range(2):
            step()
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**20)
    except torch.OutOfMemoryError:
        return None


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    notes = apply_profile(config.profile, device)
    table = Table("generator", "memory", "batch", "estimate MiB", "measured MiB")
    results = []
    for generator in config.generators:
        for level in MEMORY_LEVELS:
            for row in rows_of(config, generator, level, device):
                results.append(row)
                if "batch_size" in row:
                    cells = (row["batch_size"], row["estimate_mib"], row.get("measured_mib", "-"))
                    table.add_row(generator, level, *map(str, cells))
            write_json(config.out, settings=vars(config) | notes, results=results, device=device)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
