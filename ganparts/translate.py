"""Using a trained generator: one picture, or a whole set into an archive."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.data import ImageEntry, resize, to_bytes, to_rgb, to_unit_range

__all__ = ["translate", "translate_to_zip"]


@torch.inference_mode()
def translate(generator: nn.Module, image: Image.Image | Path | str) -> Image.Image:
    """Translate one picture of any size and mode: RGB, of the same size.

    It is padded by reflection to the generator's ``size_multiple`` and cropped again.

    Args:
        generator: trained; put it in ``eval()`` mode (``from_pretrained`` does).
        image: a Pillow image, or an image file.

    Raises:
        UnreadableImageError: the file cannot be read.
        TypeError: neither an image nor a file.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

    if isinstance(image, Image.Image):
        pixels = pil_to_tensor(to_rgb(image))
    elif not isinstance(image, str | Path):
        raise TypeError(f"translate takes a Pillow image or an image file, but was given a {type(image).__name__}")
    else:
        pixels = ImageEntry(Path(image).stem, Path(image)).load()
    return to_pil_image(_translate_batch(generator, pixels[None])[0])


def _translate_batch(generator: nn.Module, pixels: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to uint8 of the same shape, on the CPU."""
    height, width = pixels.shape[-2:]
    multiple, minimum = getattr(generator, "size_multiple", 1), getattr(generator, "min_size", 1)
    device = next((parameter.device for parameter in generator.parameters()), torch.device("cpu"))
    images = to_unit_range(pixels.to(device))
    bottom, right = (-(-max(side, minimum) // multiple) * multiple - side for side in (height, width))
    # reflection reaches no further than the picture; beyond that its border is repeated
    mode = "reflect" if bottom < height and right < width else "replicate"
    images = F.pad(images, (0, right, 0, bottom), mode=mode)
    return to_bytes(generator(images)[..., :height, :width]).cpu()


@torch.inference_mode()
def translate_to_zip(
    generator: nn.Module,
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
                paintings = _translate_batch(generator, torch.stack([resize(image, size) for _, image in batch]))
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
