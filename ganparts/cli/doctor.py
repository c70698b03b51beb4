"""``ganparts doctor``: what this machine can do, and what a card could at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro

from ganparts.adversarial import MEMORY_LEVELS, MemoryEstimateError, make_optimizers, memory_need
from ganparts.cli.app import Imports, app, console, import_parts, print_table
from ganparts.cyclegan import build_cyclegan
from ganparts.cyclegan.options import PresetOptions
from ganparts.interchange.bounds import CARDS, Bound, bounds, count_step
from ganparts.protocols import Pair
from ganparts.training import DeviceError, Policy, PolicyOptions, available_memory, choose_policy, pick_device, versions

__all__ = ["DoctorOptions", "doctor"]


@dataclass(frozen=True)
class DoctorOptions(PolicyOptions, PresetOptions):
    """The options of the recipe that matter for how a step is computed."""

    device: str = "auto"
    """Device to look at: auto, cpu, cuda, cuda:1 ..."""
    card: Literal["P100", "T4", "V100", "A100", "H100", "RTX4090"] | None = None
    """Do not look at this machine, but print lower bounds for the time of a training step on this card."""
    imports: Imports = ()
    """Modules with parts of your own, to import first. Python looks for them on PYTHONPATH."""


@app.command
def doctor(options: Annotated[DoctorOptions, tyro.conf.arg(name="")]) -> int:
    """Tell what this machine can do.

    Device, PyTorch's kernels for it, how a training step would be computed and why, memory, and the largest batch
    that fits. Examples: ganparts doctor --preset two_objective --batch-size 4; ganparts doctor --card P100
    """
    import_parts(options.imports)
    if options.card is not None:
        return _print_bounds(options.card, options)
    console.print(_software())
    failure, device = None, torch.device("cpu")
    try:
        device = pick_device(options.device)
    except DeviceError as error:
        failure = str(error)
        if torch.cuda.is_available():
            device = torch.device("cuda", torch.cuda.current_device())
    console.print(_hardware(device))
    if failure is not None:
        console.print(f"error: {failure}")
        return 1
    console.print("A convolution ran on it.\n")
    policy = choose_policy(device, options)
    print_table(("choice", "value", "why"), policy.describe())
    _print_memory(device, options, policy)
    return 0


def _print_bounds(card_name: str, options: DoctorOptions) -> int:
    """The times that a step of the preset cannot beat on a card."""
    card, preset = CARDS[card_name], options.settle().preset
    policy = choose_policy(torch.device("cuda"), options, capability=card.capability)
    with torch.device("meta"):
        model = build_cyclegan(preset)
        pair = Pair(*torch.empty(2, preset.batch_size, 3, preset.crop, preset.crop))
    work = count_step(lambda optimizers: model.train_step(pair, optimizers), make_optimizers(model))
    found = bounds(work, card, policy.precision)
    console.print(
        f"A step of the preset {options.preset} on a {card.name} in {policy.precision}, batch {preset.batch_size}, "
        f"{preset.crop} px, takes at least:\n"
    )
    rows = [(f"{each.milliseconds:.1f} ms", each.work, each.holds_for) for each in found if isinstance(each, Bound)]
    print_table(("at least", "for", "in an implementation with"), rows, right=("at least", "for"))
    console.print(
        f"\nThese are bounds, not forecasts. With direct convolutions none beats {found.milliseconds:.1f} ms, "
        f"{1000 * preset.batch_size / found.milliseconds:.3g} pairs a second; what runs there is slower."
    )
    console.print(f"Rates: {card.tflops[policy.precision]:g} TFLOP/s, {card.gigabytes:g} GB/s ({card.source}).")
    return 0


def _print_memory(device: torch.device, options: DoctorOptions, policy: Policy) -> None:
    (preset, scaled_down), free = options.settle(small=device.type == "cpu"), available_memory(device)
    model, rows = build_cyclegan(preset), []
    for level in MEMORY_LEVELS:
        try:
            need = memory_need(
                model,
                lambda size: Pair(*torch.empty(2, size, 3, preset.crop, preset.crop)),
                level=level,
                device_type=device.type,
                averaged=preset.ema_decay is not None,
                context=policy.autocast,
                layout=policy.memory_layout,
            )
        except MemoryEstimateError as error:
            console.print(f"\n{error}")
            return
        rows.append((level, f"{need.at(preset.batch_size) / 2**30:.2f} GiB", str(need.largest_batch(free))))
    console.print(f"\n{free / 2**30:.1f} GiB are free. Training the preset {options.preset} at {preset.crop} px needs:")
    if scaled_down:
        console.print(f"(Scaled down for a CPU, as the recipe does: {'; '.join(scaled_down)}.)")
    print_table(("--memory", f"batch size {preset.batch_size}", "largest batch that fits"), rows)


def _software() -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    kernels = f", kernels for {', '.join(torch.cuda.get_arch_list())}" if torch.cuda.is_available() else ""
    return f"{found} (built with {cuda}{kernels})"


def _hardware(device: torch.device) -> str:
    if device.type != "cuda":
        return f"Device {device}: {torch.get_num_threads()} threads, {available_memory(device) / 2**30:.1f} GiB free"
    card = torch.cuda.get_device_properties(device)
    return f"Device {device}: {card.name}, capability {card.major}.{card.minor}, {card.total_memory / 2**30:.1f} GiB"
