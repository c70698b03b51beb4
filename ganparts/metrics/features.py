"""Turn images into features, a batch at a time. Worker processes decode them, so only a few are in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ganparts.data import UnreadableImageError, to_bytes, to_unit_range
from ganparts.data.loading import ignore_interrupts
from ganparts.metrics.sources import Scored
from ganparts.precision import choose_inference, device_of, dtype_of, infer

__all__ = [
    "IMAGE_SIZE",
    "Batch",
    "describe_sizes",
    "extract",
    "frame",
    "load_batches",
    "paint_batches",
    "resize_exact",
    "resized",
]

IMAGE_SIZE = 256
"""Height and width, in pixels, at which photos are painted and compared with their paintings: the competition's."""


_ON_CPU = 4  # images at a time through a network: their activations stay in the cache, 19 ms each instead of 45 at 32


class Batch(NamedTuple):
    """Images on their way to an extractor.

    Args:
        images: uint8 [3, H, W], each as the extractor takes it.
        sizes: (height, width) that each had before.
        photos: the paintings' photos, uint8 [B, 3, 256, 256]; None if the two are not compared.
        paintings: the same paintings, uint8 [B, 3, 256, 256].
    """

    images: list[Tensor]
    sizes: list[tuple[int, int]]
    photos: Tensor | None = None
    paintings: Tensor | None = None


def resize_exact(image: Tensor, size: int | None) -> Tensor:
    """Resize bytes [3, H, W] to [3, size, size] with Pillow's bicubic, as published figures do, to the last bit.

    An image that has that size, or any if ``size`` is None, is returned unchanged.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

    if size is None or image.shape[-2:] == (size, size):
        return image
    return pil_to_tensor(to_pil_image(image).resize((size, size), Image.Resampling.BICUBIC))


def frame(image: Tensor, size: int | None, *, squash: bool = False) -> Tensor:
    """Make a square of an image, as training does, and resize it like :func:`resize_exact`.

    Args:
        image: uint8 [3, H, W].
        size: height and width of the result, in pixels; None keeps them.
        squash: keep all of an image that is not square and distort it, instead of its middle square.
    """
    from torchvision.transforms.v2.functional import center_crop

    if not squash and image.shape[-2] != image.shape[-1]:
        image = center_crop(image, [min(image.shape[-2:])] * 2)
    return resize_exact(image, size)


class _Prepared(Dataset[Batch | UnreadableImageError]):
    """Item i: a batch of the one image i, with its photo if there are photos."""

    def __init__(self, entries: Sequence[Scored], size: int | None, photos: Sequence[Scored] | None, squash: bool):
        self.entries, self.size, self.photos, self.squash = entries, size, photos, squash

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Batch | UnreadableImageError:
        try:
            image = self.entries[index].load()
            photo = self.photos[index].load() if self.photos else None
        except UnreadableImageError as error:
            return error  # raised by a worker it would arrive with the worker's whole trace
        batch = Batch([frame(image, self.size, squash=self.squash)], [(image.shape[-2], image.shape[-1])])
        if photo is None:
            return batch
        photo, painting = (frame(pixels, IMAGE_SIZE, squash=self.squash) for pixels in (photo, image))
        return batch._replace(photos=photo[None], paintings=painting[None])


def _collate(items: list[Batch | UnreadableImageError]) -> Batch | UnreadableImageError:
    whole = Batch([], [])
    for item in items:
        if isinstance(item, UnreadableImageError):
            return item
        whole.images.extend(item.images)
        whole.sizes.extend(item.sizes)
    photos = [item.photos for item in items if isinstance(item, Batch) and item.photos is not None]
    paintings = [item.paintings for item in items if isinstance(item, Batch) and item.paintings is not None]
    return whole._replace(photos=torch.cat(photos), paintings=torch.cat(paintings)) if photos else whole


def load_batches(
    entries: Sequence[Scored],
    *,
    size: int | None,
    photos: Sequence[Scored] | None = None,
    squash: bool = False,
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[Batch]:
    """Decode and frame images, in order.

    Args:
        entries: the images.
        size: height and width of the framed images, in pixels; None keeps those of the square.
        photos: the photos that they are paintings of, in the same order, to compare them with.
        squash: distort images that are not square, instead of taking their middle square.
        batch_size: images at a time.
        workers: processes that decode; 0 for none.

    Raises:
        UnreadableImageError: names the image, and the reason.
    """
    loader = DataLoader(
        _Prepared(entries, size, photos, squash),
        batch_size=batch_size,
        num_workers=workers if len(entries) > batch_size else 0,  # one batch is done before a worker has started
        collate_fn=_collate,
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),  # else it draws from torch's own, and scoring would change a training run
    )
    for batch in loader:
        if isinstance(batch, UnreadableImageError):
            raise UnreadableImageError(f"{batch}. Every image counts: remove it, or write it again")
        yield batch


def resized(batches: Iterable[Batch], size: int | None) -> Iterator[Batch]:
    """Batches with their images resized; None keeps their size."""
    return (batch._replace(images=[frame(image, size) for image in batch.images]) for batch in batches)


@torch.inference_mode()
def paint_batches(batches: Iterable[Batch], generator: nn.Module, *, size: int | None) -> Iterator[Batch]:
    """Translate photos, and pass their paintings on.

    Args:
        batches: photos of 256x256.
        generator: in ``eval()`` mode; images [B, 3, 256, 256] in [-1, 1] to the same.
        size: height and width to resize the paintings to, in pixels; None keeps theirs.
    """
    device, dtype = device_of(generator), dtype_of(generator)
    precision, _ = choose_inference(generator)
    for batch in batches:
        photos = torch.stack(batch.images)
        paintings = to_bytes(infer(generator, to_unit_range(photos.to(device)).to(dtype), precision)).cpu()
        sizes = [(painting.shape[-2], painting.shape[-1]) for painting in paintings]
        yield Batch([frame(painting, size) for painting in paintings], sizes, photos, paintings)


@torch.inference_mode()
def extract(extractor: nn.Module, images: list[Tensor]) -> Tensor:
    """Features of images: float [B, D] on the CPU.

    Args:
        extractor: in ``eval()`` mode; uint8 [B, 3, H, W] to float [B, D].
        images: uint8 [3, H, W]. On a CPU four of them go through the network together, of different sizes one.

    Raises:
        ValueError: the extractor gives something else, or values that are not finite.
    """
    device, kind = device_of(extractor), type(extractor).__name__
    together = _ON_CPU if device.type == "cpu" else len(images)
    alike = len({image.shape for image in images}) == 1
    stacks = [torch.stack(chunk) for chunk in _chunks(images, together if alike else 1)]
    rows = [extractor(stack.to(device)) for stack in stacks]
    for stack, features in zip(stacks, rows, strict=True):
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(stack):
            got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"the feature extractor {kind} made {got} of images {list(stack.shape)}: it has to make a matrix "
                f"[{len(stack)}, features]; pool and flatten what it gives"
            )
    features = torch.cat(rows).float().cpu()
    if not features.isfinite().all():
        raise ValueError(f"the feature extractor {kind} made features that are not finite: check its weights")
    return features


def _chunks(images: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    return (images[start : start + size] for start in range(0, len(images), size))


def describe_sizes(sizes: Collection[tuple[int, int]]) -> str:
    """Sizes (height, width) in words: ``256x256``, or the smallest and the largest, ``200x300 to 640x480``."""
    ends = [f"{height}x{width}" for height, width in (min(sizes), max(sizes))]
    return " to ".join(dict.fromkeys(ends))
