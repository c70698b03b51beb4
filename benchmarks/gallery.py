"""Train with one part after another, each for the same number of steps, and paint the same photos with each.

Run it from the repository: ``python -m benchmarks.gallery generator --photos PHOTOS --paintings PAINTINGS``. Every run
is ``recipes/cut_monet.py`` with one part exchanged: the generator ``painter`` and one ``patchgan`` with hinge loss stay
where nothing else is asked. A strip of paintings goes to ``docs/catalogue/pictures``, from which the catalogue
takes it, and what was run to ``benchmarks/results/gallery_KIND.json``. So short a training shows how a part begins, not
what it can do.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from PIL import Image

from benchmarks.record import write_json
from ganparts.data import sample
from ganparts.pretrained import from_pretrained
from ganparts.registry import ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES, DISCRIMINATORS, GENERATORS, PENALTIES, Registry
from ganparts.translate import translate

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "catalogue" / "pictures"
PHOTOS = ("pontduGard_0", "neuschwansteinCastle_1", "chateaudeChambord_0", "gatewayofIndia_2")
SIZE = (168, 126)  # of a picture in a strip

TABLES: dict[str, Registry[Any]] = {
    "generator": GENERATORS,
    "discriminator": DISCRIMINATORS,
    "adversarial": ADVERSARIAL_LOSSES,
    "content": CONSISTENCY_LOSSES,
    "penalty": PENALTIES,
}
BASE = {
    "--preset": "monet_one_sided",
    "--discriminator": "patchgan(width=48)",
    "--adversarial": "hinge",
    "--augment": "diffaugment(cutout=0.2)",
    "--crop": "64",
    "--batch-size": "2",
    "--learning-rate": "0.001",
    "--content-weight": "0.15",
    "--identity-weight": "0.15",
}
OWN: dict[tuple[str, str], dict[str, str]] = {
    ("generator", "unet256"): {"--crop": "256", "--batch-size": "1"},
    ("generator", "attention_unet256"): {"--crop": "256", "--batch-size": "1"},
    ("generator", "keras_unet256"): {"--crop": "256", "--batch-size": "1"},
    ("generator", "unet128"): {"--crop": "128"},
    ("discriminator", "two_objective"): {"--adversarial": "two_objective"},
    ("discriminator", "r3gan"): {
        "--discriminator": "r3gan(size=64)",
        "--adversarial": "rsgan",
        "--penalty": "zero_centered",
    },
    ("discriminator", "stylegan2"): {"--discriminator": "stylegan2(size=64)", "--adversarial": "logistic"},
    ("adversarial", "two_objective"): {"--discriminator": "two_objective"},
    ("adversarial", "wgan"): {"--penalty": "gradient_penalty"},
    ("content", "l1"): {"--content-weight": "1"},
    ("content", "l2"): {"--content-weight": "2"},
    ("content", "charbonnier"): {"--content-weight": "1"},
    ("content", "ssim"): {"--content-weight": "0.7"},
    ("content", "ms_ssim"): {"--content-weight": "0.7", "--crop": "192", "--batch-size": "1"},
}
"""What a part needs to work, or is made for; weights that bring the losses to about one size."""
SMALLER: dict[str, dict[str, object]] = {"ugatit": {"light": True, "img_size": 64}}
"""Options of parts that would be too large."""


@dataclass(frozen=True)
class Gallery:
    """Parts to train with."""

    kind: Annotated[Literal["generator", "discriminator", "adversarial", "content", "penalty"], tyro.conf.Positional]
    photos: Path
    """Folder of photos to train on."""
    paintings: Path
    """Folder of paintings."""
    names: tuple[str, ...] = ()
    """Parts of this kind. None: all that are registered."""
    steps: int = 120
    """Of each training."""
    width: int = 32
    """Most channels of a generator's first convolution."""
    runs: Path = ROOT / "runs" / "gallery"
    """Where the run folders go. A run that is there and finished is not trained again; any other begins anew."""
    pictures: Path = PICTURES
    """Where the strips go."""
    results: Path = ROOT / "benchmarks" / "results"
    """Where the record goes."""


def options_of(kind: str, name: str, *, width: int) -> dict[str, str]:
    """The recipe's options that differ between the parts, and those that do not."""
    choice, known = name, TABLES[kind].options(name)
    if kind == "generator":
        own: dict[str, object] = {"residual": True} if "residual" in known else {}
        if "width" in known and known["width"].default > width:
            own["width"] = width
        own |= SMALLER.get(name, {})
        choice += f"({', '.join(f'{key}={value}' for key, value in own.items())})" if own else ""
    return BASE | {f"--{kind}": choice} | _larger(kind, name) | OWN.get((kind, name), {})


def _larger(kind: str, name: str) -> dict[str, str]:
    """Crops for a discriminator that takes none so small, and fewer of them."""
    if kind != "discriminator":
        return {}
    with torch.device("meta"):
        least = getattr(DISCRIMINATORS.create(name), "min_size", 1)
    side = max(int(BASE["--crop"]), -(-least // 32) * 32)
    return {"--crop": str(side), "--batch-size": "1" if side > 100 else BASE["--batch-size"]}


def train(options: Gallery, name: str, run: Path) -> None:
    """Run the recipe."""
    given = options_of(options.kind, name, width=options.width)
    arguments = [word for pair in given.items() for word in pair]
    arguments += ["--steps", str(options.steps), "--paint", "0", "--sample-every", str(options.steps)]
    data = ["--photos", str(options.photos), "--paintings", str(options.paintings), "--out", str(run)]
    recipe, before = ROOT / "recipes" / "cut_monet.py", sys.argv
    sys.argv = [str(recipe), *arguments, *data]
    try:
        runpy.run_path(str(recipe), run_name="__main__")  # in this process, which has imported everything
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{recipe.name} {' '.join(arguments)} failed") from None
    finally:
        sys.argv = before


def strip(paint: Any) -> Image.Image:
    """The photos, painted by a generator, in a row; None for the photos themselves."""
    width, height = SIZE
    row = Image.new("RGB", (width * len(PHOTOS), height))
    for column, name in enumerate(PHOTOS):
        photo = Image.open(sample() / "testA" / f"{name}.jpg").convert("RGB")
        photo = photo.resize((256, 256)) if photo.size != (256, 256) else photo
        painting = photo if paint is None else translate(paint, photo)
        row.paste(painting.resize(SIZE, Image.Resampling.LANCZOS), (column * width, 0))
    return row


def gallery(options: Gallery) -> Iterator[dict[str, object]]:
    """Train with every part, write its strip, and tell what was run."""
    options.pictures.mkdir(parents=True, exist_ok=True)
    strip(None).save(options.pictures / "photos.jpg", quality=85)
    table = TABLES[options.kind]
    for name in options.names or table.names():
        run, began = options.runs / f"{options.kind}_{name}", time.monotonic()
        if not (run / "generator").is_dir():
            shutil.rmtree(run, ignore_errors=True)
            train(options, name, run)
        picture = options.pictures / f"{table.kind.replace(' ', '_')}_{name}.jpg"
        strip(from_pretrained(str(run))).save(picture, quality=85)
        warned = run / "warnings.jsonl"
        kinds = sorted({json.loads(line)["kind"] for line in warned.open()}) if warned.exists() else []
        row = {"name": name, "options": options_of(options.kind, name, width=options.width)}
        yield row | {"steps": options.steps, "seconds": round(time.monotonic() - began, 1), "warnings": kinds}


def main() -> None:
    options = tyro.cli(Gallery, description=__doc__)
    rows = []
    for row in gallery(options):
        print(json.dumps(row), flush=True)
        rows.append(row)
    path = options.results / f"gallery_{options.kind}.json"
    settings = {"steps": options.steps, "base": BASE, "data": [options.photos.name, options.paintings.name]}
    write_json(path, settings=settings, results=rows, device=torch.device("cpu"))


if __name__ == "__main__":
    main()
