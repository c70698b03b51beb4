"""How good the pictures get: presets and parts trained for a fixed number of pairs, scored as they go.

Each run is the recipe's, through its command line, so that anybody can repeat it. Run it from the repository:
``python -m benchmarks.quality --help``.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.record import write_json
from ganparts.cyclegan.options import PresetOptions
from ganparts.training import pick_device

RECIPE = Path(__file__).parent.parent / "recipes" / "cyclegan_monet.py"
CPU_RUNS = {
    "default": "",
    "lsgan without identity": "--identity-weight 0",
    "diffaugment": "--augment diffaugment",
    "averaged": "--ema-decay 0.98",
}
COLUMNS = ("fid", "content_distance", "content_ssim")
GPU_RUNS = {
    "paper": "--preset paper",
    "keras_monet": "--preset keras_monet",
    "two_objective": "--preset two_objective",
    "paper, batch 4, diffaugment, averaged": "--batch-size 4 --augment diffaugment --ema-decay 0.999",
}


@dataclass(frozen=True)
class Config:
    """Train for a fixed number of pairs from seeds, and score fixed photos as training goes on."""

    pairs: int | None = None
    """Of each run. None: 50,000 on a GPU (what a P100 does in five hours), 330 on a CPU."""
    runs: Path | None = None
    """A text file, a line a run: NAME = OPTIONS of the recipe. None: a few that differ in one thing."""
    seeds: tuple[int, ...] = (0,)
    """Of each run."""
    evaluations: int = 3
    """In a run."""
    photos: int = 500
    """Photos that are painted for an evaluation."""
    data: Path | None = None
    """A folder in Kaggle's or CycleGAN's layout. None: the competition's mount, else the sample."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    out: Path = Path("benchmarks/results/quality")
    """A folder for the record, and a row of paintings of each run."""


def keep_paintings(grid: Path, out: Path) -> None:
    """The middle row of a grid of samples: the photos above it may not be ours to publish."""
    with Image.open(grid) as image:
        image.crop((0, image.height // 3, image.width, image.height * 2 // 3)).save(out)


def train(config: Config, name: str, options: str, seed: int, pairs: int, device: torch.device) -> dict[str, Any]:
    """One run of the recipe: its scores by step, and the best of them."""
    stem = "".join(letter if letter.isalnum() else "_" for letter in name) + f"_seed{seed}"
    folder = config.out / "runs" / stem
    shutil.rmtree(folder, ignore_errors=True)
    chosen, _ = tyro.cli(PresetOptions, args=shlex.split(options), return_unknown_args=True)
    try:
        batch = chosen.settle(small=device.type == "cpu").preset.batch_size
    except (KeyError, TypeError, ValueError) as error:
        return {"run": name, "seed": seed, "options": options, "failed": [str(error)]}
    steps = max(1, pairs // batch)
    every = max(1, steps // config.evaluations)
    command = [sys.executable, str(RECIPE), *shlex.split(options), "--seed", str(seed), "--steps", str(steps)]
    command += ["--evaluate-every", str(every), "--evaluate-photos", str(config.photos), "--device", str(device)]
    command += ["--paint", "1", "--out", str(folder), *(["--data", str(config.data)] if config.data else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"run": name, "seed": seed, "options": options, "failed": done.stdout.splitlines()[-1:]}
    with (folder / "scores.csv").open() as file:
        scores = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    best = min(scores, key=lambda row: row["kid"])
    keep_paintings(max((folder / "samples").iterdir()), config.out / f"{stem}.png")
    settled = json.loads((folder / "config.json").read_text())["settled"]
    shutil.rmtree(folder)
    return {"run": name, "seed": seed, "options": options, "best": best, "scores": scores, "settled": settled}


def shown(scores: dict[str, float]) -> list[str]:
    """A row's scores as the table has them. Runs whose intervals overlap are not called different."""
    kid, ratio, *others = (f"{scores[key]:.4f}" for key in ("kid", "kid_ratio", *COLUMNS))
    return [kid, f"{scores['kid_low']:.4f} to {scores['kid_high']:.4f}", ratio, *others]


def main() -> int:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    pairs = config.pairs or (50_000 if device.type == "cuda" else 330)
    runs = GPU_RUNS if device.type == "cuda" else CPU_RUNS
    if config.runs is not None:
        lines = (line.partition("=") for line in config.runs.read_text().splitlines() if line.strip())
        runs = {name.strip(): options.strip() for name, _, options in lines}
    config.out.mkdir(parents=True, exist_ok=True)
    table = Table("run", "seed", "step", "KID", "95% interval", "KID / photos'", "FID", "content", "SSIM")
    results = []
    for name, options in runs.items():
        for seed in config.seeds:
            result = train(config, name, options, seed, pairs, device)
            results.append(result)
            best = result.get("best", {})
            cells = [result["failed"][0]] if "failed" in result else shown(best)
            table.add_row(name, str(seed), f"{best.get('step', 0):.0f}", *cells)
            settings = vars(config) | {"pairs_of_a_run": pairs}
            write_json(config.out / "quality.json", settings=settings, results=results, device=device)
    shutil.rmtree(config.out / "runs", ignore_errors=True)
    Console(width=140).print(table)
    return int(any("failed" in result for result in results))


if __name__ == "__main__":
    sys.exit(main())
