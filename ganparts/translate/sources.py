"""Find the photos to translate, one after another, in files, folders, patterns and archives."""

from __future__ import annotations

import glob
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from torch import Tensor

from ganparts.data import ImageEntry, UnreadableImageError, decode_image
from ganparts.data.images import IMAGE_SUFFIXES, MAX_BYTES

__all__ = ["Photo", "find_photos"]


class Photo(Protocol):
    """One input: ``name`` without folder and suffix; ``path`` of the file that holds it."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...

    def load(self) -> Tensor:
        """Decode it: uint8 [3, H, W]; raises :class:`UnreadableImageError`."""
        ...


@dataclass(frozen=True)
class _Member:
    archive: zipfile.ZipFile
    member: zipfile.ZipInfo

    @property
    def name(self) -> str:
        return PurePosixPath(self.member.filename).stem

    @property
    def path(self) -> Path:
        return Path(str(self.archive.filename))

    def __str__(self) -> str:
        return f"{self.member.filename} in {self.archive.filename}"

    def load(self) -> Tensor:
        try:
            if self.member.file_size > MAX_BYTES:
                raise ValueError(f"it has {self.member.file_size:,} bytes, more than the {MAX_BYTES:,} that are read")
            return decode_image(self.archive.read(self.member))
        except (ValueError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise UnreadableImageError(f"cannot read the image {self}: {error}") from None


@dataclass(frozen=True)
class _Nothing:
    """An input without photos."""

    given: str
    reason: str
    name: str = ""

    @property
    def path(self) -> Path:
        return Path(self.given)

    def load(self) -> Tensor:
        raise UnreadableImageError(f"{self.given}: {self.reason}")


def find_photos(inputs: Iterable[str]) -> Iterator[Photo]:
    """The photos of files, folders (not the folders in them), patterns like ``photos/**/*.jpg``, and zip archives.

    In folders and archives, photos are the files with an image's suffix that are not hidden. A file given by name or
    pattern may have any name. An input without photos gives one that cannot be loaded; its error says why.
    """
    for given in inputs:
        found = False
        for photo in _photos_of(given):
            found = True
            yield photo
        if not found:
            yield _Nothing(given, f"no images in it that end in {', '.join(IMAGE_SUFFIXES)}")


def _photos_of(given: str) -> Iterator[Photo]:
    if os.path.isdir(given):
        yield from _in_folder(given)
    elif os.path.isfile(given):
        yield from _in_archive(given) if zipfile.is_zipfile(given) else [_file(given)]
    elif glob.has_magic(given):
        matches = False
        for path in glob.iglob(given, recursive=True):
            if os.path.isfile(path):
                matches = True
                yield from _photos_of(path)
        if not matches:
            yield _Nothing(given, "no file matches this pattern")
    else:
        yield _Nothing(given, "there is no such file or folder")


def _in_folder(folder: str) -> Iterator[Photo]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_photo(entry.name) and not entry.is_dir():
                yield _file(entry.path)


def _in_archive(path: str) -> Iterator[Photo]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        yield _Nothing(path, f"a zip archive that cannot be read: {error}")
        return
    for member in archive.infolist():  # members are read later, so the archive closes with the last of them
        parts = PurePosixPath(member.filename).parts
        if not member.is_dir() and _is_photo(parts[-1]) and not any(p.startswith((".", "__MACOSX")) for p in parts):
            yield _Member(archive, member)


def _file(path: str) -> ImageEntry:
    return ImageEntry(Path(path).stem, Path(path))


def _is_photo(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
