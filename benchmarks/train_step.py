"""The training step against the textbook's: seconds, bytes and operations.

Both train the same networks on the same images in one process, taking turns; their losses are compared first. Run it
from the repository: ``python -m benchmarks.train_step --help``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.record import interleaved, summary, write_json
from benchmarks.textbook import textbook_step
from ganparts import GENERATORS, CycleGAN, LossWeights, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.training import pick_device


@dataclass(frozen=True)
class Config:
    """The training step against the textbook's, both without a replay buffer, in fp32."""

    generators: tuple[str, ...] = ("resnet9",)
    """Registered generators."""
    sizes: tuple[int, ...] = (64, 128, 256)
    """Heights and widths of the images, in pixels."""
    batch_sizes: tuple[int, ...] = (1,)
    """Pairs a step."""
    identity_weight: float = 5.0
    """0 leaves the identity loss out."""
    width: int = 64
    """Channels after the first convolution of each network."""
    rounds: int = 9
    """Counted steps of each."""
    warmup: int = 2
    """Steps of each before them."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    out: Path = Path("benchmarks/results/train_step.json")
    """Where the record goes."""


def compare(config: Config, generator: str, size: int, batch_size: int, device: torch.device) -> dict[str, Any]:
    """One row: the textbook's step, ours, and ours with little memory."""
    torch.manual_seed(0)
    build = partial(GENERATORS.create, generator, width=config.width)
    model = build_cyclegan(
        generator=build,
        discriminator="patchgan",
        replay="none",
        weights=LossWeights(identity=config.identity_weight),
    ).to(device)
    pair = Pair(*(torch.rand(2, batch_size, 3, size, size, device=device) * 2 - 1))

    def step(kind: str, trained: CycleGAN) -> Callable[[], dict[str, Tensor]]:
        optimizers = make_optimizers(trained)
        if kind == "textbook":
            return partial(textbook_step, trained, pair, optimizers)
        return partial(train_step, trained, pair, optimizers, low_memory=kind == "low_memory")

    variants = {kind: step(kind, deepcopy(model)) for kind in ("textbook", "ours", "low_memory")}
    losses = {kind: call() for kind, call in variants.items()}
    for kind in ("ours", "low_memory"):
        for name, loss in losses["textbook"].items():
            torch.testing.assert_close(losses[kind][name], loss, rtol=1e-3, atol=1e-4, msg=f"{kind}: {name}")
    seconds = interleaved(variants, rounds=config.rounds, warmup=config.warmup, device=device)
    ratios = {
        kind: statistics.median(t / o for t, o in zip(seconds["textbook"], seconds[kind], strict=True))
        for kind in ("ours", "low_memory")
    }
    return {
        "generator": generator,
        "size": size,
        "batch_size": batch_size,
        **{kind: summary(times) for kind, times in seconds.items()},
        "textbook_over": {kind: round(ratio, 3) for kind, ratio in ratios.items()},
    }


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    table = Table("generator", "px", "batch", "textbook ms", "ours ms", "low memory ms", "textbook / ours")
    results = []
    for generator in config.generators:
        for size in config.sizes:
            for batch_size in config.batch_sizes:
                row = compare(config, generator, size, batch_size, device)
                results.append(row)
                medians = [f"{row[kind]['median_ms']:.1f}" for kind in ("textbook", "ours", "low_memory")]
                table.add_row(generator, str(size), str(batch_size), *medians, f"{row['textbook_over']['ours']:.3f}")
    Console().print(table)
    write_json(config.out, settings=vars(config), results=results, device=device)


if __name__ == "__main__":
    main()
