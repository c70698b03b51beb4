"""A set of photos translated into one archive, as the Kaggle competition wants it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

import torch
from torch import Tensor

from ganparts.data import resize_square
from ganparts.disk import naming_file
from ganparts.distributed import gather, is_first, processes
from ganparts.precision import InferencePrecision
from ganparts.pretrained import as_generator
from ganparts.translate.encoding import Encoding, Subsampling
from ganparts.translate.image import translate_pixels
from ganparts.translate.sinks import in_utf8

__all__ = ["translate_to_zip"]


def translate_to_zip(
    generator: Callable[[Tensor], Tensor] | Path | str,
    photos: Iterable[tuple[str, Tensor]],
    path: Path | str,
    *,
    size: int = 256,
    batch_size: int = 16,
    quality: int = 95,
    subsampling: Subsampling = "4:2:0",
    squash: bool = False,
    precision: InferencePrecision = "auto",
    together: int | None = None,
) -> int:
    """Translate photos into a flat archive of JPEGs, ``name.jpg``, as the Kaggle competition wants ``images.zip``.

    The archive gets its name when it is complete. A name that comes again gets a number.

    Args:
        generator: as in :func:`translate`: trained, in ``eval()`` mode, or the name or folder of one.
        photos: names and images, uint8 [3, H, W].
        path: of the archive.
        size: height and width to resize photos to (bicubic), in pixels; the competition wants 256.
        batch_size: photos at a time.
        quality: of the JPEGs, from 1 to 100.
        subsampling: how the JPEGs store colours: "4:2:0" (half the height and width), "4:2:2" (half the width) or
            "4:4:4" (in full).
        squash: distort photos that are not square, instead of taking their middle square.
        precision: see :func:`translate`.
        together: how many photos several processes translate together; ``photos`` are this one's share
            (``Images.readable(..., shared=True)``), and the first process writes. None: this process works alone.

    Returns:
        How many images it wrote: 0 in a process that only helps the first one.

    Raises:
        OSError: the archive cannot be written.
        ValueError: an option is out of range.
    """
    generator, encoding = as_generator(generator), Encoding("jpg", quality, subsampling)

    def translated() -> Iterator[list[tuple[str, bytes]]]:
        for batch in _batches(photos, batch_size):
            squares = torch.stack([resize_square(image, size, squash=squash) for _, image in batch])
            paintings = translate_pixels(generator, squares, precision=precision)
            yield [(name, encoding.encode(painting)) for (name, _), painting in zip(batch, paintings, strict=True)]

    if together is None:
        return _write(translated(), Path(path))
    gathered = _taking_turns(translated(), together, batch_size)
    return _write(gathered, Path(path)) if is_first() else sum(map(len, gathered))


def _write(batches: Iterable[list[tuple[str, bytes]]], path: Path) -> int:
    partial = path.with_name(path.name + ".partial")
    names: set[str] = set()
    try:
        with naming_file(path), zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name, encoded in chain.from_iterable(batches):
                archive.writestr(f"{_unused(name, names)}.jpg", encoded)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return len(names)


def _taking_turns(
    batches: Iterator[list[tuple[str, bytes]]], count: int, batch_size: int
) -> Iterator[list[tuple[str, bytes]]]:
    """What all processes have translated, in the photos' order, in the first one; empty batches in the others."""
    share = -(-count // processes())
    for _ in range(-(-share // batch_size)):  # as often in each process, which may have fewer photos than another
        given = gather(next(batches, []))
        yield [one for ones in zip_longest(*(given or ())) for one in ones if one is not None]


def _batches(items: Iterable[tuple[str, Tensor]], size: int) -> Iterator[list[tuple[str, Tensor]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _unused(name: str, names: set[str]) -> str:
    """``name``, or ``name_2`` and so on if it was given before; remembers what it gives."""
    name = in_utf8(name)
    candidate, number = name, 1
    while candidate in names:
        number += 1
        candidate = f"{name}_{number}"
    names.add(candidate)
    return candidate
