"""``ganparts submission``: ``images.zip`` for the Kaggle competition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import Progress

from ganparts.cli.app import app, console

__all__ = ["submission"]


@app.command
def submission(
    model: tyro.conf.Positional[Path],
    photos: tyro.conf.Positional[Path | None] = None,
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("images.zip"),
    mirror: bool = False,
    device: str = "auto",
) -> int:
    """Paint photos into images.zip and check it as the competition does; or only check an archive.

    Examples: ganparts submission runs/first/generator photo_jpg -o images.zip; ganparts submission images.zip

    Args:
        model: A pretrained folder; or, alone, an archive to check.
        photos: A folder of photos (image files or TFRecords).
        out: The archive to write.
        mirror: Fill up with mirrored photos if there are fewer than 7,000.
        device: auto, cpu, cuda ...
    """
    from ganparts.data import open_images
    from ganparts.interchange import from_pretrained
    from ganparts.submission import check_submission, write_submission
    from ganparts.training import pick_device

    if photos is None and model.is_dir():
        raise ValueError(f"{model} is a folder: give a folder of photos, too, which it shall paint")
    if photos is None:
        console.print(f"{model} is right: {check_submission(model):,} images")
        return 0
    generator, images = from_pretrained(model).to(pick_device(device)), open_images(photos)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        tracked = progress.track(images.readable(), total=len(images), description="painting")
        count = write_submission(generator, tracked, out, mirror=mirror)
    console.print(f"{out} is right: {count:,} images")
    return 0
