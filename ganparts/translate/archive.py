"""A whole set of photos into an archive, as the Kaggle competition wants it."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ganparts.data import resize
from ganparts.translate.image import translate_pixels

__all__ = ["translate_to_zip"]


def translate_to_zip(
    generator: Callable[[Tensor], Tensor],
    photos: Iterable[tuple[str, Tensor]],
    path: Path | str,
    *,
    size: int = 256,
    batch_size: int = 16,
    quality: int = 95,
) -> int:
    """Translate photos into a flat archive of JPEGs, ``name.jpg``, as the Kaggle competition wants ``images.zip``.

    It is written under another name and renamed when whole. A name that comes again gets a number.

    Args:
        generator: trained, in ``eval()`` mode.
        photos: names and images, uint8 [3, H, W].
        path: of the archive.
        size: photos are resized to this height and width (bicubic), in pixels; the competition wants 256.
        batch_size: photos at a time.
        quality: of the JPEGs, from 1 to 100.

    Returns:
        How many were written.
    """
    from torchvision.transforms.v2.functional import to_pil_image

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    names: set[str] = set()
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for batch in _batches(photos, batch_size):
                paintings = translate_pixels(generator, torch.stack([resize(image, size) for _, image in batch]))
                for (name, _), painting in zip(batch, paintings, strict=True):
                    encoded = io.BytesIO()
                    to_pil_image(painting).save(encoded, "JPEG", quality=quality)
                    archive.writestr(f"{_unused(name, names)}.jpg", encoded.getvalue())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return len(names)


def _batches(items: Iterable[tuple[str, Tensor]], size: int) -> Iterator[list[tuple[str, Tensor]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _unused(name: str, names: set[str]) -> str:
    """``name``, or ``name_2`` and so on if it was given before; remembers what it gives."""
    candidate, number = name, 1
    while candidate in names:
        number += 1
        candidate = f"{name}_{number}"
    names.add(candidate)
    return candidate
