"""Aligned pairs for pix2pix: two images of one scene, side by side in one file, under one name, or in one row.

Isola et al. 2017, arXiv 1611.07004. Both images of a pair get the same crop and flip.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganparts.data.entries import Entries, Entry
from ganparts.data.errors import UnreadableImageError, naming
from ganparts.data.framing import Framing
from ganparts.data.loading import decode_ahead, estimate_bytes
from ganparts.data.order import Lanes, shuffled
from ganparts.data.resizing import resize
from ganparts.data.shards import shards_of
from ganparts.data.skipping import Decoded, located
from ganparts.distributed import processes

__all__ = ["AlignedImages", "AlignedPairs", "PairOrder"]

PairOrder = Literal["ab", "ba"]
_ASPECT_TOLERANCE = 0.02  # by which the aspects of a pair's images may differ: a pixel of 50


class AlignedImages(Decoded[tuple[Tensor, Tensor]]):
    """Pairs that are decoded when asked for: source and target, each uint8 [3, H, W], of one size.

    A target of another size is resized to the source's. A file with both images side by side is cut in the middle.

    Args:
        a: places of the first images, or of both side by side.
        b: places of the second images, in the same order; None if those of ``a`` hold them at the right.
        direction: "ab": the first image is the source; "ba": the second is.
        skip_unreadable: warn of a pair that cannot be read, and give the next one instead.

    Raises:
        UnreadableImageError: a pair that was asked for cannot be read, or its images have different aspects.
    """

    noun = "pair"

    def __init__(
        self,
        a: Sequence[Entry],
        b: Sequence[Entry] | None = None,
        *,
        direction: PairOrder = "ab",
        skip_unreadable: bool = False,
    ):
        if direction not in ("ab", "ba"):
            raise ValueError(f"direction={direction!r}: it is 'ab' or 'ba'")
        if b is not None and len(a) != len(b):
            raise ValueError(f"{len(a)} first and {len(b)} second images: pairs need as many of both")
        super().__init__(a, skip_unreadable=skip_unreadable)
        self.a = self.entries
        self.b = b if b is None or isinstance(b, Entries) else list(b)
        self.direction: PairOrder = direction

    def _some(self, chosen: slice) -> AlignedImages:
        b = None if self.b is None else self.b[chosen]
        return AlignedImages(self.a[chosen], b, direction=self.direction, skip_unreadable=self.skip_unreadable)

    def _load(self, index: int) -> tuple[Tensor, Tensor]:
        first = self.a[index].load()
        if self.b is None:
            half = first.shape[-1] // 2
            if half == 0:
                raise UnreadableImageError(f"{self.a[index]} is one pixel wide: two images side by side are needed")
            pair = first[:, :, :half], first[:, :, -half:]
        else:
            pair = first, self.b[index].load()
            aspects = [image.shape[-1] / image.shape[-2] for image in pair]
            if abs(aspects[0] / aspects[1] - 1) > _ASPECT_TOLERANCE:
                shapes = [f"{image.shape[-1]} x {image.shape[-2]}" for image in pair]
                raise UnreadableImageError(
                    f"{self.a[index]} has {shapes[0]} pixels and {self.b[index]} has {shapes[1]}: images of a pair "
                    "show the same scene, so crop them to the same aspect"
                )
        source, target = pair if self.direction == "ab" else pair[::-1]
        return source, resize(target, (source.shape[-2], source.shape[-1]))


class AlignedPairs(Dataset[tuple[Tensor, Tensor]]):
    """Aligned pairs, by position: item i is (source, target), each uint8 [3, crop, crop].

    An epoch shows each pair once, in random order; positions go on beyond it. A pair depends only on the seed and the
    position; in shards, where images are shuffled within a buffer, also on ``batch_size`` and the number of processes.

    Args:
        images: pairs of source and target, uint8 [3, H, W], of one size.
        seed: decides order, crops and flips.
        batch_size: pairs in a batch of one process; only the order of images in shards depends on it.
        resize: length in pixels that the shorter side of both images is resized to first; None keeps their size.
        crop: side of the square that is then cut out of both, at the same random place.
        flip: mirror both with probability 1/2.
        squash: resize both sides to ``resize``, as the reference implementation of pix2pix does.

    Raises:
        ValueError: ``crop`` is larger than ``resize``, or ``squash`` is given without ``resize``.
        UnreadableImageError: the pair asked for cannot be read, and such pairs are not skipped.
        DataError: an image is so narrow that it would be enormous once resized.
    """

    def __init__(
        self,
        images: Sequence[tuple[Tensor, Tensor]],
        *,
        seed: int = 0,
        batch_size: int = 1,
        resize: int | None = 286,
        crop: int = 256,
        flip: bool = True,
        squash: bool = False,
    ):
        self.images, self.seed, self.batch_size = images, seed, batch_size
        self.framing = Framing(resize, crop, flip, squash)
        self._lanes = None
        if (shards := shards_of(images)) is not None:
            self._lanes = Lanes(shards.blocks, key=f"{seed}", chunk=batch_size, processes=processes())

    def __len__(self) -> int:
        """Pairs in an epoch."""
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        if self._lanes is None:
            epoch, place = divmod(position, len(self))
            index = shuffled(self.seed, epoch, len(self))[place]
        else:
            index = self._lanes[position]
        source, target = self._fitted(index)
        window = self.framing.draw(source, random.Random(f"{self.seed} {position}"))
        return self.framing.cut(source, window), self.framing.cut(target, window)

    def _fitted(self, index: int) -> tuple[Tensor, Tensor]:
        entry, (source, target) = located(self.images, index)
        with naming(entry):
            return self.framing.fit(source), self.framing.fit(target)

    @property
    def is_held(self) -> bool:
        """Whether the images are decoded already."""
        return isinstance(self.images, list)

    @property
    def nbytes(self) -> int:
        """Estimated bytes of all images once decoded and resized; exact if they are held."""
        if not isinstance(self.images, AlignedImages):
            return sum(image.nbytes for pair in self.images for image in pair)
        halves = 2 if self.images.b is None else 1
        return 2 * estimate_bytes(self.images.a, lambda h, w: self.framing.fitted_size(h, max(1, w // halves)))

    def on_device(self, device: torch.device | str, *, workers: int = 0) -> AlignedPairs:
        """The same pairs, bit for bit, with all images decoded and resized once and kept on a device.

        Args:
            device: where the images stay, as bytes.
            workers: processes that decode.

        Raises:
            DataError: an image cannot be read, and the data set does not skip such images.
        """
        fitted = decode_ahead(_Fitted(self), workers=workers)
        pairs = [(source.to(device), target.to(device)) for source, target in fitted]
        held = AlignedPairs(pairs, seed=self.seed, batch_size=self.batch_size, **vars(self.framing))
        held._lanes = self._lanes
        return held


class _Fitted:
    """The resized pairs, in the order of their names."""

    def __init__(self, pairs: AlignedPairs):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pairs._fitted(index)
