"""Batches of pairs for a range of training steps, decoded by worker processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ganparts.data.entries import Entry, Indexed, few
from ganparts.data.errors import DataError
from ganparts.data.resizing import to_unit_range
from ganparts.distributed import processes, rank
from ganparts.protocols import Pair

__all__ = ["Pairs", "decode_ahead", "estimate_bytes", "ignore_interrupts", "load_pairs"]

_Item = TypeVar("_Item")
_MOST_LOOKED_AT = 64  # images whose sizes are read for an estimate


class Pairs(Protocol):
    """What :func:`load_pairs` loads: pairs of square images, by position, without end.

    A pair should depend only on its position and a seed, so that a resumed run sees the same pairs. A data set whose
    images are decoded already has an attribute ``is_held = True``.
    """

    def __len__(self) -> int:
        """Pairs in an epoch."""
        ...

    def __getitem__(self, position: int, /) -> tuple[Tensor, Tensor]:
        """Two images, uint8 [3, crop, crop]; raises :class:`DataError` if one cannot be read."""
        ...


def load_pairs(
    dataset: Pairs,
    *,
    batch_size: int = 1,
    steps: int | None,
    start: int = 0,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Pair]:
    """Load batches of pairs for steps ``start`` to ``steps``: float [B, 3, crop, crop] in [-1, 1].

    Of several processes that train together (:mod:`ganparts.distributed`), each gets its share of a step's pairs: their
    batches, one after the other, are the batch that one process would get with as many times the batch size.

    Args:
        dataset: a PairDataset, AlignedPairs, or another with the same methods.
        batch_size: pairs per step, of each process.
        steps: the number of steps of the whole run; None for batches without end.
        start: the first step to load.
        workers: processes that decode; 0 for none. Images that are decoded already need none.
        device: where the batches go.

    Raises:
        DataError: an image cannot be read, and the data set does not skip such images.
    """
    device, held = torch.device(device), bool(getattr(dataset, "is_held", False))
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=batch_size,
        sampler=_positions(batch_size, start, steps),
        num_workers=0 if held else workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda" and not held,  # so that the copy does not wait
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),  # else each loader draws from torch's own, and a resumed run has one more
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield Pair(*(to_unit_range(images.to(device, non_blocking=True)) for images in batch))


def _positions(batch_size: int, start: int, steps: int | None) -> Iterator[int]:
    """The positions of this process's pairs."""
    for step in range(start, sys.maxsize if steps is None else steps):
        first = (step * processes() + rank()) * batch_size
        yield from range(first, first + batch_size)


class _ErrorsAsItems(Dataset[Any]):
    """Returns errors as items: raised in a worker, they would bring the worker's whole trace."""

    def __init__(self, dataset: Indexed[Any]):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        try:
            return self.dataset[position]
        except DataError as error:
            return error


def _collate(items: list[Any]) -> tuple[Tensor, Tensor] | DataError:
    for item in items:
        if isinstance(item, DataError):
            return item
    a, b = zip(*items, strict=True)
    return torch.stack(a), torch.stack(b)


def ignore_interrupts(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``: keep a worker alive on the signals that end a run cleanly."""
    # Ctrl-C, and what Slurm or Kaggle send, reach every process; whether the workers stop is for the main one to say
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def decode_ahead(items: Indexed[_Item], *, workers: int) -> Iterator[_Item]:
    """All items of a data set in order, from worker processes.

    Raises:
        DataError: an item cannot be read.
    """
    loader = DataLoader(
        _ErrorsAsItems(items),
        batch_size=None,
        sampler=range(len(items)),
        num_workers=workers,
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),
    )
    for item in loader:
        if isinstance(item, DataError):
            raise item
        yield item


def estimate_bytes(entries: Sequence[Entry], fitted: Callable[[int, int], tuple[int, int]]) -> int:
    """Estimate the bytes of all images once decoded and resized, from the sizes of 64 of them.

    Args:
        entries: the images.
        fitted: maps an image's height and width to those after resizing.
    """
    areas = []
    for entry in few(entries, _MOST_LOOKED_AT):
        try:
            height, width = fitted(*entry.dimensions())
        except DataError:  # whoever decodes it says so
            continue
        areas.append(height * width)
    return round(3 * len(entries) * sum(areas) / len(areas)) if areas else 0
