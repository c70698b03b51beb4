"""Train a CycleGAN that paints photos, then paint them.

Without arguments it takes the Kaggle competition's data if they are mounted, else the sample that ganparts ships. On
a GPU it trains the whole preset; on a CPU it scales itself down to a run of minutes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import nn

from ganparts import DISCRIMINATORS, GENERATORS, PRESETS, build_cyclegan, make_optimizers, train_step
from ganparts.augment import DiffAugment
from ganparts.cyclegan import Preset
from ganparts.data import Domains, PairDataset, UnreadableImageError, load_pairs, open_domains, sample
from ganparts.interchange import save_pretrained
from ganparts.registry import Registry
from ganparts.training import (
    DeviceError,
    Monitor,
    StopSignals,
    evaluating,
    load_checkpoint,
    pick_device,
    sample_photos,
    save_checkpoint,
    save_grid,
)
from ganparts.translate import translate_to_zip

KAGGLE = Path("/kaggle/input/gan-getting-started")
CPU_STEPS = 270
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Config:
    """Train a CycleGAN that paints photos, then paint them.

    None stands for the preset's value; on a CPU, where the whole preset would take weeks, for a smaller one.
    """

    data: Path | None = None
    """A folder in the Kaggle layout (monet_jpg or monet_tfrec, photo_jpg or photo_tfrec) or CycleGAN's (trainA,
    trainB, perhaps testA). None: the competition's mount, else the sample."""
    photos: Path | None = None
    """A folder of photos (image files or TFRecords) instead of the layout's."""
    paintings: Path | None = None
    """A folder of paintings instead of the layout's."""
    skip_unreadable: bool = False
    """Warn of images that cannot be read, and go on without them."""
    preset: str = "paper"
    """Complete settings: paper, keras_monet or two_objective."""
    generator: str | None = None
    """resnet9, resnet6, unet256, unet128, attention_unet256, keras_unet256."""
    discriminator: str | None = None
    """patchgan, pixel, two_objective, keras_patchgan."""
    adversarial: str | None = None
    """bce, lsgan, hinge, two_objective."""
    replay: str | None = None
    """history, none."""
    augment: Literal["none", "diffaugment"] | None = None
    """What is done to images before a discriminator sees them."""
    cycle_weight: float | None = None
    """Factor on the mean L1 between an image and itself after both translations."""
    identity_weight: float | None = None
    """Factor on the mean L1 between a painting and its painting (a photo and its photo); 0 switches it off."""
    width: int | None = None
    """Channels after the first convolution of each network."""
    image_size: int | None = None
    """Height and width of the images that are trained on, in pixels."""
    batch_size: int | None = None
    """Pairs a step."""
    epochs: int | None = None
    """Length of the run; the learning rate's schedule is stretched over it."""
    steps: int | None = None
    """Length of the run in steps, instead of epochs."""
    learning_rate: float | None = None
    """Adam's, before the schedule."""
    seed: int = 0
    """Decides weights, pairs, crops, flips, replay and dropout."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    workers: int | None = None
    """Processes that decode images. None: 4 for a GPU, 0 for a CPU."""
    paint: int | None = None
    """Photos to paint into images.zip. None: all on a GPU, at most 256 on a CPU."""
    out: Path | None = None
    """The run folder. None: runs/ and the time."""
    resume: Path | None = None
    """Go on with the run in this folder, with its own settings; all other options are ignored."""
    log_every: int = 10
    """Steps between two rows of losses.csv."""
    sample_every: int | None = None
    """Steps between two grids of samples. None: a tenth of the run."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; one is written at the end in any case."""
    debug: bool = False
    """Show the whole trace of an error."""


def settle(config: Config, device: torch.device) -> tuple[Preset, dict[str, object]]:
    """The preset with the user's choices in it, made smaller on a CPU; and the same in words, for config.json."""
    preset = PRESETS.create(config.preset)
    on_cpu = device.type == "cpu"
    if on_cpu:
        preset = replace(preset, batch_size=2, generator="unet128" if config.preset == "paper" else preset.generator)
    width = config.width or (32 if on_cpu else None)

    def sized(table: Registry, choice: Any) -> tuple[str, Any]:
        names = choice if isinstance(choice, tuple) else (choice, choice)
        options = {} if width is None else {"width": width}
        return " and ".join(dict.fromkeys(names)), tuple(partial(table.create, name, **options) for name in names)

    generator, generators = sized(GENERATORS, config.generator or preset.generator)
    discriminator, discriminators = sized(DISCRIMINATORS, config.discriminator or preset.discriminator)
    crop = config.image_size or preset.crop
    if on_cpu and config.image_size is None:
        with torch.device("meta"):
            multiple = getattr(generators[0](), "size_multiple", 1)
        crop = 128 if 128 % multiple == 0 else multiple
    weights = {"cycle": config.cycle_weight, "identity": config.identity_weight}
    preset = replace(
        preset,
        generator=generators,
        discriminator=discriminators,
        adversarial=config.adversarial or preset.adversarial,
        replay=config.replay or preset.replay,
        augment={None: preset.augment, "none": None, "diffaugment": DiffAugment()}[config.augment],
        weights=replace(preset.weights, **{name: w for name, w in weights.items() if w is not None}),
        learning_rate=config.learning_rate or preset.learning_rate,
        batch_size=config.batch_size or preset.batch_size,
        crop=crop,
        resize=round(crop * preset.resize / preset.crop),
    )
    words = {
        "device": str(device),
        "generator": generator,
        "discriminator": discriminator,
        "width": width or "the parts' own",
        "image_size": crop,
        "batch_size": preset.batch_size,
        "adversarial": preset.adversarial,
        "replay": preset.replay,
        "augment": str(preset.augment),
        "weights": dataclasses.asdict(preset.weights),
        "learning_rate": preset.learning_rate,
    }
    return preset, words


def run_length(config: Config, preset: Preset, pairs: int, device: torch.device) -> int:
    """The steps of the whole run."""
    if config.epochs is not None and config.steps is not None:
        raise ValueError(f"--epochs {config.epochs} and --steps {config.steps} exclude each other: give one")
    if config.steps is not None:
        return config.steps
    if device.type == "cpu" and config.epochs is None:  # measured: about three minutes on two cores
        return max(1, round(CPU_STEPS * (128 / preset.crop) ** 2 * 2 / preset.batch_size))
    return (config.epochs or preset.epochs) * (preset.steps_per_epoch or -(-pairs // preset.batch_size))


def find_data(config: Config) -> Domains:
    """The user's images; else the competition's, else the sample."""
    root = config.data
    if root is None and not (config.photos and config.paintings):
        root = KAGGLE if KAGGLE.is_dir() else sample()
        whose = "the competition's" if root == KAGGLE else "the sample that ganparts ships (Van Gogh)"
        console.print(f"No --data given: training on {whose}.")
    return open_domains(root, photos=config.photos, paintings=config.paintings, skip_unreadable=config.skip_unreadable)


def train(config: Config, out: Path, *, resume: bool) -> None:
    """Train, paint, and leave everything in the folder ``out``."""
    device = pick_device(config.device)
    preset, words = settle(config, device)
    domains = find_data(config)
    dataset = PairDataset(
        domains.a, domains.b, seed=config.seed, resize=preset.resize, crop=preset.crop, flip=preset.flip
    )
    steps = run_length(config, preset, len(dataset), device)
    torch.manual_seed(config.seed)
    model = build_cyclegan(preset).to(device)
    optimizers = make_optimizers(model, learning_rate=preset.learning_rate, betas=preset.betas, eps=preset.eps)

    (out / "samples").mkdir(parents=True, exist_ok=True)
    checkpoint, start = out / "checkpoint.pt", 0
    if resume:
        start, _ = load_checkpoint(checkpoint, model=model, optimizers=optimizers)
    options = to_json(config)
    words |= {"steps": steps, "data": domains.origin}
    (out / "config.json").write_text(json.dumps({"options": options, "settled": words}, indent=2) + "\n")
    describe(config, words, domains, out, start)

    photos = sample_photos(domains.test_a or domains.a, count=6, size=preset.crop).to(device)
    sample_every = config.sample_every or max(1, steps // 10)
    workers = config.workers if config.workers is not None else 4 * (device.type == "cuda")
    batches = load_pairs(
        dataset, batch_size=preset.batch_size, start=start, steps=steps, workers=workers, device=device
    )
    monitor = Monitor(
        out / "losses.csv", steps=steps, start=start, pairs=preset.batch_size, every=config.log_every, console=console
    )

    def save_samples(step: int) -> None:
        with evaluating(model):
            save_grid(out / "samples" / f"step_{step:07d}.png", photos, (model.generator_ab, model.generator_ba))

    step, unreadable = start, None
    with StopSignals() as stop, monitor:
        try:
            for step, pair in enumerate(monitor.timed(batches), start + 1):
                learning_rate = preset.learning_rate * preset.schedule(step - 1, steps)
                optimizers.set_learning_rate(learning_rate)
                losses = train_step(model, pair, optimizers)
                monitor.log(step, losses, learning_rate)
                if step % sample_every == 0:
                    save_samples(step)
                if step % config.checkpoint_every == 0:
                    save_checkpoint(checkpoint, step=step, config=options, model=model, optimizers=optimizers)
                if stop.requested:
                    break
        except UnreadableImageError as error:  # what was learnt so far is kept
            unreadable = error
    save_checkpoint(checkpoint, step=step, config=options, model=model, optimizers=optimizers)
    save_samples(step)
    save_pretrained(model.generator_ab, out / "generator")
    if unreadable is not None:
        raise unreadable
    if step < steps:
        console.print(f"Stopped after step {step} of {steps}. Go on with: --resume {out}")
    paint(config, model.generator_ab.eval(), domains, out, device)


def paint(config: Config, generator: nn.Module, domains: Domains, out: Path, device: torch.device) -> None:
    """Write ``images.zip``: paintings of the photos that were kept out of training, then of the others."""
    sets = [images for images in (domains.test_a, domains.a) if images is not None]
    total = sum(len(images) for images in sets)
    limit = config.paint if config.paint is not None else total if device.type == "cuda" else min(256, total)
    photos = itertools.islice(itertools.chain.from_iterable(images.readable() for images in sets), limit)
    cut = f", of {total}, for on a CPU it takes a while: --paint {total} paints all" if limit < total else ""
    console.print(f"Painting {limit} photos{cut}.")
    try:
        with Progress(console=console, transient=True) as progress:
            written = translate_to_zip(generator, progress.track(photos, total=limit), out / "images.zip")
        console.print(f"Wrote {written} paintings of 256x256 to {out / 'images.zip'}")
    except KeyboardInterrupt:
        console.print("Painting was stopped; images.zip was not written.")


def describe(config: Config, words: dict[str, Any], domains: Domains, out: Path, start: int) -> None:
    """Say what is going to happen."""
    console.print(f"Photos: {len(domains.a)}, paintings: {len(domains.b)} ({domains.origin}).")
    if words["device"] == "cpu":
        console.print(
            "On a CPU the run is scaled down where no option says otherwise (a small U-Net, narrow networks, small "
            "images, few steps); on a GPU it trains the whole preset."
        )
    shown = ("device", "generator", "discriminator", "width", "image_size", "batch_size", "steps")
    console.print(f"Preset {config.preset}: " + ", ".join(f"{name} {words[name]}" for name in shown) + ".")
    console.print(f"{'Going on after step ' + str(start) + ' in' if start else 'Everything goes to'} {out}")


def to_json(config: Config) -> dict[str, Any]:
    """The options as plain values."""
    return {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(config).items()}


def from_json(options: dict[str, Any]) -> Config:
    """The options that :func:`to_json` wrote."""
    paths: dict[str, Any] = {
        name: Path(options[name]) for name in ("data", "photos", "paintings", "out") if options[name]
    }
    return Config(**options | paths)


def main() -> int:
    """The command line; the exit code."""
    config = tyro.cli(Config, description=__doc__)
    out = config.resume or config.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        if config.resume:
            config = from_json(load_checkpoint(out / "checkpoint.pt")[1])
        train(config, out, resume=out == config.resume)
    except (KeyError, ValueError, TypeError, OSError, DeviceError) as error:
        if config.debug:
            raise
        console.print(f"[bold red]error:[/] {escape(str(error))}", style=None)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
