"""Find the images to score in folders, archives and sequences. Each is an entry that is read when its turn comes."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from ganparts.data import DataError, ImageEntry, Images, UnreadableImageError, open_images, to_rgb
from ganparts.data.images import IMAGE_SUFFIXES, EncodedImage
from ganparts.data.members import MEMBER_ERRORS, is_hidden, read_member

__all__ = ["ImageSource", "Scored", "open_source", "photo_of_each"]

ImageSource: TypeAlias = "Path | str | Sequence[Tensor | Image.Image | Path | str] | Images | Tensor"
"""A folder, a zip archive, or a sequence of images: uint8 [3, H, W] tensors, Pillow images, image files."""


class Scored(Protocol):
    """An image that is scored: ``name`` without folder and suffix, or None for an image in memory."""

    @property
    def name(self) -> str | None: ...

    def read(self) -> bytes:
        """The bytes that identify the image when it comes again."""
        ...

    def load(self) -> Tensor:
        """Decode it: uint8 [3, H, W]; raises :class:`UnreadableImageError`."""
        ...


class _Archive:
    """A zip archive that each process opens for itself, since forks share a file's position."""

    def __init__(self, path: Path):
        self.path = path
        self._opened_by, self._file = 0, None

    def read(self, member: str) -> bytes:
        if self._file is None or self._opened_by != os.getpid():
            self._opened_by, self._file = os.getpid(), zipfile.ZipFile(self.path)
        return read_member(self._file, member)

    def __reduce__(self):
        return _Archive, (self.path,)


@dataclass(frozen=True)
class _Member(EncodedImage):
    archive: _Archive
    member: str

    def __str__(self) -> str:
        return f"{self.member} in {self.archive.path}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).stem

    def _bytes(self) -> bytes:
        try:
            return self.archive.read(self.member)
        except MEMBER_ERRORS as error:
            raise ValueError(str(error) or type(error).__name__) from None


@dataclass(frozen=True)
class _Given:
    pixels: Tensor
    name: str | None = None

    def read(self) -> bytes:
        return str(tuple(self.pixels.shape)).encode() + self.pixels.contiguous().numpy().tobytes()

    def load(self) -> Tensor:
        return self.pixels


@dataclass(frozen=True)
class _Picture:
    image: Image.Image
    name: str | None = None

    def read(self) -> bytes:
        return f"{self.image.size}".encode() + to_rgb(self.image).tobytes()

    def load(self) -> Tensor:
        from torchvision.transforms.v2.functional import pil_to_tensor

        return pil_to_tensor(to_rgb(self.image))


def open_source(source: ImageSource) -> list[Scored]:
    """The images of a folder or archive (sorted by name), or of a sequence (in its order).

    Every image counts: :class:`~ganparts.data.Images` that skip unreadable ones do not skip them here.

    Raises:
        DataError: there is no such folder or archive, or it has no images.
        TypeError: an item of a sequence is not an image.
    """
    if isinstance(source, Images):
        return list(source.entries)
    if isinstance(source, str | Path):
        path = Path(source)
        return _members(path) if path.is_file() else list(open_images(path).entries)
    entries = [_entry(item, index) for index, item in enumerate(source)]
    if not entries:
        raise DataError("a sequence of images to be scored is empty")
    return entries


def without_unreadable(source: ImageSource) -> ImageSource:
    """A source without its unreadable images, of each of which it warns, if it skips them; any other as it is."""
    if not (isinstance(source, Images) and source.skip_unreadable):
        return source
    return Images([entry for entry in source.entries if _is_readable(entry)])


def _is_readable(entry: Scored) -> bool:
    try:
        entry.load()
    except UnreadableImageError as error:
        warnings.warn(f"skipped: {error}", stacklevel=3)
        return False
    return True


def _members(path: Path) -> list[Scored]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is neither a folder nor a zip archive that can be read: {error}") from None
    wanted = [
        name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(PurePosixPath(name).parts)
    ]
    if not wanted:
        raise DataError(f"{path} has no images: looked for members that end in {', '.join(IMAGE_SUFFIXES)}")
    archive = _Archive(path)
    return [_Member(archive, name) for name in wanted]


def _entry(item: object, index: int) -> Scored:
    if isinstance(item, str | Path):
        return ImageEntry(Path(item).stem, Path(item))
    if isinstance(item, Image.Image):
        return _Picture(item)
    if isinstance(item, Tensor) and item.dtype == torch.uint8 and item.ndim == 3 and item.shape[0] == 3:
        return _Given(item.cpu())
    given = f"{item.dtype} {list(item.shape)}" if isinstance(item, Tensor) else type(item).__name__
    raise TypeError(
        f"image {index} of a sequence is a {given}: give uint8 [3, H, W] tensors (to_bytes makes them of floats in "
        "[-1, 1]), Pillow images or image files"
    )


def photo_of_each(photos: list[Scored], paintings: list[Scored]) -> list[Scored]:
    """The photo of each painting: by name where all have names, else by place.

    Raises:
        DataError: a painting has no photo, or several of its name; or without names the numbers differ.
    """
    names = {photo.name: photo for photo in photos}
    if None in names or any(painting.name is None for painting in paintings):
        if len(photos) != len(paintings):
            raise DataError(
                f"{len(photos)} photos and {len(paintings)} paintings, not all with names: give as many photos, in the "
                "paintings' order"
            )
        return photos
    lone = [str(painting.name) for painting in paintings if painting.name not in names]
    if lone:
        raise DataError(
            f"{len(lone)} of {len(paintings)} paintings have no photo of their name, as {', '.join(lone[:3])}; the "
            f"photos are called {', '.join(sorted(map(str, names))[:3])} and so on"
        )
    wanted, counted = {painting.name for painting in paintings}, Counter(photo.name for photo in photos)
    if several := [str(name) for name, count in counted.items() if count > 1 and name in wanted]:
        raise DataError(
            f"{len(several)} paintings have several photos of their name, as {', '.join(several[:3])}: a photo's name, "
            "without folder and suffix, must be its alone"
        )
    return [names[painting.name] for painting in paintings]
