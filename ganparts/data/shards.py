"""Images in shards: files that hold many images each, of which a few blocks are in memory at a time.

A block is the least that is read at once: a row group of a Parquet file, or about a hundred members of a tar file. What
stays in memory for each block is where it begins.
"""

from __future__ import annotations

import os
import random
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from torch.utils.data import get_worker_info

from ganparts.data.entries import Entries
from ganparts.data.files import File, is_address
from ganparts.data.images import EncodedImage
from ganparts.data.order import Blocks, lanes_touched
from ganparts.data.skipping import Decoded

__all__ = ["Encoded", "Shard", "ShardEntry", "ShardSource", "shards_of"]

_BUFFER = 4096  # images that a training process keeps, encoded, to shuffle among, unless it is told otherwise
_BUFFER_BYTES = 2**30  # and that they take at most, as far as their shards' sizes tell
_WAITS = (1, 5, 25)  # seconds before a shard elsewhere is read again


class Encoded(NamedTuple):
    """An image as it is stored: its name, and its bytes or None if there are none."""

    name: str
    data: bytes | None


class Shard(Protocol):
    """A file of many images, in blocks."""

    @property
    def file(self) -> File:
        """Where it is."""
        ...

    @property
    def counts(self) -> Sequence[int]:
        """Images in each block."""
        ...

    def read(self, block: int, /) -> list[Encoded]:
        """The images of a block; raises ``OSError`` or ``ValueError``."""
        ...


@dataclass(frozen=True, slots=True)
class ShardEntry(EncodedImage):
    """One image of a shard.

    Args:
        source: the shards.
        index: number of the image in all shards.
    """

    source: ShardSource
    index: int

    def __str__(self) -> str:
        shard, row = self.source.locate(self.index)
        return f"{shard.file.path}, image {row} (counted from 0)"

    @property
    def name(self) -> str:
        """The name that is stored with the image, else the shard's name and the image's number in it."""
        try:
            name = self.source.encoded(self.index).name
        except ValueError:
            name = ""
        if name:
            return name
        shard, row = self.source.locate(self.index)
        return f"{PurePosixPath(shard.file.path).stem}_{row}"

    @property
    def place(self) -> str:
        """Name of the data set."""
        return self.source.name

    def encoded_size(self) -> int:
        """Size of the encoded image in bytes; -1 if it cannot be read."""
        try:
            return len(self._bytes())
        except (OSError, ValueError):
            return -1

    def _bytes(self) -> bytes:
        data = self.source.encoded(self.index).data
        if data is None:
            raise ValueError("it is empty")
        return data


class ShardSource:
    """The images of several shards, one after the other.

    Args:
        name: of the data set, without a path.
        shards: that hold the images.
        buffer: images that a training process keeps, encoded, to shuffle among; None for 4096, or what takes 1 GiB.
    """

    def __init__(self, name: str, shards: Sequence[Shard], *, buffer: int | None = None):
        self.name, self.shards = name, list(shards)
        self._starts, self._first_blocks, self._largest = array("q", [0]), array("q", [0]), 0
        for shard in self.shards:
            for count in shard.counts:
                self._starts.append(self._starts[-1] + count)
                self._largest = max(self._largest, count)
            self._first_blocks.append(len(self._starts) - 1)
        if buffer is None:
            mean = sum(shard.file.size for shard in self.shards) // max(1, self._starts[-1])
            buffer = max(1, min(_BUFFER, _BUFFER_BYTES // max(1, mean)))
        self.blocks = Blocks(self._starts, buffer)
        self._kept = _Kept()

    def __len__(self) -> int:
        return self._starts[-1]

    def entry(self, index: int) -> ShardEntry:
        return ShardEntry(self, index)

    def few(self, count: int) -> Sequence[int]:
        """Numbers of ``count`` images: those of blocks at random, in order."""
        order = list(range(len(self._starts) - 1))
        random.Random(0).shuffle(order)
        chosen, found = [], 0
        for block in order:
            if found >= count:
                break
            chosen.append(block)
            found += self._starts[block + 1] - self._starts[block]
        numbers = (number for block in sorted(chosen) for number in range(self._starts[block], self._starts[block + 1]))
        return list(numbers)[:count]

    def identity(self) -> Iterator[str]:
        for shard in self.shards:
            column = getattr(shard, "column", "")
            yield f"{PurePosixPath(shard.file.path).name}\0{shard.file.size}\0{sum(shard.counts)}\0{column}\0"

    def locate(self, index: int) -> tuple[Shard, int]:
        """The shard of an image, and its number in the shard."""
        number = bisect_right(self._first_blocks, self._block(index)) - 1
        return self.shards[number], index - self._starts[self._first_blocks[number]]

    def encoded(self, index: int) -> Encoded:
        """An image as it is stored. Its block is kept for the next ones.

        Raises:
            ValueError: its shard cannot be read.
        """
        block = self._block(index)
        images = self._kept.get(block, lambda: self._read(block), most=self._most())
        if isinstance(images, ValueError):
            raise ValueError(*images.args)
        return images[index - self._starts[block]]

    def _block(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1

    def _most(self) -> int:
        """How many images this process keeps: the windows of its lanes, and what is left of blocks at their ends."""
        info = get_worker_info()
        lanes = lanes_touched(0 if info is None else info.num_workers)
        return lanes * (self.blocks.window() + 2 * self._largest)

    def _read(self, block: int) -> list[Encoded] | ValueError:
        number = bisect_right(self._first_blocks, block) - 1
        count = self._starts[block + 1] - self._starts[block]
        shard, number = self.shards[number], block - self._first_blocks[number]
        try:
            images = _read_patiently(shard, number) if is_address(shard.file.path) else shard.read(number)
        except Exception as error:  # whatever pyarrow and fsspec's many file systems raise
            return ValueError(str(error) or type(error).__name__)
        if len(images) != count:
            return ValueError(f"the shard has changed: {len(images)} images are where {count} were")
        return images


def _read_patiently(shard: Shard, block: int) -> list[Encoded]:
    """Read from a network, which may fail for a moment."""
    for wait in _WAITS:
        try:
            return shard.read(block)
        except Exception:
            time.sleep(wait)
    return shard.read(block)


def shards_of(images: object) -> ShardSource | None:
    """The shards that images come from, if they are all images of these."""
    entries = images.entries if isinstance(images, Decoded) else images
    if isinstance(entries, Entries) and entries.is_whole and isinstance(entries.source, ShardSource):
        return entries.source
    return None


class _Kept:
    """The blocks that were used last, in each process its own."""

    def __init__(self) -> None:
        self._process = 0
        self._blocks: dict[int, list[Encoded] | ValueError] = {}

    def get(
        self, block: int, read: Callable[[], list[Encoded] | ValueError], *, most: int
    ) -> list[Encoded] | ValueError:
        if self._process != os.getpid():  # a fork keeps none of its parent's
            self._process, self._blocks = os.getpid(), {}
        images = self._blocks.pop(block, None)
        if images is None:
            images = read()
        self._blocks[block] = images  # as the newest
        while sum(map(_size, self._blocks.values())) > most and len(self._blocks) > 1:
            del self._blocks[next(iter(self._blocks))]
        return images

    def __reduce__(self):
        return _Kept, ()


def _size(images: list[Encoded] | ValueError) -> int:
    return 1 if isinstance(images, ValueError) else len(images)
