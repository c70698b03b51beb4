"""Pictures for the catalogue: what a painter learns from each discriminator, and where each generator begins.

Run it from the repository: ``python -m benchmarks.part_pictures``. It needs no data but the sample, and is
``recipes/cut_monet.py`` through its command line. A part that has a picture already is not trained again.

- A discriminator alone teaches the painter ``monet`` that ships the style of the sample's paintings: the preset
  ``restyle``, with this discriminator in place of its three.
- A generator learns from nothing: the preset ``monet_one_sided``, with this generator, which begins with the photo
  (``residual=True``).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.gallery import RECIPE, ROOT, strip
from ganparts.pretrained import from_pretrained

GENERATORS = {
    "attention_gan": "width=32",
    "attention_unet256": "width=32",
    "ganilla": "",
    "keras_unet256": "width=32",
    "painter": "",
    "resnet6": "width=32",
    "resnet6_antialias": "width=32",
    "resnet9": "width=32",
    "resnet9_antialias": "width=32",
    "timm_unet": "",
    "ugatit": "width=32,light=True",
    "unet128": "width=32",
    "unet256": "width=32",
    "unet_vit": "width=32",
}
"""Each generator's options, small enough to train in minutes."""
DISCRIMINATORS = {
    "batch_head": "",
    "keras_patchgan": "",
    "multiscale_patchgan": "",
    "munit": "width=32",
    "patchgan": "",
    "patchgan_antialias": "",
    "pixel": "",
    "projected": "image_size=128",
    "r3gan": "width=48,size=128",
    "spectral_patchgan": "",
    "stylegan2": "width=32,size=128",
    "two_objective": "",
    "ugatit_global": "width=32,layers=5",
    "ugatit_local": "width=32",
    "unet_discriminator": "width=32,size=128",
}
"""Each discriminator's options, for crops of 128 pixels."""
LARGE = ("attention_unet256", "keras_unet256", "unet256")
"""Generators that take no crops of 128 pixels, and get one of 256 instead of four."""
LOSSES = {"two_objective": "two_objective"}
"""Adversarial losses that a discriminator needs; the others take the preset's."""


@dataclass(frozen=True)
class PartPictures:
    """Strips of three photos of the sample, as parts paint them."""

    kinds: tuple[str, ...] = ("discriminator", "generator")
    """Of the parts."""
    names: tuple[str, ...] = ()
    """Of the parts; none: all."""
    steps: int = 150
    """Of each training."""
    seed: int = 0
    """Likewise."""
    pictures: Path = ROOT / "docs" / "gallery"
    """Where the strips go."""


def chosen_options(kind: str, name: str) -> dict[str, str]:
    """The recipe's options for a part."""
    if kind == "discriminator":
        given = {"--preset": "restyle", "--augment": "diffaugment(cutout=0.2)", "--ema-decay": "0.99"}
        given |= {"--adversarial": LOSSES[name]} if name in LOSSES else {}
        return given | {"--discriminator": f"{name}({DISCRIMINATORS[name]})" if DISCRIMINATORS[name] else name}
    inside = ",".join(filter(None, ("residual=True", GENERATORS[name])))
    given = {"--preset": "monet_one_sided", "--batch-size": "4", "--ema-decay": "0.98"}
    given |= {"--batch-size": "1", "--crop": "256"} if name in LARGE else {}
    return given | {"--generator": f"{name}({inside})"}


def main() -> None:
    options = tyro.cli(PartPictures, description=__doc__)
    options.pictures.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds:
        names = {"discriminator": DISCRIMINATORS, "generator": GENERATORS}[kind]
        for name in names:
            picture = options.pictures / f"{kind}_{name}.jpg"
            if picture.exists() or (options.names and name not in options.names):
                continue
            with tempfile.TemporaryDirectory() as folder:
                run = f"{folder}/run"
                given = {"--steps": str(options.steps), "--seed": str(options.seed), "--paint": "0", "--out": run}
                words = [word for pair in (given | chosen_options(kind, name)).items() for word in pair]
                subprocess.run([sys.executable, str(RECIPE), *words], check=True, stdout=subprocess.DEVNULL)
                strip(from_pretrained(run)).save(picture, quality=85)
            print(picture, flush=True)


if __name__ == "__main__":
    main()
