"""Random pairs of photos and paintings, as a pure function of a seed and a position.

Nothing depends on how many workers load them, and a run that goes on at pair n sees what it would have seen.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ganparts.data.images import Images, UnreadableImageError, resize, to_unit_range
from ganparts.protocols import Pair

__all__ = ["PairDataset", "ignore_interrupts", "load_pairs"]


class PairDataset(Dataset[tuple[Tensor, Tensor] | UnreadableImageError]):
    """Pairs, by position: item i is (photo, painting), each uint8 [3, crop, crop].

    An epoch is as many pairs as the larger domain has images. In it, the first domain's images come equally often, in
    random order; the second's are drawn at random, as in the reference implementation of CycleGAN. Positions go on
    beyond an epoch.

    Args:
        a: images of domain a; a tensor of bytes [N, 3, resize, resize] if they are decoded already.
        b: images of domain b.
        seed: decides order, pairing, crops and flips.
        resize: images are resized to this height and width (bicubic), in pixels.
        crop: and a square of this size is cut out at random.
        flip: and mirrored with probability 1/2.

    Raises:
        ValueError: a crop that is larger than the resized image.
    """

    def __init__(
        self,
        a: Images | Tensor,
        b: Images | Tensor,
        *,
        seed: int = 0,
        resize: int = 286,
        crop: int = 256,
        flip: bool = True,
    ):
        if crop > resize:
            raise ValueError(f"crop={crop} is larger than resize={resize}: images are resized first, then cropped")
        self.a, self.b = a, b
        self.seed, self.resize, self.crop, self.flip = seed, resize, crop, flip

    def __len__(self) -> int:
        """Pairs in an epoch."""
        return max(len(self.a), len(self.b))

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor] | UnreadableImageError:
        epoch, place = divmod(position, len(self))
        draws = random.Random(f"{self.seed} {position}")
        index_a = _order(self.seed, epoch, len(self))[place] % len(self.a)
        index_b = draws.randrange(len(self.b))
        try:
            return self._prepare(self.a[index_a], draws), self._prepare(self.b[index_b], draws)
        except UnreadableImageError as error:
            return error  # raised by a worker it would arrive with the worker's whole trace

    def _prepare(self, image: Tensor, draws: random.Random) -> Tensor:
        image = resize(image, self.resize)
        top, left = (draws.randrange(self.resize - self.crop + 1) for _ in range(2))
        image = image[:, top : top + self.crop, left : left + self.crop]
        return image.flip(-1) if self.flip and draws.random() < 0.5 else image

    @property
    def nbytes(self) -> int:
        """The bytes of all images, decoded and resized."""
        return (len(self.a) + len(self.b)) * 3 * self.resize**2

    def on_device(
        self, device: torch.device | str, *, workers: int = 0, track: Callable[[Iterable[Any]], Iterable[Any]] = iter
    ) -> PairDataset:
        """The same pairs, bit for bit, from images that are decoded and resized once and then stay on a device.

        Args:
            device: where they stay, as bytes.
            workers: processes that decode.
            track: is given the images as they come, and passes them on: a progress bar.

        Raises:
            UnreadableImageError: an image cannot be read, and the data set does not skip such images.
        """
        both = _Resized(self.a, self.b, self.resize)
        held = torch.empty(len(both), 3, self.resize, self.resize, dtype=torch.uint8, device=device)
        loader = DataLoader(
            both, batch_size=None, num_workers=workers, worker_init_fn=ignore_interrupts, generator=torch.Generator()
        )
        for index, image in enumerate(track(loader)):
            if isinstance(image, UnreadableImageError):
                raise image
            held[index] = image
        a, b = held.split([len(self.a), len(self.b)])
        return PairDataset(a, b, seed=self.seed, resize=self.resize, crop=self.crop, flip=self.flip)


class _Resized(Dataset[Tensor | UnreadableImageError]):
    """The images of both domains, one after the other, resized."""

    def __init__(self, a: Images | Tensor, b: Images | Tensor, size: int):
        self.a, self.b, self.size = a, b, size

    def __len__(self) -> int:
        return len(self.a) + len(self.b)

    def __getitem__(self, index: int) -> Tensor | UnreadableImageError:
        if index >= len(self):  # ends the iteration of a data set without a sampler
            raise IndexError(index)
        try:
            return resize(self.a[index] if index < len(self.a) else self.b[index - len(self.a)], self.size)
        except UnreadableImageError as error:
            return error


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed} epoch {epoch}").shuffle(order)
    return order


def _collate(items: list) -> tuple[Tensor, Tensor] | UnreadableImageError:
    for item in items:
        if isinstance(item, UnreadableImageError):
            return item
    a, b = zip(*items, strict=True)
    return torch.stack(a), torch.stack(b)


def ignore_interrupts(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``: have a worker outlive signals that end a run cleanly."""
    # Ctrl-C, and what Slurm or Kaggle send, reach every process; whether the workers stop is for the main one to say
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def load_pairs(
    dataset: PairDataset,
    *,
    batch_size: int = 1,
    steps: int,
    start: int = 0,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[Pair]:
    """Batches of pairs for steps ``start`` to ``steps``, their images float [B, 3, crop, crop] in [-1, 1].

    Args:
        dataset: where they come from.
        batch_size: pairs a step.
        steps: the number of steps of the whole run.
        start: the first step to give.
        workers: processes that decode; 0 for none, as for images that are decoded already.
        device: where the batches go.

    Raises:
        UnreadableImageError: an image cannot be read, and the data set does not skip such images.
    """
    device, held = torch.device(device), isinstance(dataset.a, Tensor)
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=range(start * batch_size, steps * batch_size),
        num_workers=0 if held else workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda" and not held,  # so that the copy does not wait
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),  # else each loader draws from torch's own, and a resumed run has one more
    )
    for batch in loader:
        if isinstance(batch, UnreadableImageError):
            raise batch
        yield Pair(*(to_unit_range(images.to(device, non_blocking=True)) for images in batch))
