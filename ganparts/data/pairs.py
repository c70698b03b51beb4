"""Random pairs of photos and paintings, as a pure function of a seed and a position.

So the number of workers does not matter, and a run that resumes at pair n sees the same pairs.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganparts.data.framing import Framing
from ganparts.data.images import Images
from ganparts.data.loading import decode_ahead, estimate_bytes, ignore_interrupts

__all__ = ["PairDataset", "ignore_interrupts", "shuffled"]


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs, by position: item i is (photo, painting), each uint8 [3, crop, crop].

    An epoch has as many pairs as the larger domain has images. Each image of the first domain comes equally often, in
    random order. Images of the second are drawn at random, as in the reference implementation of CycleGAN. Positions
    go on beyond an epoch.

    Args:
        a: images of domain a: :class:`Images`, a sequence of decoded ones, uint8 [3, H, W], or one tensor of them.
        b: images of domain b, in the same forms.
        seed: decides order, pairing, crops and flips.
        resize: length in pixels that the shorter side is resized to first (bicubic). None keeps the size; only images
            smaller than the crop are enlarged to it.
        crop: side of the square that is then cut out at random.
        flip: mirror the square with probability 1/2.
        squash: resize both sides to ``resize``, as the reference implementation does, which distorts images that are
            not square.

    Raises:
        ValueError: ``crop`` is larger than ``resize``, or ``squash`` is given without ``resize``.
        UnreadableImageError: an image of the pair asked for cannot be read, and such images are not skipped.
    """

    def __init__(
        self,
        a: Sequence[Tensor] | Tensor,
        b: Sequence[Tensor] | Tensor,
        *,
        seed: int = 0,
        resize: int | None = 286,
        crop: int = 256,
        flip: bool = True,
        squash: bool = False,
    ):
        self.a, self.b, self.seed = a, b, seed
        self.framing = Framing(resize, crop, flip, squash)

    def __len__(self) -> int:
        """Pairs in an epoch."""
        return max(len(self.a), len(self.b))

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(position, len(self))
        draws = random.Random(f"{self.seed} {position}")
        index_a = shuffled(self.seed, epoch, len(self))[place] % len(self.a)
        index_b = draws.randrange(len(self.b))
        return self._frame(self.a[index_a], draws), self._frame(self.b[index_b], draws)

    def _frame(self, image: Tensor, draws: random.Random) -> Tensor:
        image = self.framing.fit(image)
        return self.framing.cut(image, self.framing.draw(image, draws))

    @property
    def is_held(self) -> bool:
        """Whether the images are decoded already."""
        return all(isinstance(images, Tensor | list) for images in (self.a, self.b))

    @property
    def nbytes(self) -> int:
        """Estimated bytes of all images once decoded and resized; exact if they are held."""
        return sum(
            estimate_bytes(images.entries, self.framing.fitted_size)
            if isinstance(images, Images)
            else sum(image.nbytes for image in images)
            for images in (self.a, self.b)
        )

    def on_device(
        self, device: torch.device | str, *, workers: int = 0, track: Callable[[Iterable[Any]], Iterable[Any]] = iter
    ) -> PairDataset:
        """The same pairs, bit for bit, with all images decoded and resized once and kept on a device.

        A domain whose resized images have one size becomes one tensor, else a list of tensors.

        Args:
            device: where the images stay, as bytes.
            workers: processes that decode.
            track: passes on the images that it gets, like a progress bar.

        Raises:
            DataError: an image cannot be read, and the data set does not skip such images.
        """
        images = decode_ahead(_Fitted(self.a, self.b, self.framing), workers=workers, track=track)
        a, b = (_hold(images, count, device) for count in (len(self.a), len(self.b)))
        return PairDataset(a, b, seed=self.seed, **vars(self.framing))


class _Fitted:
    """The resized images of domain a, then those of domain b."""

    def __init__(self, a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor, framing: Framing):
        self.a, self.b, self.framing = a, b, framing

    def __len__(self) -> int:
        return len(self.a) + len(self.b)

    def __getitem__(self, index: int) -> Tensor:
        return self.framing.fit(self.a[index] if index < len(self.a) else self.b[index - len(self.a)])


def _hold(images: Iterable[Tensor], count: int, device: torch.device | str) -> Tensor | list[Tensor]:
    """The next ``count`` images on a device: [N, 3, H, W] if they have one size, else a list."""
    held: Tensor | list[Tensor] = []
    for index, image in zip(range(count), images):  # noqa: B905  the images go on
        if index == 0:
            held = torch.empty(count, *image.shape, dtype=torch.uint8, device=device)
        if isinstance(held, Tensor):
            if image.shape == held.shape[1:]:
                held[index] = image
                continue
            held = [row.clone() for row in held[:index]]
        held.append(image.to(device))
    return held


@lru_cache(maxsize=2)
def shuffled(seed: int, epoch: int, size: int) -> Sequence[int]:
    """The order of an epoch: 0 to ``size`` - 1, shuffled, at 8 bytes per number."""
    order = array("q", range(size))
    random.Random(f"{seed} epoch {epoch}").shuffle(order)
    return order
