"""What each part of ``monet_one_sided`` brings: one thing exchanged at a time, equally long runs, scored and seen.

Run it from the repository: ``python -m benchmarks.gallery --photos PHOTOS --paintings PAINTINGS --held-out PHOTOS``.
Every run is ``recipes/cut_monet.py``, through its command line. Its paintings of the held-out photos are scored by two
extractors. Its paintings of the sample go to a sheet in ``docs/gallery``, with a column for each seed. A run that is
finished is not trained again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

from benchmarks.record import write_json
from ganparts.data import sample
from ganparts.metrics import evaluate
from ganparts.pretrained import from_pretrained
from ganparts.translate import translate, translate_files

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "cut_monet.py"
PHOTOS = ("neuschwansteinCastle_1", "chateaudeChambord_0", "gatewayofIndia_2")
SIZE = (256, 192)  # of a picture in a strip
EXTRACTORS = ("efficientnet_lite0", "efficientnet_lite1")

PROJECTED, PATCHES, TEXTURE = "projected(image_size=128)", "patchgan(width=48)", "diffaugment(cutout=0.2)"
BASE = {"--preset": "monet_one_sided", "--batch-size": "4", "--ema-decay": "0.995"}
VARIANTS: dict[str, dict[str, str]] = {
    "generator_painter": {},
    "discriminator_projected": {"--discriminator": PROJECTED, "--augment": TEXTURE},
    "discriminator_patchgan": {"--discriminator": PATCHES, "--augment": TEXTURE},
    "discriminator_both": {"--discriminator": f"{PROJECTED}+{PATCHES}", "--augment": TEXTURE},
    "contrast": {"--content": "none", "--nce-weight": "1"},
    "content_weight": {"--content-weight": "0.1"},
    "no_identity": {"--identity": "none"},
    "bilinear": {"--generator": "painter(upsample='bilinear')"},
    "zero_padding": {"--generator": "painter(strided_padding='zero')"},
    "learning_rate": {"--learning-rate": "2e-4"},
    "batch_size": {"--batch-size": "2"},
    "generator_resnet6_antialias": {"--generator": "resnet6_antialias(width=32,residual=True)"},
}
"""Names of runs, and in which options each differs from the first."""


@dataclass(frozen=True)
class Gallery:
    """Runs of a few minutes that differ in one thing."""

    photos: Path
    """Folder of photos to train on."""
    paintings: Path
    """Folder of paintings."""
    held_out: Path
    """Folder of other photos, to paint for the scores."""
    names: tuple[str, ...] = tuple(VARIANTS)
    """Of the runs."""
    seeds: tuple[int, ...] = (0, 1)
    """Of each run."""
    crops: int = 2000
    """Of photos in a run; steps are fewer where the batch is larger."""
    runs: Path = ROOT / "runs" / "gallery"
    """Where the run folders go."""
    pictures: Path = ROOT / "docs" / "gallery"
    """Where the sheet goes."""
    record: Path = ROOT / "benchmarks" / "results" / "quality" / "gallery.json"
    """The file for the scores."""


def train(options: Gallery, name: str, seed: int, run: Path) -> None:
    """Run the recipe."""
    given = BASE | VARIANTS[name]
    given |= {"--photos": str(options.photos), "--paintings": str(options.paintings), "--seed": str(seed)}
    given |= {"--steps": str(options.crops // int(given["--batch-size"])), "--paint": "0", "--out": str(run)}
    words = [word for pair in given.items() for word in pair]
    subprocess.run([sys.executable, str(RECIPE), *words], check=True, stdout=subprocess.DEVNULL)


def score(options: Gallery, run: Path) -> dict[str, Any]:
    """Scores of a run's paintings, as PNG, by both extractors."""
    kept = run / "gallery.json"
    if not kept.exists():
        found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as out:
            translate_files(from_pretrained(str(run)), [str(options.held_out)], out, format="png")
            for extractor in EXTRACTORS:
                scores = evaluate(options.paintings, out, photos=options.held_out, extractor=extractor, workers=0)
                columns = ("kid_ratio", "kid_ratio_low", "kid_ratio_high", "content_ssim")
                found[extractor] = {key: round(getattr(scores, key), 3) for key in columns}
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def strip(generator: torch.nn.Module | None) -> Image.Image:
    """Photos of the sample, painted by a generator, in a row; None for the photos themselves."""
    width, height = SIZE
    row = Image.new("RGB", (width * len(PHOTOS), height))
    for column, name in enumerate(PHOTOS):
        photo = Image.open(sample() / "testA" / f"{name}.jpg").convert("RGB").resize((256, 256))
        picture = photo if generator is None else translate(generator, photo)
        row.paste(picture.resize(SIZE, Image.Resampling.LANCZOS), (column * width, 0))
    return row


def gallery(options: Gallery) -> Iterable[dict[str, Any]]:
    """Train, score and paint with each variant; a row of the record for each."""
    options.pictures.mkdir(parents=True, exist_ok=True)
    (width, height), between = (SIZE[0] * len(PHOTOS), SIZE[1]), 8
    size = (width + between) * len(options.seeds) - between, height * (1 + len(options.names))
    sheet = Image.new("RGB", size, "white")
    for column, seed in enumerate(options.seeds):
        left = column * (width + between)
        sheet.paste(strip(None), (left, 0))
        for place, name in enumerate(options.names, start=1):
            run = options.runs / f"{name}_{seed}"
            if not (run / "generator").is_dir():
                train(options, name, seed, run)
            sheet.paste(strip(from_pretrained(str(run))), (left, place * height))
            yield {"name": name, "seed": seed, "options": BASE | VARIANTS[name], "scores": score(options, run)}
    sheet.save(options.pictures / "all.jpg", quality=85)


def main() -> None:
    options = tyro.cli(Gallery, description=__doc__)
    rows = []
    for row in gallery(options):
        print(json.dumps(row), flush=True)
        rows.append(row)
        settings = {"crops": options.crops, "threads": os.environ.get("OMP_NUM_THREADS"), "photos": options.photos.name}
        write_json(options.record, settings=settings, results=rows, device=torch.device("cpu"))


if __name__ == "__main__":
    main()
