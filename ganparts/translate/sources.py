"""Find the photos to translate, one after another, in files, folders, patterns and archives."""

from __future__ import annotations

import glob
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, TypeAlias

from torch import Tensor

from ganparts.data import ImageEntry, UnreadableImageError, decode_image
from ganparts.data.images import IMAGE_SUFFIXES
from ganparts.data.members import MEMBER_ERRORS, check_tar_is_whole, follow_links, is_hidden, read_member

__all__ = [
    "ARCHIVE_ERRORS",
    "NO_IMAGES",
    "Member",
    "Photo",
    "find_photos",
    "given_names",
    "images_in",
    "is_archive",
    "is_photo",
    "open_archive",
]

NO_IMAGES = f"no images in it that end in {', '.join(IMAGE_SUFFIXES)}"  # what a folder or an archive is told of

Archive: TypeAlias = zipfile.ZipFile | tarfile.TarFile
ArchiveMember: TypeAlias = zipfile.ZipInfo | tarfile.TarInfo


class Photo(Protocol):
    """One input: ``name`` without folder and suffix; ``path`` of the file that holds it."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...

    def load(self) -> Tensor:
        """Decode it: uint8 [3, H, W]; raises :class:`UnreadableImageError`."""
        ...


_tar_lock = threading.Lock()  # zipfile has one of its own


@dataclass(frozen=True)
class Member:
    """A photo in an archive, which ``shown`` calls by its name."""

    archive: Archive
    member: Any
    name: str
    shown: str

    @property
    def path(self) -> Path:
        return Path(self.shown)

    def __str__(self) -> str:
        return (
            f"{self.member.name if isinstance(self.member, tarfile.TarInfo) else self.member.filename} in {self.shown}"
        )

    def load(self) -> Tensor:
        try:
            return decode_image(self._read())
        except MEMBER_ERRORS as error:
            raise UnreadableImageError(f"cannot read the image {self}: {error}") from None

    def _read(self) -> bytes:
        with nullcontext() if isinstance(self.archive, zipfile.ZipFile) else _tar_lock:
            return read_member(self.archive, self.member)


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


def given_names(inputs: Path | str | Iterable[Path | str]) -> list[str]:
    """One input or several as a list of names.

    Raises:
        TypeError: something that is no name of a file.
    """
    names = [inputs] if isinstance(inputs, str | Path) or not isinstance(inputs, Iterable) else list(inputs)
    if not all(isinstance(name, str | Path) for name in names):
        raise TypeError(f"inputs={inputs!s:.80}: give a file, folder, pattern or archive, or a list of these")
    return [str(name) for name in names]


def find_photos(inputs: Iterable[str], out: Path | None = None) -> Iterator[Photo]:
    """The photos of files, folders (not the folders in them), patterns like ``photos/**/*.jpg``, and archives.

    If ``out``, where the results go, is inside the folder that a pattern searches, nothing in it is a photo.

    An archive is a zip archive, or an uncompressed tar archive that ends in .tar. In folders and archives, photos are
    the files with an image's suffix that are not hidden. A file given by name or pattern may have any name. An input
    without photos gives one that cannot be loaded; its error says why.
    """
    for given in inputs:
        found = False
        for photo in _photos_of(given, out):
            found = True
            yield photo
        if not found:
            yield _Nothing(given, NO_IMAGES)


def _photos_of(given: str, out: Path | None) -> Iterator[Photo]:
    if os.path.isdir(given):
        yield from _in_folder(given)
    elif os.path.isfile(given):
        yield from _in_archive(given) if is_archive(given) else [_file(given)]
    elif glob.has_magic(given):
        matches, problem, real = False, "no file matches this pattern", lru_cache(os.path.realpath)
        results = _results_in(given, out)
        for path in glob.iglob(given, recursive=True):
            place = f"{real(os.path.dirname(path))}/{os.path.basename(path)}" if results else ""
            if place.startswith(f"{results}/") or place in (results, f"{results}.partial"):
                problem = f"all that matches is in {out}, where the results go (-o)"
            elif os.path.isfile(path):
                matches = True
                yield from _photos_of(path, None)
        if not matches:
            yield _Nothing(given, problem)
    else:
        yield _Nothing(given, "there is no such file or folder")


def _results_in(pattern: str, out: Path | None) -> str | None:
    """The path of the results if it is inside the folder that a pattern searches."""
    searched = pattern
    while glob.has_magic(searched):
        searched = os.path.dirname(searched)
    results = os.path.realpath(out) if out else ""
    return results if results.startswith(f"{os.path.realpath(searched)}/".replace("//", "/")) else None


def _in_folder(folder: str) -> Iterator[Photo]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_photo(entry.name) and not entry.is_dir():
                yield _file(entry.path)


ARCHIVE_ERRORS = MEMBER_ERRORS  # of those that cannot be read


def is_archive(path: str) -> bool:
    """A zip archive of any name, or a file that ends in .tar."""
    return path.lower().endswith(".tar") or zipfile.is_zipfile(path)


def _in_archive(path: str) -> Iterator[Photo]:
    archive = None
    try:
        archive = open_archive(path)
        members = list(images_in(archive))
    except ARCHIVE_ERRORS as error:
        if archive is not None:
            archive.close()
        yield _Nothing(path, f"an archive that cannot be read: {error}")
        return
    for name, member in members:  # they are read later, so the archive closes with the last of them
        yield Member(archive, member, PurePosixPath(name).name, path)


class _TarFile(tarfile.TarFile):
    """Closes when nobody has it any more, as a zip archive does."""

    def __del__(self) -> None:
        if not getattr(self, "closed", True):  # which it has once the file is open
            self.close()


def open_archive(path: str, file: IO[bytes] | None = None) -> Archive:
    """Open a tar archive if the path ends in .tar, else a zip archive; ``file`` has its bytes if there is no such path.

    Raises:
        ARCHIVE_ERRORS: it cannot be read.
    """
    if path.lower().endswith(".tar"):
        return _TarFile.open(path, "r:", fileobj=file)
    return zipfile.ZipFile(file or path)


def images_in(archive: Archive) -> Iterator[tuple[str, ArchiveMember]]:
    """The photos in an archive: their paths without suffix and without ``..``, and the members that hold them.

    A link in a tar archive is held by what it leads to; one that leads nowhere, by itself.

    Raises:
        ARCHIVE_ERRORS: a tar archive is damaged.
    """
    if isinstance(archive, zipfile.ZipFile):
        members = held = archive.infolist()
    else:
        members = archive.getmembers()
        check_tar_is_whole(archive)
        held = follow_links(members)
    for member, holder in zip(members, held, strict=True):
        named = member.filename if isinstance(member, zipfile.ZipInfo) else member.name
        parts = [part for part in PurePosixPath(named).parts if part not in ("/", "..")]
        regular = not member.is_dir() if isinstance(member, zipfile.ZipInfo) else _has_content(member)
        if regular and parts and is_photo(parts[-1]) and not is_hidden(parts):
            yield "/".join([*parts[:-1], PurePosixPath(parts[-1]).stem]), holder


def _has_content(member: tarfile.TarInfo) -> bool:
    """A file, or a link: tar archives store a file that has several names once."""
    return member.isreg() or member.islnk() or member.issym()


def _file(path: str) -> ImageEntry:
    return ImageEntry(Path(path).stem, Path(path))


def is_photo(name: str) -> bool:
    """Whether a file of this name is translated: an image that is not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
