"""Train a generator to fill holes in images, which a recipe with discriminators then starts from.

It takes the images of both domains: the Kaggle competition's data if they are mounted, else the sample that ganparts
ships. Give its run folder to the next recipe, once for each generator: --init FOLDER FOLDER. On a GPU it trains the
whole preset; on a CPU it uses smaller defaults and takes about four minutes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

import ganparts
from ganparts import training
from ganparts.data import PairDataset, load_pairs, open_domains
from ganparts.inpainting import build_inpainting
from ganparts.inpainting.options import PresetOptions
from ganparts.training.app import console


@dataclass(frozen=True)
class Config(training.RunOptions, training.PolicyOptions, PresetOptions):
    """The command line. None stands for the preset's value, and on a CPU for a smaller one where size matters."""

    data: str | None = training.setting(None, on_resume=True)
    """A folder in Kaggle's or CycleGAN's layout (docs/training.md). None: the competition's mount, else the sample."""
    photos: str | None = training.setting(None, on_resume=True)
    """Photos instead of the layout's: a folder (image files, TFRecords, Parquet or tar files), a file or pattern of
    Parquet or tar files, or hf:owner/name (docs/howto/large_data.md)."""
    paintings: str | None = training.setting(None, on_resume=True)
    """Paintings instead of the layout's, in the same forms."""
    skip_unreadable: bool = training.setting(False, on_resume=True)
    """Warn of images that cannot be read, and go on without them."""
    hold_data: Literal["auto", "on", "off"] = training.setting("auto", on_resume=True)
    """Keep all images, decoded, on the device; auto: on a GPU, if they fit."""


def train(config: Config) -> None:
    """Train, and leave everything in the run folder."""
    device = training.pick_device(config.device)
    config = config.for_device(device)
    preset, scaled_down = config.settle(small=device.type == "cpu")
    domains = open_domains(
        config.data, photos=config.photos, paintings=config.paintings, skip_unreadable=config.skip_unreadable
    )
    console.print(f"Data: {len(domains.a)} photos, {len(domains.b)} paintings ({domains.origin}).")
    dataset = PairDataset(domains.a, domains.b, seed=config.seed, batch_size=preset.batch_size, **preset.framing())

    training.seed_everything(config.seed)
    loop = training.Loop(
        build_inpainting(preset),
        config,
        settings=preset,
        device=device,
        example=lambda size: ganparts.Pair(*torch.empty(2, size, 3, preset.crop, preset.crop)),
        samples=preset.holes(training.sample_photos(domains.test_a or domains.a, count=6, size=preset.crop)),
        settled={"data": domains.digest(), "origin": domains.origin, "pairs": len(dataset)},
        card={"preset": config.preset, "data": domains.summary()},
        console=console,
    )
    loop.announce(f"{preset.crop} px, batches of {preset.batch_size} images of each domain", scaled_down=scaled_down)

    steps, workers = config.total_steps(preset, pairs=len(dataset)), config.loading_processes(device)
    if config.hold_data == "on" or (config.hold_data == "auto" and loop.fits_beside(dataset.nbytes)):
        dataset = dataset.on_device(device, workers=workers)
    batches = partial(load_pairs, dataset, batch_size=preset.batch_size, workers=workers, device=device)
    with loop.folder as folder:
        loop.run(batches, steps=steps)
    console.print(f"To go on from it, with the same generator: --init {folder.path} {folder.path}")
    console.print(f"The record of the run is {folder.path / 'report.html'}")


if __name__ == "__main__":
    sys.exit(training.run_recipe(train, Config, description=__doc__ or ""))
