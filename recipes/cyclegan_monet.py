"""Train a CycleGAN that paints photos, then paint them: the Kaggle competition's if they are mounted, else the sample
that ganparts ships. On a GPU it trains the whole preset; on a CPU it scales itself down to about three minutes.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from torch import nn

import ganparts
from ganparts import DISCRIMINATORS, GENERATORS
from ganparts.augment import DiffAugment
from ganparts.cyclegan import LossWeights, Preset
from ganparts.data import Domains, PairDataset, UnreadableImageError, load_pairs, open_domains
from ganparts.interchange import describe_network, save_pretrained
from ganparts.registry import Registry
from ganparts.training import DeviceError, Monitor, RunFolder, StopSignals, load_checkpoint, pick_device, sample_photos
from ganparts.translate import translate_to_zip

CPU_NOTE = """A CPU scales down what no option chose: few steps, batch 1, width 32, small images; the paper's ResNet
becomes a U-Net, with learning rate 5e-4 and identity weight 2. A GPU trains the whole preset."""
FREE_TO_CHANGE = {"workers", "paint", "log_every", "sample_every", "checkpoint_every", "debug"}  # when a run goes on
MAY_BE_ZERO = {"seed", "workers", "paint", "cycle_weight", "identity_weight", "skip_unreadable", "debug"}
console = Console(highlight=False, markup=False, soft_wrap=True)


def named(table: Registry[Any], does: str) -> Any:
    return tyro.conf.arg(help=f"{does}: {', '.join(table)}.", metavar="NAME")


@dataclass(frozen=True)
class Config:
    """The command line. None stands for the preset's value, and on a CPU for a smaller one where size matters."""

    data: Path | None = None
    """A folder in Kaggle's or CycleGAN's layout (see the README). None: the competition's mount, else the sample."""
    photos: Path | None = None
    """A folder of photos (image files or TFRecords) instead of the layout's."""
    paintings: Path | None = None
    """A folder of paintings (image files or TFRecords) instead of the layout's."""
    skip_unreadable: bool = False
    """Warn of images that cannot be read, and go on without them."""
    imports: tuple[str, ...] = ()
    """Modules to import first, which register parts of your own; Python must find them (PYTHONPATH)."""
    preset: Annotated[str, named(ganparts.PRESETS, "Complete settings")] = "paper"
    generator: Annotated[str | None, named(GENERATORS, "Translates")] = None
    discriminator: Annotated[str | None, named(DISCRIMINATORS, "Tells real from generated")] = None
    adversarial: Annotated[str | None, named(ganparts.ADVERSARIAL_LOSSES, "Trains the two against each other")] = None
    replay: Annotated[str | None, named(ganparts.REPLAY_BUFFERS, "Shows discriminators older images too")] = None
    augment: Literal["none", "diffaugment"] | None = None
    """What is done to images before a discriminator sees them."""
    upsample: Literal["transposed", "resize_conv"] | None = None
    """How generators enlarge (keras_unet256 has no choice); resize_conv leaves no checkerboard."""
    cycle_weight: float | None = None
    """Factor on the mean L1 between an image and what comes back of it after both translations."""
    identity_weight: float | None = None
    """Factor on the mean L1 between a painting and its painting, a photo and its photo; 0 switches it off."""
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
    """Processes that decode images. None: up to 4 for a GPU, 0 for a CPU."""
    paint: int | None = None
    """Photos to paint into images.zip. None: all on a GPU, at most 256 on a CPU."""
    out: Path | None = None
    """The run folder. None: runs/ and the time."""
    resume: Path | None = None
    """A run folder to go on with, by its own options (only workers, paint and the intervals can be given anew)."""
    log_every: int = 10
    """Steps between two rows of losses.csv."""
    sample_every: int | None = None
    """Steps between two grids of samples. None: a tenth of the run."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; one is written at the end in any case."""
    debug: bool = False
    """Show the whole trace of an error."""

    def __post_init__(self) -> None:
        if self.epochs and self.steps:
            raise ValueError(f"--epochs {self.epochs} and --steps {self.steps} exclude each other: give one")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and (value < 0 or (value == 0 and name not in MAY_BE_ZERO)):
                raise ValueError(f"--{name.replace('_', '-')} {value} is too small")


def settle(config: Config, device: torch.device) -> Preset:
    """The preset with the user's choices in it, and on a CPU, where it would take weeks, made smaller."""
    preset = ganparts.PRESETS.create(config.preset)
    published, small = preset.crop, device.type == "cpu"
    if small:
        preset = replace(preset, batch_size=1)
        if config.preset == "paper" and config.generator is None:
            preset = replace(preset, generator="unet128", learning_rate=5e-4, weights=LossWeights(identity=2.0))

    def built(table: Registry[Any], choice: Any, upsample: str | None = None) -> Any:
        given = {n: v for n, v in {"width": config.width, "upsample": upsample}.items() if v is not None}
        wished = {"width": 32} | ({"upsample": "resize_conv"} if choice == "unet128" else {}) if small else {}

        def builder(name: Any) -> Any:
            if not isinstance(name, str):
                return name  # a preset's own builder
            return partial(table.create, name, **{n: v for n, v in wished.items() if n in table.options(name)} | given)

        return tuple(map(builder, choice if isinstance(choice, tuple) else (choice, choice)))

    generator = built(GENERATORS, config.generator or preset.generator, config.upsample)
    crop = config.image_size or published
    if small and config.image_size is None:
        with torch.device("meta"):  # 128 pixels where the generator takes them
            multiple = getattr(generator[0](), "size_multiple", 1)
        crop = 128 if 128 % multiple == 0 else multiple
    weights = {"cycle": config.cycle_weight, "identity": config.identity_weight}
    return replace(
        preset,
        generator=generator,
        discriminator=built(DISCRIMINATORS, config.discriminator or preset.discriminator),
        adversarial=config.adversarial or preset.adversarial,
        replay=config.replay or preset.replay,
        augment={None: preset.augment, "none": None, "diffaugment": DiffAugment()}[config.augment],
        weights=replace(preset.weights, **{name: w for name, w in weights.items() if w is not None}),
        learning_rate=config.learning_rate or preset.learning_rate,
        batch_size=config.batch_size or preset.batch_size,
        crop=crop,
        resize=round(crop * preset.resize / published),
    )


def train(config: Config, out: Path, *, resume: bool) -> None:
    """Train, paint, and leave everything in the folder ``out``."""
    for module in config.imports:
        importlib.import_module(module)
    device = pick_device(config.device)
    preset = settle(config, device)
    domains = open_domains(
        config.data, photos=config.photos, paintings=config.paintings, skip_unreadable=config.skip_unreadable
    )
    sizes = {"resize": preset.resize, "crop": preset.crop, "flip": preset.flip}
    dataset = PairDataset(domains.a, domains.b, seed=config.seed, **sizes)
    whole = (config.epochs or preset.epochs) * preset.epoch_steps(len(dataset))
    few = max(1, round(330 * (128 / preset.crop) ** 2 / preset.batch_size))  # about three minutes on two cores
    steps = config.steps or (few if device.type == "cpu" and not config.epochs else whole)
    torch.manual_seed(config.seed)
    model = ganparts.build_cyclegan(preset).to(device)
    optimizers = ganparts.make_optimizers(model, learning_rate=preset.learning_rate, betas=preset.betas, eps=preset.eps)
    settled = preset.numbers() | {"device": device.type, "steps": steps, "data": domains.origin, "pairs": len(dataset)}
    describe_network(model.generator_ab)  # refuses now, not after training, one that could not be saved
    folder = RunFolder(out, options=vars(config), settled=settled, model=model, optimizers=optimizers)
    start = folder.start(resume=resume)
    console.print(f"Data: {len(domains.a)} photos, {len(domains.b)} paintings ({domains.origin}).")
    console.print(
        f"Preset {config.preset} on {device}: {folder.parts['generator_ab']}, {preset.crop} px, batch size "
        f"{preset.batch_size}, {steps} steps, {start} of them done; everything goes to {out}"
    )
    if device.type == "cpu":
        console.print(CPU_NOTE)

    workers = min(4, os.cpu_count() or 1) * (device.type == "cuda") if config.workers is None else config.workers
    batch = preset.batch_size
    pairs = load_pairs(dataset, batch_size=batch, start=start, steps=steps, workers=workers, device=device)
    monitor = Monitor(folder.losses, steps=steps, start=start, pairs=batch, every=config.log_every, console=console)
    photos = sample_photos(domains.test_a or domains.a, count=6, size=preset.crop).to(device)
    sample_every = config.sample_every or max(1, steps // 10)
    step, stages = start, (model.generator_ab, model.generator_ba)  # photo, painting of it, photo again
    with StopSignals() as stop, monitor:
        try:
            for step, pair in enumerate(monitor.timed(pairs), start + 1):
                learning_rate = preset.learning_rate * preset.schedule(step - 1, steps)
                optimizers.set_learning_rate(learning_rate)
                losses = ganparts.train_step(model, pair, optimizers)
                monitor.log(step, losses, learning_rate)
                if step % sample_every == 0 or step == steps or stop.requested:
                    folder.save_samples(step, photos, stages)
                if step % config.checkpoint_every == 0:
                    folder.save(step)
                if stop.requested:
                    break
        except UnreadableImageError:  # what was learnt so far is kept
            folder.save(step)
            raise
    folder.save(step)
    save_pretrained(model.generator_ab, folder.generator)
    if step < steps:
        console.print(f"Stopped after step {step} of {steps}; --resume {out} goes on. (Ctrl-C again: no paintings.)")
    paint(config, model.generator_ab.eval(), domains, folder, device)


def paint(config: Config, generator: nn.Module, domains: Domains, folder: RunFolder, device: torch.device) -> None:
    """Write ``images.zip``: paintings of the photos, those that were kept out of training first."""
    photos = domains.photos()
    total = len(photos)
    limit = min(total, config.paint if config.paint is not None else total if device.type == "cuda" else 256)
    console.print(f"Painting {limit} photos{f' (all {total}: --paint {total})' if limit < total else ''}.")
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            written = translate_to_zip(generator, progress.track(photos.readable(limit), total=limit), folder.images)
        console.print(f"{written} paintings of 256x256 are in {folder.images}")
    except KeyboardInterrupt:
        console.print("Painting was interrupted: there is no images.zip of this run.")


def main() -> int:
    warnings.showwarning = lambda message, *_, **__: console.print(f"warning: {message}")
    config = tyro.cli(Config, description=__doc__)
    out = config.resume or config.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        if resume := config.resume is not None:
            given = {n: v for n, v in vars(config).items() if v != getattr(Config(), n) and n != "resume"}
            if fixed := ", ".join(given.keys() - FREE_TO_CHANGE):
                raise ValueError(f"--resume {out} goes on by that run's own options: do not give {fixed}")
            options = load_checkpoint(out / "checkpoint.pt")[1]["options"]
            paths: dict[str, Any] = {n: Path(options[n]) for n in ("data", "photos", "paintings", "out") if options[n]}
            config = Config(**options | paths | given)
        train(config, out, resume=resume)
    except (KeyError, ValueError, TypeError, OSError, ImportError, DeviceError) as error:
        if config.debug:
            raise
        console.print(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
