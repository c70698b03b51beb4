"""``ganparts submission``: ``images.zip`` for the Kaggle competition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import Progress

from ganparts.cli.app import Imports, app, console, import_parts, load_generator
from ganparts.precision import InferencePrecision
from ganparts.translate.encoding import Subsampling

__all__ = ["submission"]


@app.command
def submission(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    photos: tyro.conf.Positional[Path | None] = None,
    /,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("images.zip"),
    mirror: bool = False,
    jpeg_quality: Annotated[int, tyro.conf.arg(aliases=["--quality"])] = 95,
    subsampling: Subsampling = "4:2:0",
    squash: bool = False,
    skip_unreadable: bool = False,
    precision: InferencePrecision = "auto",
    device: str = "auto",
    imports: Imports = (),
) -> int:
    """Paint photos into images.zip and check it as the competition does; or only check an archive.

    Examples: ganparts submission runs/first photo_jpg -o images.zip; ganparts submission images.zip

    Args:
        model: A painter's name, run folder, pretrained folder, .onnx file or name on the Hugging Face Hub; or, alone,
            an archive to check.
        photos: A folder of photos (image files or TFRecords).
        out: The archive to write.
        mirror: Fill up with mirrored photos if there are fewer than 7,000.
        jpeg_quality: JPEG quality, 1 to 100. The competition's own images have 75.
        subsampling: How JPEGs store colours: 4:2:0 at half the height and width, as the competition's own images;
            4:2:2 at half the width; 4:4:4 in full.
        squash: Distort photos that are not square, instead of painting their middle square.
        skip_unreadable: Warn of photos that cannot be read, and go on without them.
        precision: Of the network: fp32; bf16; auto: bf16 on CPUs that compute in it natively, if the network suits it.
        device: Device to compute on: auto, cpu, cuda ...
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    from ganparts.data import open_images
    from ganparts.submission import check_submission, write_submission
    from ganparts.training import pick_device

    import_parts(imports)
    if photos is None and Path(model).is_dir():
        raise ValueError(f"{model} is a folder: give a folder of photos to paint as well")
    if photos is None and not Path(model).exists() and not model.endswith(".zip"):
        raise ValueError(
            f"there is no archive {model} to check: to paint with a model, give a folder of photos as well"
        )
    if photos is None:
        console.print(f"{model} is valid: {check_submission(model):,} images")
        return 0
    generator = load_generator(model, device=pick_device(device))
    images = open_images(photos, skip_unreadable=skip_unreadable)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        tracked = progress.track(images.readable(), total=len(images), description="painting")
        count = write_submission(
            generator,
            tracked,
            out,
            mirror=mirror,
            quality=jpeg_quality,
            subsampling=subsampling,
            squash=squash,
            precision=precision,
        )
    console.print(f"{out} is valid: {count:,} images")
    return 0
