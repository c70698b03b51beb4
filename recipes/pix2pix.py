"""Train a pix2pix on aligned pairs, then translate the source images that were kept out of training.

A data set has both images of a pair in one file, side by side (folders train, val, test), or in two folders by name
(trainA, trainB, testA, testB). On a GPU it trains the whole preset; on a CPU it uses smaller defaults.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

import ganparts
from ganparts import training
from ganparts.data import AlignedPairs, load_pairs, open_aligned, resize_square
from ganparts.metrics import Evaluator
from ganparts.pix2pix.options import PresetOptions
from ganparts.training.app import console
from ganparts.translate import translate_to_zip
from ganparts.translate.encoding import JPEGOptions


@dataclass(frozen=True)
class Config(training.RunOptions, training.EvaluationOptions, training.PolicyOptions, PresetOptions, JPEGOptions):
    """The command line. None stands for the preset's value, and on a CPU for a smaller one where size matters."""

    data: str | None = training.setting(None, on_resume=True)
    """A folder with train, or with trainA and trainB; and perhaps test, or testA and testB. Or Parquet files or
    hf:owner/name with two columns of images (docs/howto/large_data.md)."""
    a: str | None = training.setting(None, on_resume=True)
    """A folder or shards of first images instead, or of files with both images side by side."""
    b: str | None = training.setting(None, on_resume=True)
    """A folder of second images with the same names, or shards with the same rows."""
    direction: Literal["ab", "ba"] = "ab"
    """ab: translate first (left) images to second ones; ba: the other way round."""
    skip_unreadable: bool = training.setting(False, on_resume=True)
    """Warn of images that cannot be read or have no partner, and go on without them."""
    hold_data: Literal["auto", "on", "off"] = training.setting("auto", on_resume=True)
    """Keep all images, decoded, on the device; auto: on a GPU, if they fit."""
    translate: int | None = training.setting(None, least=0, on_resume=True)
    """Source images to translate into images.zip. None: at most 10,000 on a GPU, 256 on a CPU."""


def train(config: Config) -> None:
    """Train, translate, and leave everything in the run folder."""
    device = training.pick_device(config.device)
    config = config.for_device(device)
    preset, scaled_down = config.settle(small=device.type == "cpu")
    domains = open_aligned(
        config.data, a=config.a, b=config.b, direction=config.direction, skip_unreadable=config.skip_unreadable
    )
    console.print(f"Data: {len(domains.train)} pairs ({domains.origin}).")
    dataset = AlignedPairs(domains.train, seed=config.seed, batch_size=preset.batch_size, **preset.framing())
    pairs = domains.test or domains.val or domains.train
    side = max(512, preset.crop)  # in memory for the whole run, and more than any network for scores sees
    held_out = [
        tuple(resize_square(image, side) if min(image.shape[-2:]) > side else image for image in pair)
        for _, pair in pairs.readable(config.evaluate_photos if config.evaluate_every else 6)
    ]
    most = 10_000 if device.type == "cuda" else 256
    translated = min(len(pairs), most if config.translate is None else config.translate)
    jpeg = config.jpeg()

    training.seed_everything(config.seed)
    loop = training.Loop(
        ganparts.build_pix2pix(preset),
        config,
        settings=preset,
        device=device,
        example=lambda size: ganparts.Pair(*torch.empty(2, size, 3, preset.crop, preset.crop)),
        samples=training.sample_photos([source for source, _ in held_out], count=6, size=preset.crop),
        settled={"data": domains.digest(), "origin": domains.origin, "pairs": len(dataset)},
        card={"preset": config.preset, "data": domains.summary()},
        score=lambda: Evaluator(
            [target for _, target in held_out],
            photos=[source for source, _ in held_out],
            extractor=config.extractor,
            device=device,
        ),
        after=translated * preset.crop**2,
        console=console,
    )
    loop.announce(f"{preset.crop} px, batch size {preset.batch_size}", scaled_down=scaled_down)

    steps, workers = config.total_steps(preset, pairs=len(dataset)), config.loading_processes(device)
    if config.hold_data == "on" or (config.hold_data == "auto" and loop.fits_beside(dataset.nbytes)):
        dataset = dataset.on_device(device, workers=workers)
    batches = partial(load_pairs, dataset, batch_size=preset.batch_size, workers=workers, device=device)
    with loop.folder as folder:
        ended = loop.run(batches, steps=steps)
        if not ended.by_signal:
            sources = ((name, source) for name, (source, _) in pairs.readable(translated, shared=True))
            written = translate_to_zip(
                loop.exported(), sources, folder.images, size=preset.crop, together=translated, **jpeg
            )
            console.print(f"{written} translated images are in {folder.images}")
    console.print(f"The record of the run is {folder.path / 'report.html'}")


if __name__ == "__main__":
    sys.exit(training.run_recipe(train, Config, description=__doc__ or ""))
