"""``ganparts translate``: photos in, paintings out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from ganparts.cli.app import Imports, app, console, import_parts, load_generator
from ganparts.precision import InferencePrecision, choose_inference
from ganparts.training import pick_device
from ganparts.translate import Report, translate_files, translate_on_cluster
from ganparts.translate.encoding import Subsampling
from ganparts.translate.sources import find_photos

__all__ = ["translate"]

_SHOWN = 50  # problems


@app.command
def translate(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    inputs: tyro.conf.Positional[tuple[str, ...]],
    *,
    out: Annotated[str, tyro.conf.arg(aliases=["-o"])],
    device: str = "auto",
    batch_size: int | None = None,
    size: int | None = None,
    resize: int | None = None,
    squash: bool = False,
    format: Literal["jpg", "png"] = "jpg",
    jpeg_quality: Annotated[int, tyro.conf.arg(aliases=["--quality"])] = 95,
    subsampling: Subsampling = "4:2:0",
    margin: int = 0,
    tile: int | None = None,
    precision: InferencePrecision = "auto",
    overwrite: bool = False,
    ray: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")] = None,
    ray_actors: int | None = None,
    ray_cores: int | None = None,
    imports: Imports = (),
) -> int:
    """Translate photos of any size: ganparts translate runs/first photos/ -o paintings/.

    What is in OUT already is skipped; inputs that cannot be read are listed at the end, and the exit code is 1.

    Args:
        model: A painter's name; a run folder; a pretrained folder; an .onnx file; a name on the Hugging Face Hub.
        inputs: Files, folders, patterns (quoted), archives (.zip, .tar); with --ray also addresses (s3://...).
        out: A folder, or an archive if it ends in .zip or .tar.
        device: Device to compute on: auto, cpu, cuda, cuda:1 ...
        batch_size: Photos of one size at a time, at most. None: 16 on a GPU, 1 on a CPU, where more is not faster.
        size: Height and width to which photos are resized first, in pixels. None: their own.
        resize: Shorter side to which photos are resized first, in pixels; the aspect ratio stays. The smaller it is,
            the broader the strokes look. None: their own.
        squash: With --size, distort photos that are not square, instead of painting their middle square.
        format: File format of the results.
        jpeg_quality: JPEG quality, 1 to 100.
        subsampling: How JPEGs store colours: 4:2:0 at half the height and width, as most programs write them; 4:2:2
            at half the width; 4:4:4 in full.
        margin: Pixels on each side, mirrored, that are painted, too, and cut off afterwards. 16 removes the frame that
            monet leaves around dark photos.
        tile: Compute about as many pixels at a time as a square of this side has; in fp32 the result is the same.
            None: for photos of more than a million pixels (four million on a GPU). 0: never.
        precision: Of the network: fp32; bf16, a fraction of the time on CPUs with instructions for it, and the same
            picture to the eye; auto: bf16 on such CPUs if the network suits it.
        overwrite: Translate again what is in OUT already.
        ray: Work on a Ray cluster, sub-folders too (pip install 'ganparts[ray]'). Without an address, on the one that
            RAY_ADDRESS names or that runs on this machine; else on this machine alone.
        ray_actors: Processes on the cluster. None: as many as it has room for.
        ray_cores: Cores for each of them. None: a GPU's share of its machine, at most 8; without GPUs, at most 4.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    import_parts(imports)
    if not inputs:
        raise ValueError("no inputs: give files, folders, patterns or archives (.zip, .tar) after the model")
    options: dict[str, Any] = {
        "size": size,
        "resize": resize,
        "squash": squash,
        "margin": margin,
        "tile": tile,
        "precision": precision,
        "format": format,
        "quality": jpeg_quality,
        "subsampling": subsampling,
        "overwrite": overwrite,
    }
    columns = (MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*Progress.get_default_columns()[1:2], *columns, console=console)
    if ray is not None:
        if len(ray) > 1:
            raise ValueError(f"--ray {' '.join(ray)}: it takes one address; give model and inputs before it")
        generator = load_generator(model, device=torch.device("cpu"))
        options |= {"batch_size": batch_size, "device": device, "address": next(iter(ray), None)}
        options |= {"actors": ray_actors, "cores": ray_cores}
        report = _with_bar(bar, translate_on_cluster, generator, inputs, out, **options)
    else:
        if addresses := [each for each in (*inputs, out) if "://" in each]:
            raise ValueError(f"{addresses[0]} is an address: add --ray")
        chosen = pick_device(device)
        generator = load_generator(model, device=chosen)
        taken, reason = choose_inference(generator, precision)
        if taken != "own":
            console.print(f"Precision {taken}: {reason}.")
        suits = 1 if chosen.type == "cpu" else 16
        options["batch_size"] = suits if batch_size is None else batch_size
        report = _with_bar(bar, translate_files, generator, inputs, out, count=True, **options)
    return _tell(report, out)


def _with_bar(
    bar: Progress,
    translate: Callable[..., Report],
    generator: nn.Module,
    inputs: Sequence[str],
    out: str,
    *,
    count: bool = False,
    **options: Any,
) -> Report:
    """Translate and show how far it is; with ``count`` the photos are counted beside it, else ``translate`` tells."""
    with bar:
        task = bar.add_task("photos", total=None)

        def show(report: Report, total: int | None = None) -> None:
            bar.update(task, completed=report.done, total=total)

        with _counting(inputs, out, lambda total: bar.update(task, total=total)) if count else nullcontext():
            report = translate(generator, inputs, out, progress=show, **options)
        show(report, report.done)
    return report


@contextmanager
def _counting(inputs: Sequence[str], out: str, tell: Callable[[int], object]) -> Iterator[None]:
    """Count the photos in a thread, since a million take a while to list, and nobody should wait for that."""
    ended = threading.Event()

    def count() -> None:
        found = 0
        try:
            for _ in find_photos(inputs, Path(out)):
                found += 1
                if ended.is_set():
                    return
        except Exception:
            return  # the run meets it too, and says so
        tell(found)

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell(report: Report, out: str) -> int:
    console.print(f"{out}: {report.written} written, {report.skipped} there already, {report.failed} failed")
    for problem in report.problems[:_SHOWN]:
        console.print(f"failed: {problem}")
    if report.failed > _SHOWN:
        console.print(f"and {report.failed - _SHOWN} more")
    return 1 if report.failed else 0
