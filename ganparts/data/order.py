"""In what order images are shown, as a pure function of a seed and a position: nothing to save, nothing to replay.

Images in shards are read a block at a time, so their order stays within a buffer. An epoch permutes all blocks and
cuts the resulting row of images into lanes of equal length. Batches take turns among the lanes, so each worker process
of each training process reads lanes of its own. The rows of a block are shuffled, then the images of a lane, a window
at a time.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, overload

__all__ = ["LANES", "Blocks", "Lanes", "Permutation", "lanes_touched", "shuffled"]

LANES = 12
"""Lanes of one training process: 1, 2, 3, 4, 6 or 12 worker processes share them without reading a block twice."""

_LISTED = 2**20  # numbers; an order of more is computed where it is asked for, instead of being kept
_ROUNDS = 4
_WORD = 2**64 - 1


class Permutation(Sequence[int]):
    """0 to ``size`` - 1 in random order, computed where it is asked for: a Feistel network that walks its cycles.

    Args:
        size: how many numbers.
        key: decides the order.
    """

    def __init__(self, size: int, key: str):
        draws = random.Random(key)
        self.size, self.bits = size, max(1, ((size - 1).bit_length() + 1) // 2)
        self.keys = [draws.getrandbits(64) for _ in range(_ROUNDS)]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(f"there is no place {index} among {self.size}")
        number = self._encrypt(index % self.size)
        while number >= self.size:  # the network permutes the next power of 4
            number = self._encrypt(number)
        return number

    def _encrypt(self, number: int) -> int:
        mask = (1 << self.bits) - 1
        left, right = number >> self.bits, number & mask
        for key in self.keys:
            mixed = (right ^ key) * 0x9E3779B97F4A7C15 & _WORD
            mixed = (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9 & _WORD
            left, right = right, left ^ (mixed >> 32 & mask)
        return left << self.bits | right


@lru_cache(maxsize=2)
def shuffled(seed: int, epoch: int, size: int) -> Sequence[int]:
    """The order of an epoch: 0 to ``size`` - 1 in random order. A million at most are kept, at 8 bytes per number."""
    if size > _LISTED:
        return Permutation(size, f"{seed} epoch {epoch}")
    order = array("q", range(size))
    random.Random(f"{seed} epoch {epoch}").shuffle(order)
    return order


class Blocks(NamedTuple):
    """Images that are read a block at a time.

    Args:
        starts: number of the first image of each block, and how many images there are.
        buffer: images of all blocks that a training process may keep.
    """

    starts: Sequence[int]
    buffer: int

    def window(self) -> int:
        """How many images of a lane are shuffled at a time."""
        return max(1, self.buffer // LANES)


class Lanes:
    """The images of shards, by position, without end; each comes once in an epoch.

    Args:
        blocks: where blocks begin.
        key: decides the order, with the epoch.
        chunk: positions that follow each other in a lane: the batch size of one training process.
        processes: that train together.
    """

    def __init__(self, blocks: Blocks, *, key: str, chunk: int = 1, processes: int = 1):
        self.blocks, self.key, self.chunk, self.lanes = blocks, key, chunk, LANES * processes
        self.size, self.window = blocks.starts[-1], blocks.window()
        self._epoch = -1, array("q"), array("q")

    def __getitem__(self, position: int) -> int:
        """The number of the image at a position."""
        epoch = position // self.size
        lane = position // self.chunk % self.lanes
        first, after = epoch * self.size, (epoch + 1) * self.size
        start, stop = (self._before(after, until) - self._before(first, until) for until in (lane, lane + 1))
        place = self._before(position, lane + 1) - self._before(position, lane)
        place -= self._before(first, lane + 1) - self._before(first, lane)
        shift = self.window * lane // self.lanes  # so that lanes do not all come to new blocks at once
        window = (place + shift) // self.window
        low = start + max(0, window * self.window - shift)
        high = min(stop, start + (window + 1) * self.window - shift)
        within = _small(f"{self.key} epoch {epoch} lane {lane} window {window}", high - low)
        return self._image(epoch, low + within[start + place - low])

    def _before(self, position: int, lane: int) -> int:
        """How many positions before this one belong to lanes before this one."""
        rounds, rest = divmod(position, self.chunk * self.lanes)
        return rounds * self.chunk * lane + min(rest, self.chunk * lane)

    def _image(self, epoch: int, place: int) -> int:
        """The number of the image at a place of the epoch's row of blocks."""
        known, order, ends = self._epoch
        starts = self.blocks.starts
        if known != epoch:
            order = array("q", range(len(starts) - 1))
            random.Random(f"{self.key} epoch {epoch}").shuffle(order)
            ends = array("q", accumulate(starts[block + 1] - starts[block] for block in order))
            self._epoch = epoch, order, ends
        turn = bisect_right(ends, place)
        block = order[turn]
        rows = _small(f"{self.key} epoch {epoch} block {block}", starts[block + 1] - starts[block])
        return starts[block] + rows[place - ends[turn]]  # counted from the block's end, below 0

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_epoch": (-1, array("q"), array("q"))}


def lanes_touched(workers: int) -> int:
    """From how many lanes one of ``workers`` processes takes its images (0: the training process itself)."""
    return LANES // math.gcd(max(1, workers), LANES)


@lru_cache(maxsize=512)
def _small(key: str, size: int) -> Sequence[int]:
    order = array("q", range(size))
    random.Random(key).shuffle(order)
    return order
