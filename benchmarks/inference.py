"""How long one picture takes in fp32 and in bf16, and how near the two paintings are, for every generator.

The two take turns in one process. Weights are random, or those of painters that are named. Run it from the repository:
``python -m benchmarks.inference --help``.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.record import interleaved, summary, write_json
from ganparts import GENERATORS, from_pretrained
from ganparts.precision import choose_inference, infer
from ganparts.training import pick_device


@dataclass(frozen=True)
class Config:
    """Milliseconds of one picture."""

    models: tuple[str, ...] = ()
    """Registered generators, or what from_pretrained takes. None: every generator, and the painter monet."""
    size: int = 256
    """Height and width of the picture, in pixels."""
    rounds: int = 7
    """Counted pictures of each."""
    warmup: int = 2
    """Pictures of each before."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    out: Path = Path("benchmarks/results/inference.json")
    """Where the record goes."""


@torch.inference_mode()
def measure(name: str, config: Config, device: torch.device) -> dict[str, Any]:
    """Times of one network, their ratio, and the PSNR of the paintings in decibels."""
    torch.manual_seed(0)
    network = GENERATORS.create(name) if name in GENERATORS else from_pretrained(name, kind="generator")
    assert isinstance(network, nn.Module)
    network.to(device).eval()
    images = torch.rand(1, 3, config.size, config.size, device=device) * 2 - 1
    calls = {precision: lambda precision=precision: infer(network, images, precision) for precision in ("fp32", "bf16")}
    seconds = interleaved(calls, rounds=config.rounds, warmup=config.warmup, device=device)
    ratio = statistics.median(a / b for a, b in zip(seconds["fp32"], seconds["bf16"], strict=True))
    error = (calls["fp32"]().double() - calls["bf16"]().double()).square().mean().item()
    return {
        "model": name,
        "chosen": choose_inference(network)[0],
        **{precision: summary(taken) for precision, taken in seconds.items()},
        "fp32_over_bf16": round(ratio, 2),
        "psnr_db": round(10 * math.log10(4 / error), 1) if error else None,
    }


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    table = Table("model", "fp32 ms", "bf16 ms", "fp32 / bf16", "PSNR dB", "auto takes")
    results = []
    for name in config.models or (*GENERATORS, "monet"):
        row = measure(name, config, device)
        results.append(row)
        times = (f"{row[precision]['median_ms']:.1f}" for precision in ("fp32", "bf16"))
        table.add_row(name, *times, f"{row['fp32_over_bf16']:.2f}", str(row["psnr_db"]), row["chosen"])
        write_json(config.out, settings=vars(config), results=results, device=device)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
