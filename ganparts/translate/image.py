"""Translate pictures of any size in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ganparts.data import ImageEntry, to_bytes, to_rgb, to_unit_range
from ganparts.precision import InferencePrecision, choose_inference, device_of, dtype_of, in_precision, infer
from ganparts.pretrained import as_generator
from ganparts.translate.tiles import check_kept_size, fit, translate_tiled

if TYPE_CHECKING:
    import numpy

__all__ = ["check_tile", "pixels_at_once", "translate", "translate_pixels"]

_Kind = TypeVar("_Kind", "Image.Image", Tensor, "numpy.ndarray")
_Generator: TypeAlias = "Callable[[Tensor], Tensor] | Path | str"


@overload
def translate(
    generator: _Generator, image: Path | str, *, tile: int | None = None, precision: InferencePrecision = "auto"
) -> Image.Image: ...
@overload
def translate(
    generator: _Generator, image: _Kind, *, tile: int | None = None, precision: InferencePrecision = "auto"
) -> _Kind: ...
@overload
def translate(
    generator: _Generator,
    image: Sequence[Path | str],
    *,
    tile: int | None = None,
    precision: InferencePrecision = "auto",
) -> list[Image.Image]: ...
@overload
def translate(
    generator: _Generator, image: Sequence[_Kind], *, tile: int | None = None, precision: InferencePrecision = "auto"
) -> list[_Kind]: ...
def translate(
    generator: _Generator, image: Any, *, tile: int | None = None, precision: InferencePrecision = "auto"
) -> Any:
    """Translate one picture of any size, or several. Results have the kind and size of the pictures.

    Pictures are padded by reflection to the generator's ``size_multiple`` and cropped afterwards. A picture that is too
    large for the generator in one piece goes through it in tiles, with the same result (:func:`translate_tiled`).

    Args:
        generator: trained; put it in ``eval()`` mode (``from_pretrained`` does). Or what ``from_pretrained`` takes: a
            painter's name, as ``"monet"``, a folder, a name on the Hub. It is loaded anew in each call, on the CPU.
        image: a Pillow image of any mode, or an image file, which becomes an upright RGB Pillow image; or a tensor
            [3, H, W] or [B, 3, H, W], or a NumPy array [H, W, 3] or [B, H, W, 3] (or shaped like a tensor), uint8 or
            float in [-1, 1]; or a list of these, which becomes a list. Pictures of one size go through the generator
            together.
        tile: None: use tiles above a million pixels (four million on a GPU). 0: never. Else always use tiles, and
            compute about as many pixels at a time as a square of this side has.
        precision: in which the network computes. ``"auto"``: pictures of bytes in bf16 where the CPU has instructions
            for it and the network suits it (:func:`ganparts.precision.choose_inference`), which takes a fraction of
            the time; anything else, and arrays of floats, in fp32.

    Raises:
        UnreadableImageError: a file cannot be read.
        TilingError: the picture is large, and the generator cannot be tiled.
        OSError: there is no generator of that name, or it cannot be fetched.
        TypeError: ``image`` is none of the above.
        ValueError: an array has another shape, or floats outside [-1, 1]; there is no such precision; the generator
            does not keep the size.
    """
    generator = as_generator(generator)
    if not isinstance(image, list | tuple):
        pixels, restore = _pixels(image)
        return restore(translate_pixels(generator, pixels, tile=tile, precision=precision))
    opened = [_pixels(item) for item in image]
    sizes: dict[Any, list[int]] = defaultdict(list)
    for index, (pixels, _) in enumerate(opened):
        sizes[pixels.shape[-2:], pixels.dtype, pixels.device].append(index)
    results: list[Any] = [None] * len(opened)
    for indices in sizes.values():
        batches = [opened[index][0] for index in indices]
        painted = translate_pixels(generator, torch.cat(batches), tile=tile, precision=precision)
        for index, painting in zip(indices, painted.split([len(batch) for batch in batches]), strict=True):
            results[index] = opened[index][1](painting)
    return results


def pixels_at_once(device: torch.device) -> int:
    """Pixels that go through a generator in one piece: a ResNet of width 64 takes about 1 GB for them, 4 on a GPU."""
    return 2**20 if device.type == "cpu" else 2**22


def check_tile(tile: int | None) -> None:
    """Refuse a side of a tile that is no whole number from 0 on.

    Raises:
        ValueError: names it.
    """
    if tile is not None and (not isinstance(tile, Integral) or tile < 0):
        raise ValueError(f"tile={tile!r} pixels: give the side of a tile, 0 for none, or leave it out")


@torch.inference_mode()
def translate_pixels(
    generator: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    tile: int | None = None,
    precision: InferencePrecision = "auto",
) -> Tensor:
    """:func:`translate` for a batch of tensors [B, 3, H, W], uint8 or float in [-1, 1].

    Returns:
        Translated images, of the same type and shape, on the same device.
    """
    device = device_of(generator)
    size, budget = images.shape[-2] * images.shape[-1], pixels_at_once(device)
    check_tile(tile)
    chosen, _ = choose_inference(generator, "fp32" if precision == "auto" and images.is_floating_point() else precision)
    if size and tile != 0 and (tile or size > budget):
        with in_precision(chosen, device):
            return torch.stack([translate_tiled(generator, image, tile=tile) for image in images])
    batches = images.split(max(1, budget // max(1, size)))
    return torch.cat([_translate_batch(generator, batch, device, chosen) for batch in batches])


def _translate_batch(
    generator: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, precision: str
) -> Tensor:
    height, width = images.shape[-2:]
    inputs = images.to(device)
    inputs = (inputs if images.is_floating_point() else to_unit_range(inputs)).to(dtype_of(generator))
    inputs = fit(generator, inputs)
    paintings = infer(generator, inputs, precision)
    check_kept_size(inputs.shape, paintings.shape)
    paintings = paintings[..., :height, :width]
    return (paintings if images.is_floating_point() else to_bytes(paintings)).to(images)


def _pixels(image: object) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """A picture as a batch, uint8 or float [B, 3, H, W], and a function back to its kind."""
    from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

    if isinstance(image, str | Path):
        return ImageEntry(Path(image).stem, Path(image)).load()[None], lambda batch: to_pil_image(batch[0])
    if isinstance(image, Image.Image):
        if not (image.width and image.height):
            raise ValueError(f"a picture of {image.width} x {image.height} pixels: there is nothing to translate")
        with suppress(Exception):  # damaged EXIF says nothing
            image = ImageOps.exif_transpose(image)  # as in a file
        return pil_to_tensor(to_rgb(image))[None], lambda batch: to_pil_image(batch[0])
    if isinstance(image, Tensor):
        return _checked(image), lambda batch: batch.reshape(image.shape).clone()  # no tensor of inference mode
    import numpy

    if isinstance(image, numpy.ndarray):
        return _array(image)
    raise TypeError(
        "translate takes a Pillow image, an image file, a tensor, a NumPy array or a list of these, but was given a "
        f"{type(image).__name__}"
    )


def _array(image: numpy.ndarray) -> tuple[Tensor, Callable[[Tensor], Any]]:
    try:
        tensor = torch.from_numpy(image.copy())  # a read-only or reversed one is not a tensor
    except TypeError as error:
        raise ValueError(f"an array of {image.dtype} is not a picture: give uint8, or floats in [-1, 1]") from error
    if image.ndim in (3, 4) and image.shape[-1] == 3:  # channels last, as Pillow and OpenCV have them
        return _checked(tensor.movedim(-1, -3)), lambda batch: batch.movedim(-3, -1).reshape(image.shape).numpy()
    return _checked(tensor), lambda batch: batch.reshape(image.shape).numpy()


def _checked(image: Tensor) -> Tensor:
    """The picture as a batch [B, 3, H, W]."""
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.numel():
        raise ValueError(
            f"a picture of shape {list(image.shape)}: give a tensor [3, H, W] or [B, 3, H, W], or a NumPy array "
            "[H, W, 3] or [B, H, W, 3]"
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"a picture of {image.dtype}: give uint8, or floats in [-1, 1]")
    if image.is_floating_point() and not image.abs().max() <= 1 + 1e-4:
        raise ValueError(
            f"a picture of floats from {image.min():.3g} to {image.max():.3g}: floats are in [-1, 1]; "
            "ganparts.data.to_unit_range makes them of bytes"
        )
    return image if image.ndim == 4 else image[None]
