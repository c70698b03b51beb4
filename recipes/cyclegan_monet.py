"""Train a CycleGAN that paints photos, then paint them: the Kaggle competition's if they are mounted, else the sample
that ganparts ships. On a GPU it trains the whole preset; on a CPU it scales itself down to about three minutes.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from torch import nn

import ganparts
from ganparts import training
from ganparts.blocks import recompute_blocks
from ganparts.cyclegan import AveragedGenerators, plan_memory
from ganparts.cyclegan.options import PresetOptions
from ganparts.data import Domains, PairDataset, UnreadableImageError, load_pairs, open_domains
from ganparts.interchange import ModelCard, describe_network, save_pretrained
from ganparts.metrics import Evaluator, UnavailableError
from ganparts.protocols import Pair
from ganparts.submission import SubmissionError, check_submission
from ganparts.translate import translate_to_zip

CPU_NOTE = """A CPU scales down what no option chose: few steps, batch 1, width 32, small images; the paper's ResNet
becomes a U-Net, with learning rate 5e-4 and identity weight 2. A GPU trains the whole preset."""
LOOK_EVERY = 100  # steps between two looks at pictures for what may go wrong
console = Console(highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Config(training.RunOptions, training.PolicyOptions, PresetOptions):
    """The command line. None stands for the preset's value, and on a CPU for a smaller one where size matters."""

    data: Path | None = None
    """A folder in Kaggle's or CycleGAN's layout (see the README). None: the competition's mount, else the sample."""
    photos: Path | None = None
    """A folder of photos (image files or TFRecords) instead of the layout's."""
    paintings: Path | None = None
    """A folder of paintings (image files or TFRecords) instead of the layout's."""
    skip_unreadable: bool = False
    """Warn of images that cannot be read, and go on without them."""
    hold_data: Literal["auto", "on", "off"] = "auto"
    """Keep all images, decoded, on the device; auto: on a GPU, if they fit."""
    workers: int | None = None
    """Processes that decode images. None: up to 4 for a GPU, 0 for a CPU."""
    memory: Literal["auto", "fast", "low", "lowest"] = "auto"
    """fast, or slower with less memory; auto: the fastest that fits."""
    imports: tuple[str, ...] = ()
    """Modules to import first, which register parts of your own; Python must find them (PYTHONPATH)."""
    evaluate_every: int | None = None
    """Steps between two evaluations, the best of which is kept as best.pt (pip install "ganparts[metrics]")."""
    evaluate_photos: int = 500
    """Photos that are painted for an evaluation, always the same; all paintings are compared with."""
    metric: Literal["kid", "fid", "mifid"] = "kid"
    """Decides which checkpoint is the best."""
    extractor: str = "auto"
    """Whose features are compared: inception, efficientnet_lite0, timm:MODEL."""
    patience: int | None = None
    """Stop when so many evaluations in a row were no better."""
    paint: int | None = None
    """Photos to paint into images.zip. None: all on a GPU, at most 256 on a CPU."""


def train(config: Config) -> None:
    """Train, paint, and leave everything in the run folder."""
    for module in config.imports:
        importlib.import_module(module)
    training.make_deterministic(config.deterministic)
    device = training.pick_device(config.device)
    preset = config.settle(small=device.type == "cpu")
    domains = open_domains(
        config.data, photos=config.photos, paintings=config.paintings, skip_unreadable=config.skip_unreadable
    )
    sizes = {"resize": preset.resize, "crop": preset.crop, "flip": preset.flip}
    dataset = PairDataset(domains.a, domains.b, seed=config.seed, **sizes)
    whole = (config.epochs or preset.epochs) * preset.epoch_steps(len(dataset))
    few = max(1, round(330 * (128 / preset.crop) ** 2 / preset.batch_size))  # about three minutes on two cores
    steps = config.steps or (few if device.type == "cpu" and not config.epochs else whole)

    policy = training.choose_policy(device, config)
    free, batch = training.available_memory(device), preset.batch_size
    plan = plan_memory(
        partial(ganparts.build_cyclegan, preset),
        **{"batch_size": batch, "available": free, "size": preset.crop, "level": config.memory},
        **{"device_type": device.type, "averaged": preset.ema_decay is not None, "context": policy.autocast},
        layout=policy.memory_layout,
    )
    torch.manual_seed(config.seed)
    model = ganparts.build_cyclegan(preset).to(device)
    describe_network(model.generator_ab)  # refuses now, not after training, one that could not be saved
    policy.prepare(model)
    numbers = {"learning_rate": preset.learning_rate, "betas": preset.betas, "eps": preset.eps}
    guards = {"scaling": policy.scaling, "skip_nonfinite": config.on_nonfinite == "skip"}
    optimizers = ganparts.make_optimizers(model, **guards, **numbers)
    averages = None if preset.ema_decay is None else AveragedGenerators(model, decay=preset.ema_decay)
    stateful = {"model": model, "optimizers": optimizers} | ({} if averages is None else {"averages": averages})
    settled = preset.numbers() | {"device": device.type, "steps": steps, "data": domains.origin, "pairs": len(dataset)}
    out = config.folder
    folder = training.RunFolder(
        out,
        options=vars(config) | {"memory": plan.level},
        settled=settled | {"precision": policy.precision},
        **stateful,
    )
    start = folder.start(resume=config.resume is not None)
    console.print(f"Data: {len(domains.a)} photos, {len(domains.b)} paintings ({domains.origin}).")
    console.print(
        f"Preset {config.preset} on {device}: {folder.parts['generator_ab']}, {preset.crop} px, batch size "
        f"{preset.batch_size}, {steps} steps, {start} of them done; everything goes to {out}"
    )
    if device.type == "cpu":
        console.print(CPU_NOTE)
    for name, choice, reason in policy.describe():
        console.print(f"  {name} {choice}: {reason}")
    recompute_blocks(model, plan.level == "lowest")
    console.print(
        f"  memory {plan.level}: needs about {plan.need.at(batch) / 2**30:.2f} of {free / 2**30:.1f} GiB; the largest "
        f"batch that fits is {plan.need.largest_batch(free)}"
    )

    ways = {"low_memory": plan.level != "fast", "side_stream": policy.side_stream()}

    def train_once(pair: Pair) -> dict[str, torch.Tensor]:
        losses = ganparts.train_step(model, pair, optimizers, **ways)
        if averages is not None:
            averages.update()
        return losses

    train_step = policy.wrap(train_once, networks=(model.generator_ab, model.generator_ba), **stateful)
    workers = min(4, os.cpu_count() or 1) * (device.type == "cuda") if config.workers is None else config.workers
    fits = device.type == "cuda" and plan.need.at(batch) + dataset.nbytes < free
    if config.hold_data == "on" or (config.hold_data == "auto" and fits):
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            dataset = dataset.on_device(device, workers=workers, track=partial(progress.track, description="decoding"))
    pairs = load_pairs(dataset, batch_size=batch, start=start, steps=steps, workers=workers, device=device)
    board = out / "tensorboard" if config.tensorboard else None
    lengths = {"steps": steps, "start": start, "pairs": batch, "every": config.log_every}
    monitor = training.Monitor(folder.losses, **lengths, console=console, tensorboard=board)
    watch = training.Watch(folder.warnings, start=start, say=lambda finding: console.print(f"warning: {finding}"))
    photos = training.sample_photos(domains.test_a or domains.a, count=6, size=preset.crop).to(device)
    sample_every = config.sample_every or max(1, steps // 10)
    networks = {name: network for name, network in model.named_children() if name.startswith(("gen", "disc"))}
    guarded = optimizers.scaler is not None
    painters, evaluate, scores = averages or model, None, None
    if config.patience and not config.evaluate_every:
        raise ValueError(f"--patience {config.patience} needs evaluations: give --evaluate-every, too")
    if config.evaluate_every:
        judged = {"photos": domains.test_a or domains.a, "limit": config.evaluate_photos}
        evaluate = Evaluator(domains.b, **judged, extractor=config.extractor, device=device, workers=workers)
    step, stages = start, (painters.generator_ab, painters.generator_ba)  # photo, painting of it, photo again
    with folder:
        with training.StopSignals(time_limit=config.time_limit) as stop, monitor:
            try:
                for step, pair in enumerate(monitor.timed(pairs), start + 1):
                    learning_rate, finite = preset.learning_rate * preset.schedule(step - 1, steps), True
                    optimizers.set_learning_rate(learning_rate)
                    losses = train_step(pair)
                    last = step == steps or stop.requested
                    if monitor.is_due(step):
                        norms = training.gradient_norms(networks)
                        # a scaler leaves such steps out, and tries larger factors until one is
                        finite = watch.numbers(step, monitor.log(step, losses | norms, learning_rate), guarded=guarded)
                        folder.refresh_report()
                    if step % LOOK_EVERY == 0:
                        watch.pictures(step, stages[0], photos)
                    if step % sample_every == 0 or last:
                        folder.save_samples(step, photos, stages)
                    scored = evaluate is not None and (step % (config.evaluate_every or 1) == 0 or last)
                    if finite and (step % config.checkpoint_every == 0 or last or scored):
                        finite = folder.save(step)
                    if finite and scored and evaluate is not None:
                        scores = evaluate(stages[0])
                        stale = folder.save_scores(step, scores.values(), metric=config.metric)
                        if config.patience is not None and stale >= config.patience:
                            stop.reason = f"patience: {config.metric} is no better than {stale} evaluations before,"
                            last = True
                    if not finite and (back := folder.recover(step, config.on_nonfinite)) is not None:
                        console.print(f"Not finite at step {step}: going on with the weights of step {back}.")
                    if last:
                        break
            except UnreadableImageError:  # what was learnt so far is kept
                folder.save(step)
                raise
        facts = {"preset": config.preset, "data": domains.origin, "scores": scores.told() if scores else {}}
        card = ModelCard(**facts, steps=step, picture=folder.newest_sample())
        save_pretrained(stages[0], folder.generator, card=card)
        if step < steps:
            console.print(
                f"Stopped by {stop.reason} after step {step} of {steps}; --resume {out} goes on. (Ctrl-C again: no "
                "paintings.)"
            )
        paint(config, stages[0].eval(), domains, folder, device)
        folder.state = "finished" if step == steps else "stopped"
    console.print(f"The record of the run is {folder.path / 'report.html'}")


def paint(
    config: Config, generator: nn.Module, domains: Domains, folder: training.RunFolder, device: torch.device
) -> None:
    """Write ``images.zip``: paintings of the photos, those that were kept out of training first."""
    photos = domains.photos()
    total = len(photos)
    limit = min(total, config.paint if config.paint is not None else total if device.type == "cuda" else 256)
    console.print(f"Painting {limit} photos{f' (all {total}: --paint {total})' if limit < total else ''}.")
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            written = translate_to_zip(generator, progress.track(photos.readable(limit), total=limit), folder.images)
        console.print(f"{written} paintings of 256x256 are in {folder.images}")
        console.print(f"The competition takes it: {check_submission(folder.images)} images.")
    except SubmissionError as error:
        console.print(f"(Not yet for the competition: {str(error).splitlines()[1][2:]}.)")
    except KeyboardInterrupt:
        console.print("Painting was interrupted: there is no images.zip of this run.")


def main() -> int:
    warnings.showwarning = lambda message, *_, **__: console.print(f"warning: {message}")
    config = tyro.cli(Config, description=__doc__)
    try:
        train(training.resumed(config))
    except (KeyError, ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        known = not isinstance(error, RuntimeError) or isinstance(
            error, training.CaptureError | training.CompileError | training.DeviceError | UnavailableError
        )
        message = str(error) if known else training.explain_out_of_memory(error)
        if config.debug or message is None:
            raise
        console.print(f"error: {message}")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; what the last checkpoint holds is kept.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
