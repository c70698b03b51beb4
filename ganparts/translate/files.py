"""Files, folders, patterns and archives into a folder or an archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from torch import Tensor

from ganparts.blocks import check_counts
from ganparts.precision import InferencePrecision, choose_inference
from ganparts.pretrained import as_generator
from ganparts.translate.encoding import Encoding, Subsampling
from ganparts.translate.pipeline import Report, Settings, translate_photos, wanted_photos
from ganparts.translate.sinks import open_sink
from ganparts.translate.sources import find_photos, given_names

__all__ = ["translate_files"]


def translate_files(
    generator: Callable[[Tensor], Tensor] | Path | str,
    inputs: Path | str | Iterable[Path | str],
    out: Path | str,
    *,
    size: int | None = None,
    resize: int | None = None,
    squash: bool = False,
    batch_size: int = 16,
    margin: int = 0,
    tile: int | None = None,
    precision: InferencePrecision = "auto",
    format: Literal["jpg", "png"] = "jpg",
    quality: int = 95,
    subsampling: Subsampling = "4:2:0",
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Translate files, folders, patterns and archives into a folder or an archive.

    A result has the name of its photo and the suffix of its format. It gets its name when it is complete, so a run that
    was stopped can be started again and goes on. A stopped run leaves an archive with what it has written, but with
    ``overwrite`` it leaves all as it was. Only the photos of a batch and a few for each thread are
    in memory.

    Args:
        generator: as in :func:`translate`: trained, in ``eval()`` mode, or the name or folder of one.
        inputs: one or several: files, folders (not the folders in them), patterns (``photos/**/*.jpg``), archives
            (.zip, .tar).
        out: a folder, or an archive if it ends in .zip or .tar.
        size: height and width to resize photos to (bicubic), in pixels; None keeps theirs.
        resize: or their shorter side, in pixels, so that they keep their aspect ratio. A generator's strokes have a
            width in pixels: the smaller the picture, the broader they look.
        squash: with ``size``, distort photos that are not square, instead of taking their middle square.
        batch_size: the most photos of one size that go through the generator together.
        margin: pixels on each side of a photo, mirrored, that are translated, too, and cut off afterwards. A generator
            whose convolutions pad with zeros may leave a frame at the borders; this removes it.
        tile: see :func:`translate`.
        precision: likewise.
        format: of the results.
        quality: of JPEGs, from 1 to 100.
        subsampling: how JPEGs store colours: "4:2:0" (half the height and width), "4:2:2" (half the width) or
            "4:4:4" (in full).
        overwrite: translate photos whose results are there already.
        workers: threads that decode, and as many that encode; None for one per core, at most 8.
        progress: called after each photo.

    Returns:
        How many photos were written, skipped, and failed, and why.

    Raises:
        ValueError: an option is out of range, or ``out`` is among the inputs.
        OSError: a result cannot be written.
    """
    if workers is not None:
        check_counts(workers=workers)
    settings = Settings(
        Encoding(format, quality, subsampling), size, squash, batch_size, tile, precision, resize, margin
    )
    generator = as_generator(generator)
    choose_inference(generator, precision)  # refuses now, not after the first photo
    given = given_names(inputs)
    _check_apart(given, Path(out))
    workers = workers or min(8, os.cpu_count() or 1)
    report, sink, whole = Report(), open_sink(out, overwrite=overwrite), False
    try:
        wanted = wanted_photos(
            find_photos(given, sink.path), sink, lambda photo: f"{photo.name}.{format}", report, progress
        )
        translate_photos(generator, wanted, sink, settings, workers=workers, report=report, progress=progress)
        whole = True
    finally:
        sink.close(whole=whole)
    progress(report)
    return report


def _check_apart(inputs: Iterable[str], out: Path) -> None:
    for given in inputs:
        if out.exists() and os.path.exists(given) and os.path.samefile(given, out):
            raise ValueError(f"{given} is both input and output: give another folder or archive for the results (-o)")
