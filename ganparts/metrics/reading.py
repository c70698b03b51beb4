"""Images to features, with one extractor and one bar."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.losses.similarity import gaussian_window, structural_similarity
from ganparts.metrics.cache import Features, cached, digest_of_images
from ganparts.metrics.features import IMAGE_SIZE, Batch, describe_sizes, extract, load_batches, paint_batches, resized
from ganparts.metrics.sources import Scored

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Read", "Reader", "interleaved", "progress_bar", "similarity"]

_WINDOW = 11  # pixels; its standard deviation is 1.5


class Read(NamedTuple):
    """What was read of a set of images: features [N, D], sizes, and the similarity of each to its photo [N]."""

    matrix: Tensor
    sizes: set[tuple[int, int]]
    similarities: Tensor | None

    def features(self) -> Features:
        return Features(self.matrix, describe_sizes(self.sizes))


def interleaved(parts: list[Read]) -> Read:
    """What processes read that took turns, in the order of the images."""
    count = sum(len(part.matrix) for part in parts)
    order = torch.cat([torch.arange(start, count, len(parts)) for start in range(len(parts))]).argsort()
    similarities = [part.similarities for part in parts if part.similarities is not None]
    return Read(
        torch.cat([part.matrix for part in parts])[order],
        set().union(*(part.sizes for part in parts)),
        torch.cat(similarities)[order] if similarities else None,
    )


@dataclass
class Reader:
    """Turns images into features, with one extractor and one progress bar."""

    extractor: nn.Module
    digest: str
    squash: bool
    batch_size: int
    workers: int
    bar: Progress

    def kept(self, entries: list[Scored], what: str, *, painted: bool = False) -> tuple[Features, str]:
        """Features of images that come again, from the disk if they were there before; and the images' digest.

        With ``painted`` the images are made as small as photos are before a generator paints them.
        """
        images = digest_of_images(entries)
        framing = ("squashed" if self.squash else "cropped") + f" to {IMAGE_SIZE}" * painted
        key = hashlib.sha256(f"{self.digest} {images} {framing}".encode()).hexdigest()

        def batches() -> Iterator[Batch]:
            size = getattr(self.extractor, "input_size", None)
            return resized(self._load_at(IMAGE_SIZE, entries), size) if painted else self._load_at(size, entries)

        return cached(key, lambda: self.read(batches(), len(entries), what).features()), images

    def paintings(self, entries: list[Scored] | None, photos: list[Scored], generator: nn.Module | None) -> Read:
        """Read the generated images: those that are there, or a generator's."""
        size = getattr(self.extractor, "input_size", None)
        if entries is not None:
            batches = self._load_at(size, entries, photos)
        else:
            assert generator is not None
            batches = paint_batches(self._load_at(IMAGE_SIZE, photos), generator, size=size)
        return self.read(batches, len(entries or photos), "generated images")

    def read(self, batches: Iterator[Batch], total: int, what: str) -> Read:
        """Features of all batches, and the similarities of photos and paintings where batches have them."""
        rows: list[Tensor] = []
        sizes: set[tuple[int, int]] = set()
        similarities: list[Tensor] = []
        task = self.bar.add_task(what, total=total)
        for batch in batches:
            rows.append(extract(self.extractor, batch.images))
            sizes.update(batch.sizes)
            if batch.photos is not None and batch.paintings is not None:
                similarities.append(similarity(batch.photos, batch.paintings))
            self.bar.advance(task, len(batch.images))
        return Read(torch.cat(rows), sizes, torch.cat(similarities) if similarities else None)

    def _load_at(self, size: int | None, entries: list[Scored], photos: list[Scored] | None = None) -> Iterator[Batch]:
        options = {"squash": self.squash, "batch_size": self.batch_size, "workers": self.workers}
        return load_batches(entries, size=size, photos=photos, **options)


def similarity(photos: Tensor, paintings: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) of each pair of bytes [B, 3, H, W], on reflected borders, as torchmetrics has it: [B]."""
    paintings, photos = (F.pad(images.float(), (_WINDOW // 2,) * 4, "reflect") for images in (paintings, photos))
    return structural_similarity(paintings, photos, gaussian_window(_WINDOW, 1.5, paintings), data_range=255.0)


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Progress]:
    """Bars on standard error, shown if they are wanted and it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal)) as bar:
        yield bar
