"""Images in files, or parts of files, that are decoded when asked for."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ganparts.data.decoding import decode_image, encoded_dimensions
from ganparts.data.errors import unreadable
from ganparts.data.skipping import Decoded

__all__ = ["IMAGE_SUFFIXES", "EncodedImage", "ImageEntry", "Images"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")
MAX_BYTES = 2**31 - 1  # of one encoded image
_Value = TypeVar("_Value")


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

    def _decoded(self, decode: Callable[[bytes], _Value]) -> _Value:
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


class Images(Decoded[Tensor]):
    """Images that are decoded when asked for: ``images[i]`` is uint8 [3, H, W], ``images[:9]`` the first nine Images.

    To change what is read, give it entries with another ``load``. Training loads the entries itself, so it would not
    see a ``__getitem__`` of a subclass.

    Args:
        entries: the places of the images, in order: :class:`ImageEntry`, or others with the same methods.
        skip_unreadable: warn of an image that cannot be read, and give the next one instead.

    Raises:
        UnreadableImageError: an image that was asked for cannot be read, or none can.
    """

    def _load(self, index: int) -> Tensor:
        return self.entries[index].load()

    def _some(self, chosen: slice) -> Images:
        return Images(self.entries[chosen], skip_unreadable=self.skip_unreadable)
