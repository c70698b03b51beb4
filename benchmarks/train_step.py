"""The training step in each mode against the textbook's: milliseconds, ratios, peak memory, share of the floor.

Two at a time train copies of the same networks on the same images in one process, taking turns; their losses are
compared first. Run it from the repository: ``python -m benchmarks.train_step --help``.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.modes import METHODS, Mode, build, chosen_modes, make_step
from benchmarks.profiles import P100_TFLOPS, apply_profile, matrix_rate
from benchmarks.record import interleaved, summary, write_json
from ganparts import CUT, CycleGAN, Pair, Pix2Pix, make_optimizers, train_step
from ganparts.training import explain_out_of_memory, pick_device

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """The training step in each mode against the textbook's."""

    method: Literal["cyclegan", "cut", "fastcut", "pix2pix"] = "cyclegan"
    """What is trained."""
    generators: tuple[str, ...] = ()
    """Registered generators; none for the method's published one."""
    sizes: tuple[int, ...] = (256,)
    """Heights and widths of the images, in pixels."""
    batch_sizes: tuple[int, ...] = (1,)
    """Pairs a step."""
    modes: tuple[str, ...] = ()
    """Of benchmarks/modes.py; none for all that the device can do."""
    replay: str = "none"
    """The replay buffer, of both steps; only of CycleGAN."""
    identity_weight: float = 5.0
    """0 leaves the identity loss out; only of CycleGAN."""
    width: int = 64
    """Channels after the first convolution of each generator."""
    rounds: int = 9
    """Counted steps of each."""
    warmup: int = 2
    """Steps of each before them."""
    profile: Literal["none", "p100"] = "none"
    """p100: IEEE fp32, no Triton and 16 GB, as far as any card can stand in for a P100."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    out: Path = Path("benchmarks/results/train_step.json")
    """Where the record goes."""


class LossesDifferError(Exception):
    """Our step has other losses than the textbook's."""


def compare(
    config: Config, generator: str, size: int, batch_size: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    """A row for each mode, as soon as it is measured."""
    torch.manual_seed(0)
    model = _build(config, generator)
    flops = count_flops(config, generator, size, batch_size)
    pair = Pair(*(torch.rand(2, batch_size, 3, size, size, device=device) * 2 - 1))
    modes = chosen_modes(device, config.modes, p100=config.profile == "p100")
    (baseline, textbook), *others = modes.items()
    for name, mode in others:
        row: dict[str, Any] = {"method": config.method, "generator": generator, "size": size, "batch_size": batch_size}
        row |= {"mode": name, "baseline": baseline, "tflop": round(flops / 1e12, 4)}
        measured, failed = None, "out of memory"
        for modes_tried in ({"textbook": textbook, "this": mode}, {"this": mode}):  # ours may fit where both do not
            try:
                measured = race(config, model, pair, modes_tried)
                break
            except (RuntimeError, torch.OutOfMemoryError) as error:
                if explain_out_of_memory(error) is None:
                    raise
            except LossesDifferError as error:  # told in the record, and the next mode goes on
                failed = str(error)
                break
            finally:
                _free(device)
        if measured is None:
            yield row | {"failed": failed}
        else:
            yield row | measured | {"tflops": round(flops / 1e9 / measured["median_ms"], 2)}


def _build(config: Config, generator: str) -> CycleGAN | CUT | Pix2Pix:
    return build(
        generator,
        width=config.width,
        identity_weight=config.identity_weight,
        replay=config.replay,
        method=config.method,
    )


def race(config: Config, model: CycleGAN | CUT | Pix2Pix, pair: Pair, modes: dict[str, Mode]) -> dict[str, Any]:
    """Time one mode ("this") against the textbook's step, if that is given too.

    Memory is measured before that, of each by itself: ``model`` stays on the CPU, and only the copy that is trained is
    on the device.
    """
    device = pair.a.device
    losses, peaks = {}, {}
    for name, mode in modes.items():
        step = make_step(mode, model, pair)
        torch.manual_seed(1)
        losses[name] = step()
        peaks[name] = _peak_bytes(step, device)
        del step
        _free(device)
    loose = 1e-3 if {mode.options.precision for mode in modes.values()} == {"fp32"} else 5e-2
    for name, loss in losses.get("textbook", {}).items():
        if not torch.allclose(losses["this"][name].double(), loss.double(), rtol=loose, atol=loose / 10):
            raise LossesDifferError(f"{name} is {losses['this'][name]:.5g}, and {loss:.5g} by the textbook's step")
    steps = {name: make_step(mode, model, pair) for name, mode in modes.items()}
    seconds = interleaved(steps, rounds=config.rounds, warmup=config.warmup, device=device)
    row: dict[str, Any] = summary(seconds["this"])
    row["pairs_per_second"] = round(len(pair.a) / statistics.median(seconds["this"]), 3)
    if "textbook" in seconds:
        ratios = (t / o for t, o in zip(seconds["textbook"], seconds["this"], strict=True))
        row |= {"textbook": summary(seconds["textbook"]), "textbook_over_this": round(statistics.median(ratios), 3)}
    if device.type == "cuda":
        row |= {f"{name}_peak_mib": round(peak / 2**20) for name, peak in peaks.items()}
    return row


def _free(device: torch.device) -> None:
    """Give back what a model held that nobody uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _peak_bytes(step: Any, device: torch.device) -> int:
    """What PyTorch's allocator reserved at most; what a replayed graph uses lies in a pool of its own."""
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_reserved(device)


def count_flops(config: Config, generator: str, size: int, batch_size: int) -> int:
    """Operations of our step, as torch counts them."""
    with torch.device("meta"):
        model = _build(config, generator)
    pair = Pair(*torch.empty(2, batch_size, 3, size, size, device="meta"))
    optimizers = make_optimizers(model)
    with FlopCounterMode(display=False) as counter:
        train_step(model, pair, optimizers)
    return counter.get_total_flops()


def main() -> int:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    notes = apply_profile(config.profile, device)
    if device.type == "cuda":
        notes |= {f"matrix_tflops_{name}": round(rate, 1) for name, rate in matrix_rate(device).items()}
    table = Table("generator", "px", "batch", "mode", "textbook ms", "ms", "textbook / this", "pairs/s")
    results = []
    for generator in config.generators or (METHODS[config.method],):
        for size in config.sizes:
            for batch_size in config.batch_sizes:
                for row in compare(config, generator, size, batch_size, device):
                    if config.profile == "p100":
                        row["p100_floor_ms"] = round(1e3 * row["tflop"] / P100_TFLOPS, 1)
                    results.append(row)
                    table.add_row(generator, str(size), str(batch_size), *_cells(row))
                    write_json(config.out, settings=vars(config) | notes, results=results, device=device)
    Console(width=120).print(table)
    return int(any("textbook's" in row.get("failed", "") for row in results))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in row:
        return row["mode"], row["failed"]
    textbook = f"{row['textbook']['median_ms']:.1f}" if "textbook" in row else "out of memory"
    times = (textbook, f"{row['median_ms']:.1f}", f"{row['textbook_over_this']:.3f}" if "textbook" in row else "")
    return row["mode"], *times, f"{row['pairs_per_second']:.2f}"


if __name__ == "__main__":
    sys.exit(main())
