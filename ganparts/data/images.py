"""Images in files, or parts of files, that are decoded when asked for."""

from __future__ import annotations

import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

from torch import Tensor

from ganparts.data.decoding import decode_image, encoded_dimensions
from ganparts.data.entries import Entries, Entry
from ganparts.data.errors import UnreadableImageError, unreadable
from ganparts.distributed import processes, rank

__all__ = ["IMAGE_SUFFIXES", "EncodedImage", "ImageEntry", "Images"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_BYTES = 2**31 - 1  # of one encoded image
_Decoded = TypeVar("_Decoded")


class EncodedImage(ABC):
    """What an entry can do once its bytes can be read."""

    __slots__ = ()

    @abstractmethod
    def _bytes(self) -> bytes:
        """The encoded image; raises ``OSError`` or ``ValueError``."""

    def load(self) -> Tensor:
        """Decode it: uint8 [3, H, W].

        Raises:
            UnreadableImageError: names the image's place and the reason.
        """
        return self._decoded(decode_image)

    def dimensions(self) -> tuple[int, int]:
        """Height and width, without decoding the image.

        Raises:
            UnreadableImageError: names the image's place and the reason.
        """
        return self._decoded(encoded_dimensions)

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            UnreadableImageError: names the image's place and the reason.
        """
        return self._decoded(bytes)

    def _decoded(self, decode: Callable[[bytes], _Decoded]) -> _Decoded:
        try:
            return decode(self._bytes())
        except (OSError, ValueError) as error:
            raise unreadable(self, error) from None


@dataclass(frozen=True, slots=True)
class ImageEntry(EncodedImage):
    """The place of one encoded image.

    Args:
        name: the image's name, without folder and suffix.
        path: its file.
        record: its number in a TFRecord file, from 0; None if it has a file of its own.
        offset: position of its first byte in the file.
        length: in bytes; -1 for the rest of the file.
    """

    name: str
    path: Path
    record: int | None = None
    offset: int = 0
    length: int = -1

    def __str__(self) -> str:
        return str(self.path) if self.record is None else f"{self.path}, record {self.record} (counted from 0)"

    @property
    def place(self) -> str:
        """Name of its folder."""
        return self.path.parent.name

    def encoded_size(self) -> int:
        """Size of the encoded image in bytes, without reading it; -1 if its file is missing."""
        try:
            return self.length if self.length >= 0 else self.path.stat().st_size - self.offset
        except OSError:
            return -1

    def _bytes(self) -> bytes:
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would keep its reader waiting
            raise ValueError("it is not a file but a folder, a pipe or a device")
        if (length := status.st_size - self.offset if self.length < 0 else self.length) > MAX_BYTES:
            raise ValueError(f"it has {length:,} bytes, more than the {MAX_BYTES:,} that are read")
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


class Images(Sequence[Tensor]):
    """Images that are decoded when asked for: ``images[i]`` is uint8 [3, H, W], ``images[:9]`` the first nine Images.

    Args:
        entries: the places of the images, in order: :class:`ImageEntry`, or others with the same methods.
        skip_unreadable: warn of an image that cannot be read, and give the next one instead.

    Raises:
        UnreadableImageError: an image that was asked for cannot be read, or none can.
    """

    def __init__(self, entries: Sequence[Entry], *, skip_unreadable: bool = False):
        self.entries = entries if isinstance(entries, Entries) else list(entries)
        self.skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...

    def __getitem__(self, index: int | slice) -> Tensor | Images:
        if isinstance(index, slice):
            return Images(self.entries[index], skip_unreadable=self.skip_unreadable)
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no image {index}: there are only {len(self)}")
        if not self.skip_unreadable:
            return self._load(self.entries[index])
        for later in range(len(self)):
            try:
                return self.entries[(index + later) % len(self)].load()
            except UnreadableImageError as error:
                warnings.warn(f"skipped: {error}", stacklevel=2)
        raise UnreadableImageError(f"none of {len(self)} images can be read, {self.entries[0]} and the others")

    def readable(self, limit: int | None = None, *, shared: bool = False) -> Iterator[tuple[str, Tensor]]:
        """The first ``limit`` images with their names, without unreadable ones if ``skip_unreadable``.

        With ``shared``, those of them that are this process's share.

        Raises:
            UnreadableImageError: an image cannot be read, and skipping was not chosen.
        """
        for entry in self.entries[slice(rank(), limit, processes()) if shared else slice(limit)]:
            try:
                yield entry.name, self._load(entry)
            except UnreadableImageError as error:
                if not self.skip_unreadable:
                    raise
                warnings.warn(f"skipped: {error}", stacklevel=2)

    def _load(self, entry: Entry) -> Tensor:
        try:
            return entry.load()
        except UnreadableImageError as error:
            if self.skip_unreadable:
                raise
            advice = "Remove it, or skip such images (skip_unreadable=True; --skip-unreadable)"
            raise UnreadableImageError(f"{error}. {advice}") from None
