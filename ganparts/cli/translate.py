"""``ganparts translate``: photos in, paintings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ganparts.cli.app import Imports, app, console, import_parts, load_generator
from ganparts.training import pick_device
from ganparts.translate import Report, translate_files
from ganparts.translate.sources import find_photos

__all__ = ["translate"]

_SHOWN = 50  # problems


@app.command
def translate(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    inputs: tyro.conf.Positional[tuple[str, ...]],
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    device: str = "auto",
    batch_size: int | None = None,
    size: int | None = None,
    format: Literal["jpg", "png"] = "jpg",
    quality: int = 95,
    tile: int | None = None,
    overwrite: bool = False,
    imports: Imports = (),
) -> int:
    """Translate photos of any size: ganparts translate runs/first/generator photos/ -o paintings/.

    What is in OUT already is skipped; inputs that cannot be read are listed at the end, and the exit code is 1.

    Args:
        model: A pretrained folder, as a run's generator/; an .onnx file; a name on the Hugging Face Hub.
        inputs: Files, folders, patterns (quoted), zip archives.
        out: A folder, or an archive if it ends in .zip.
        device: auto, cpu, cuda, cuda:1 ...
        batch_size: Photos of one size at a time, at most. None: 16 on a GPU, 1 on a CPU, where more is not faster.
        size: Resize photos to this height and width first, in pixels. None: keep theirs.
        format: Of the results.
        quality: Of JPEGs, 1 to 100.
        tile: Compute about as many pixels at a time as a square of this side has; the result is the same. None: for
            photos of more than a million pixels (four million on a GPU). 0: never.
        overwrite: Translate again what is in OUT already.
        imports: Modules to import first, which register parts of your own (PYTHONPATH).
    """
    import_parts(imports)
    if not inputs:
        raise ValueError("no inputs: give files, folders, patterns or zip archives after the model")
    chosen = pick_device(device)
    generator = load_generator(model, device=chosen)
    columns = (MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*Progress.get_default_columns()[1:2], *columns, console=console) as bar:
        task = bar.add_task("photos", total=sum(1 for _ in find_photos(inputs)))

        def show(report: Report) -> None:
            bar.update(task, completed=report.written + report.skipped + report.failed)

        report = translate_files(
            generator,
            inputs,
            out,
            size=size,
            batch_size=batch_size or (1 if chosen.type == "cpu" else 16),
            tile=tile,
            format=format,
            quality=quality,
            overwrite=overwrite,
            progress=show,
        )
    return _tell(report, out)


def _tell(report: Report, out: Path) -> int:
    console.print(f"{out}: {report.written} written, {report.skipped} there already, {report.failed} failed")
    for problem in report.problems[:_SHOWN]:
        console.print(f"failed: {problem}")
    if report.failed > _SHOWN:
        console.print(f"and {report.failed - _SHOWN} more")
    return 1 if report.failed else 0
