"""Decode image files and records of image bytes to 8-bit RGB tensors.

Pillow decodes every format, JPEG too, so that pixels do not depend on a choice of decoder.
"""

from __future__ import annotations

import io
import re
import stat
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from ganparts.data.colour import to_srgb
from ganparts.data.entries import Entries, Entry
from ganparts.distributed import processes, rank

__all__ = [
    "IMAGE_SUFFIXES",
    "DataError",
    "ImageEntry",
    "Images",
    "UnreadableImageError",
    "decode_image",
    "resize",
    "resize_shorter",
    "resize_square",
    "to_bytes",
    "to_rgb",
    "to_unit_range",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# twice Pillow's MAX_IMAGE_PIXELS as it comes, where Pillow refuses; a program may change its own
MAX_PIXELS = 178_956_970
MAX_BYTES = 2**31 - 1  # of one encoded image
_PILLOW = re.compile(r"PIL\.")
_Decoded = TypeVar("_Decoded")


class DataError(ValueError):
    """Data that cannot be used; the text says which, why, and what to do."""


class UnreadableImageError(DataError):
    """One image that cannot be read; the text names the file (and record) and the reason."""


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


def unreadable(entry: object, error: Exception) -> UnreadableImageError:
    """The error that names an image and the reason why it cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return UnreadableImageError(f"cannot read the image {entry}: {reason}")


@contextmanager
def naming(entry: object) -> Iterator[None]:
    """Name an image in the error of what is done with it inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"cannot use the image {entry}: {error}") from None


def encoded_dimensions(encoded: bytes) -> tuple[int, int]:
    """Height and width of an encoded image as :func:`decode_image` would turn it, without decoding it.

    Raises:
        ValueError: says why they are not known.
    """
    ignore_pillow_warnings()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # whatever Pillow's many decoders raise on damaged files
        raise ValueError(str(error)) from error


def decode_image(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode image bytes to 8-bit RGB: uint8 [3, H, W].

    Grey, palette and CMYK images become RGB, 16-bit values are scaled to 8, an embedded colour profile (ICC) is
    converted to sRGB, transparency is laid on white, and EXIF orientation is applied. An image that claims more than
    ``max_pixels`` is refused before any memory is taken.

    Raises:
        ValueError: says why the image cannot be decoded.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor

    if not encoded:
        raise ValueError("it is empty")
    try:
        ignore_pillow_warnings()
        with Image.open(io.BytesIO(encoded)) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(_too_many(f"{image.width} x {image.height} pixels", max_pixels))
            if image.format == "EPS":
                raise ValueError("it is a PostScript program, which is not run: save it as PNG or JPEG")
            return pil_to_tensor(to_rgb(ImageOps.exif_transpose(image)))
    except Image.DecompressionBombError as error:  # Pillow counts first, and says the number alone
        claimed, limit = (*map(int, re.findall(r"\d+", str(error))), MAX_PIXELS + 1, MAX_PIXELS)[:2]
        raise ValueError(_too_many(f"{claimed:,} pixels", limit)) from error
    except Exception as error:  # whatever Pillow's many decoders raise on damaged files
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "it is not an image that Pillow knows" if unknown else str(error)
        raise ValueError(reason or type(error).__name__) from error


_warnings_lock = threading.Lock()


def ignore_pillow_warnings() -> None:
    """Ignore warnings of Pillow's own modules from now on: of damaged metadata and of large images.

    Warnings that Pillow attributes to its caller, such as deprecations, still show. ``warnings.catch_warnings`` is no
    alternative: it changes the whole process, and threads that decode would undo each other's changes.
    """
    with _warnings_lock:
        if not any(action == "ignore" and module == _PILLOW for action, _, _, module, _ in warnings.filters):
            warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _too_many(claimed: str, limit: int = MAX_PIXELS) -> str:
    return f"it claims {claimed}, and more than {limit:,} are not read: make it smaller"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to RGB; see :func:`decode_image`.

    Raises:
        ValueError: its pixels are floating-point or 32-bit numbers, whose range is not defined.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey, which older Pillows open as 32-bit
        image = image.convert("I")
        if image.getextrema()[1] > 65535:  # pyright: ignore[reportOperatorIssue]
            raise ValueError("its pixels have more than 16 bits, of unknown range: save it with 8 or 16 bits")
        image = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    image = to_srgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize bytes [..., H, W] with a bicubic, antialiased filter; the aspect may change.

    Args:
        image: of any size.
        size: height and width, or one number for both.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[-2:] == (height, width):
        return image
    return functional.resize(image, [height, width], InterpolationMode.BICUBIC, antialias=True)


def resize_shorter(image: Tensor, size: int) -> Tensor:
    """Resize bytes [..., H, W] so that the shorter side has ``size`` pixels; the aspect stays.

    Raises:
        DataError: the image is so narrow that the result would be enormous.
    """
    return resize(image, scaled_size(image.shape[-2], image.shape[-1], size))


def scaled_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after resizing the shorter side to ``size`` pixels.

    Raises:
        DataError: the result would be enormous.
    """
    shorter = min(height, width)
    scaled = round(height * size / shorter), round(width * size / shorter)
    if scaled[0] * scaled[1] > MAX_PIXELS:
        raise DataError(
            f"an image of {width} x {height} pixels is too narrow: with a shorter side of {size} pixels it would have "
            f"{scaled[0] * scaled[1]:,}, and more than {MAX_PIXELS:,} are not made. Crop it, or squash it (squash=True)"
        )
    return scaled


def resize_square(image: Tensor, size: int, *, squash: bool = False) -> Tensor:
    """Make a square [..., size, size] of bytes [..., H, W].

    Args:
        image: of any size.
        size: side of the square, in pixels.
        squash: distort an image that is not square, instead of taking its middle square.
    """
    from torchvision.transforms.v2 import functional

    return resize(image if squash else functional.center_crop(image, [min(image.shape[-2:])] * 2), size)


def to_unit_range(images: Tensor) -> Tensor:
    """Convert bytes 0..255 of any shape to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Convert floats in [-1, 1] of any shape to bytes 0..255; values outside are clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


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
