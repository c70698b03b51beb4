"""Sequences of encoded images, longer than memory: an item is made when it is asked for, and a slice is a view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PureWindowsPath
from typing import Protocol, TypeVar, overload

from torch import Tensor

__all__ = ["Entries", "Entry", "Indexed", "Source", "evenly", "few", "joined", "printable_stem"]

_Item = TypeVar("_Item", covariant=True)


class Entry(Protocol):
    """One encoded image. ``str(entry)`` says where it is; every method may raise ``UnreadableImageError``."""

    @property
    def name(self) -> str:
        """The image's name, without folder and suffix."""
        ...

    @property
    def place(self) -> str:
        """Name of the folder or data set that it is in, without a path."""
        ...

    def load(self) -> Tensor:
        """Decode it: uint8 [3, H, W]."""
        ...

    def dimensions(self) -> tuple[int, int]:
        """Height and width, without decoding the image."""
        ...

    def encoded_size(self) -> int:
        """Size of the encoded image in bytes; -1 if it is missing."""
        ...

    def read(self) -> bytes:
        """The encoded image."""
        ...


class Indexed(Protocol[_Item]):
    """Items by number, as a sequence or a tensor has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> _Item: ...


class Source(Protocol):
    """Many images, of which little is in memory."""

    def __len__(self) -> int: ...

    def entry(self, index: int, /) -> Entry:
        """The image with this number."""
        ...

    def few(self, count: int, /) -> Sequence[int]:
        """Numbers of ``count`` images at random, always the same, that are read quickly."""
        ...

    def identity(self) -> Iterable[str]:
        """What tells these images from others, in order, without reading them."""
        ...


class Entries(Sequence[Entry]):
    """The images of a source, or some of them.

    Args:
        source: makes an entry when it is asked for.
        chosen: the numbers of the images, in order; None for all.
    """

    def __init__(self, source: Source, chosen: Sequence[int] | None = None):
        self.source = source
        self.chosen = range(len(source)) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...

    def __getitem__(self, index: int | slice) -> Entry | Entries:
        if isinstance(index, slice):
            return Entries(self.source, self.chosen[index])
        return self.source.entry(self.chosen[index])

    @property
    def is_whole(self) -> bool:
        """Whether these are all images of the source, in its order."""
        return self.chosen == range(len(self.source))


def evenly(length: int, count: int) -> Sequence[int]:
    """``count`` numbers below ``length``, evenly spread; all of them if there are no more."""
    return range(length) if length <= count else [number * length // count for number in range(count)]


def few(entries: Sequence[Entry], count: int) -> Sequence[Entry]:
    """``count`` of the images, always the same: of sharded ones those of a few blocks, else evenly spread."""
    if isinstance(entries, Entries) and entries.is_whole:
        return Entries(entries.source, entries.source.few(count))
    return [entries[number] for number in evenly(len(entries), count)]


def joined(first: Sequence[Entry], second: Sequence[Entry]) -> Sequence[Entry]:
    """The images of both sequences, without going through them."""
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    return Entries(_Joined(first, second)) if first else second


def printable_stem(path: str) -> str:
    """The name of an image whose path is stored with it: at most 100 printable letters.

    Without folders, of whichever system, and without suffix. It may be empty.
    """
    stem = PureWindowsPath(path.replace("\0", "")).stem[:100]
    return "".join(letter if letter.isprintable() else "_" for letter in stem)


class _Joined:
    def __init__(self, first: Sequence[Entry], second: Sequence[Entry]):
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def entry(self, index: int) -> Entry:
        return self.first[index] if index < len(self.first) else self.second[index - len(self.first)]

    def few(self, count: int) -> Sequence[int]:
        return evenly(len(self), count)

    def identity(self) -> Iterator[str]:
        for entry in Entries(self):
            yield f"{entry.name}\0{entry.encoded_size()}\0"
