"""How good the pictures get: presets and parts trained for a fixed number of pairs, scored as they go.

Each run is a recipe's, through its command line, so that anybody can repeat it. What it paints in the end is also
scored by an extractor that nothing was trained against. Run it from the repository: ``python -m benchmarks.quality
--help``.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.record import write_json
from ganparts.cut.options import PresetOptions as CUTOptions
from ganparts.cyclegan.options import PresetOptions as CycleGANOptions
from ganparts.data import open_domains
from ganparts.metrics import FewImagesWarning, evaluate
from ganparts.pretrained import from_pretrained
from ganparts.training import pick_device

RECIPES = Path(__file__).parent.parent / "recipes"
OPTIONS: dict[str, Any] = {"cyclegan_monet": CycleGANOptions, "cut_monet": CUTOptions}
"""Of a recipe's preset."""
CPU_RUNS = {
    "paper": "cyclegan_monet --preset paper",
    "lsgan without identity": "cyclegan_monet --preset paper --identity-weight 0",
    "diffaugment": "cyclegan_monet --preset paper --augment diffaugment",
    "averaged": "cyclegan_monet --preset paper --ema-decay 0.98",
}
COLUMNS = ("fid", "content_distance", "content_ssim")
SECOND_OPINION = "efficientnet_lite1"
GPU_RUNS = {
    "monet": "cyclegan_monet --preset monet",
    "monet_one_sided": "cut_monet --preset monet_one_sided",
    "paper": "cyclegan_monet --preset paper",
    "keras_monet": "cyclegan_monet --preset keras_monet",
    "two_objective": "cyclegan_monet --preset two_objective",
    "cut": "cut_monet --preset cut",
    "paper, batch 4, diffaugment, averaged": "cyclegan_monet --preset paper --batch-size 4 --augment diffaugment "
    "--ema-decay 0.999",
}


@dataclass(frozen=True)
class Config:
    """Train for a fixed number of pairs from seeds, and score fixed photos as training goes on."""

    pairs: int | None = None
    """Of each run. None: 50,000 on a GPU (what a P100 does in five hours), 330 on a CPU."""
    runs: Path | None = None
    """A text file, a line a run: NAME = RECIPE OPTIONS, such as cut_monet --preset cut. None: on a GPU presets, on a
    CPU a few runs that differ in one thing."""
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
    recipe, *words = shlex.split(options) or [""]
    try:
        if recipe not in OPTIONS:
            raise ValueError(f"{name}: a run begins with one of {', '.join(OPTIONS)}, not with {recipe!r}")
        chosen, _ = tyro.cli(OPTIONS[recipe], args=words, return_unknown_args=True)
        batch = chosen.settle(small=device.type == "cpu").preset.batch_size
    except (KeyError, TypeError, ValueError) as error:
        return {"run": name, "seed": seed, "options": options, "failed": [str(error)]}
    steps = max(1, pairs // batch)
    every = max(1, steps // config.evaluations)
    command = [sys.executable, str(RECIPES / f"{recipe}.py"), *words, "--seed", str(seed), "--steps", str(steps)]
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
    second = second_opinion(config, folder, device)
    shutil.rmtree(folder)
    results = {"best": best, SECOND_OPINION: second, "scores": scores, "settled": settled}
    return {"run": name, "seed": seed, "options": options} | results


def second_opinion(config: Config, folder: Path, device: torch.device) -> dict[str, float]:
    """Scores of the generator that a run kept, by another extractor than that of the run."""
    domains = open_domains(config.data)
    photos = (domains.test_a or domains.a)[: config.photos]
    generator = from_pretrained(folder, device=str(device))
    options: dict[str, Any] = {"photos": photos, "extractor": SECOND_OPINION, "device": device}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewImagesWarning)
        return evaluate(domains.reference(), generator, workers=0, progress=False, **options).values()


def shown(scores: dict[str, float], second: dict[str, float]) -> list[str]:
    """A row's scores as the table has them. Runs whose intervals overlap are not called different."""
    names = ("kid_ratio", "kid_ratio_low", "kid_ratio_high")
    ratios = ("{:.3f} ({:.3f} to {:.3f})".format(*(each[name] for name in names)) for each in (scores, second))
    return [*ratios, *(f"{scores[key]:.4f}" for key in ("kid", *COLUMNS))]


def main() -> int:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    pairs = config.pairs or (50_000 if device.type == "cuda" else 330)
    runs = GPU_RUNS if device.type == "cuda" else CPU_RUNS
    if config.runs is not None:
        lines = (line.partition("=") for line in config.runs.read_text().splitlines() if line.strip())
        runs = {name.strip(): options.strip() for name, _, options in lines}
    config.out.mkdir(parents=True, exist_ok=True)
    table = Table("run", "seed", "step", "ratio", f"ratio, {SECOND_OPINION}", "KID", "FID", "content", "SSIM")
    table.title = "Ratio: KID divided by that of the photos, and its 95% interval"
    results = []
    for name, options in runs.items():
        for seed in config.seeds:
            result = train(config, name, options, seed, pairs, device)
            results.append(result)
            best = result.get("best", {})
            cells = [result["failed"][0]] if "failed" in result else shown(best, result[SECOND_OPINION])
            table.add_row(name, str(seed), f"{best.get('step', 0):.0f}", *cells)
            settings = vars(config) | {"pairs_of_a_run": pairs}
            write_json(config.out / "quality.json", settings=settings, results=results, device=device)
    shutil.rmtree(config.out / "runs", ignore_errors=True)
    Console(width=140).print(table)
    return int(any("failed" in result for result in results))


if __name__ == "__main__":
    sys.exit(main())
