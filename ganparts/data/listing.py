"""Image files of a folder, perhaps ten million: their names take little more memory than their letters."""

from __future__ import annotations

import heapq
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from ganparts.data.entries import evenly
from ganparts.data.images import IMAGE_SUFFIXES, ImageEntry

__all__ = ["FolderSource", "list_folder"]

_AT_A_TIME = 2**18  # names that are sorted as Python's strings, at about 70 bytes each
_SIZES = 2**17


class FolderSource:
    """Image files of one folder, sorted by name.

    Args:
        folder: where they are.
        names: their names, sorted, as the system's bytes.
    """

    def __init__(self, folder: Path, names: Iterable[bytes]):
        self.folder = folder
        self._letters, self._starts = _packed(names)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def entry(self, index: int) -> ImageEntry:
        name = os.fsdecode(bytes(self._letters[self._starts[index] : self._starts[index + 1] - 1]))
        return ImageEntry(_stem(name), self.folder / name)

    def few(self, count: int) -> Sequence[int]:
        return evenly(len(self), count)

    def identity(self) -> Iterator[str]:
        """All names, and the sizes of about a hundred thousand: a network's file system is slow to tell them."""
        folder, interval = os.path.join(self.folder, ""), max(1, len(self) // _SIZES)
        for index, encoded in enumerate(_split(self._letters)):
            name = os.fsdecode(encoded)
            size = "" if index % interval else _size(folder + name)
            yield f"{_stem(name)}\0{size}\0"


def list_folder(folder: Path) -> tuple[FolderSource, list[Path]]:
    """The image files of a folder, and its other files and folders, sorted; hidden ones are left out."""
    others: list[str] = []
    chunks: list[bytearray] = []
    with os.scandir(folder) as found:
        names = _images(found, others)
        while chunk := sorted(map(os.fsencode, islice(names, _AT_A_TIME))):
            chunks.append(_packed(chunk)[0])
    ordered = heapq.merge(*map(_split, chunks)) if len(chunks) > 1 else chain.from_iterable(map(_split, chunks))
    return FolderSource(folder, ordered), sorted(folder / name for name in others)


def _images(found: Iterable[os.DirEntry[str]], others: list[str]) -> Iterator[str]:
    for file in found:
        name = file.name
        if name.startswith("."):
            continue
        if name.lower().endswith(IMAGE_SUFFIXES):
            yield name
        else:
            others.append(name)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _stem(name: str) -> str:
    return name[: name.rindex(".")]


def _packed(names: Iterable[bytes]) -> tuple[bytearray, array[int]]:
    """Names one after the other, each ended by a zero byte, which no name has; and where each begins."""
    letters, starts = bytearray(), array("Q", [0])
    for name in names:
        letters += name
        letters += b"\0"
        starts.append(len(letters))
    return letters, starts


def _split(letters: bytearray) -> Iterator[bytes]:
    start = 0
    while (stop := letters.find(0, start)) >= 0:
        yield bytes(letters[start:stop])
        start = stop + 1
