"""How fast pairs come: decoded by worker processes, or held on the device.

Run it from the repository: ``python -m benchmarks.data_loading --help``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.record import write_json
from ganparts.data import PairDataset, load_pairs, open_domains
from ganparts.training import pick_device


@dataclass(frozen=True)
class Config:
    """Pairs a second from a data set, without training."""

    data: Path | None = None
    """A folder in Kaggle's or CycleGAN's layout. None: the competition's mount, else the sample."""
    workers: tuple[int, ...] = (0, 2)
    """Numbers of processes that decode."""
    batch_size: int = 1
    """Pairs a step."""
    steps: int = 300
    """Batches to load."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    out: Path = Path("benchmarks/results/data_loading.json")
    """Where the record goes."""


def rate(dataset: PairDataset, config: Config, workers: int, device: torch.device) -> float:
    """Pairs a second, from the first batch on."""
    pairs = load_pairs(dataset, batch_size=config.batch_size, steps=config.steps + 1, workers=workers, device=device)
    next(pairs)  # the workers are up
    start = perf_counter()
    for _ in pairs:
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return config.steps * config.batch_size / (perf_counter() - start)


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    domains = open_domains(config.data)
    dataset = PairDataset(domains.a, domains.b)
    results: list[dict[str, Any]] = []
    for workers in config.workers:
        pairs = rate(dataset, config, workers, device)
        results.append({"source": f"{workers} workers", "pairs_per_second": round(pairs, 1)})
    start = perf_counter()
    held = dataset.on_device(device, workers=max(config.workers))
    seconds = perf_counter() - start
    pairs = rate(held, config, 0, device)
    results.append({"source": "held on the device", "pairs_per_second": round(pairs, 1)})
    results[-1] |= {"mib": round(dataset.nbytes / 2**20), "seconds_to_decode": round(seconds, 2)}
    table = Table("source", "pairs/s")
    for row in results:
        table.add_row(row["source"], f"{row['pairs_per_second']:.1f}")
    Console(width=120).print(table)
    settings = vars(config) | {"images": len(domains.a) + len(domains.b)}
    write_json(config.out, settings=settings, results=results, device=device)


if __name__ == "__main__":
    main()
