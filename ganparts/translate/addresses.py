"""Folders and archives on any file system that fsspec knows: find photos there, write results there."""

from __future__ import annotations

import glob
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from ganparts.data import ImageEntry, UnreadableImageError, decode_image
from ganparts.data.members import is_hidden, read_member
from ganparts.disk import replace_file
from ganparts.translate.sinks import ARCHIVE_SUFFIXES, ArchiveSink, Claim, Listed, Sink, too_long
from ganparts.translate.sources import ARCHIVE_ERRORS, NO_IMAGES, images_in, is_photo, open_archive

__all__ = ["Place", "Work", "find_work", "open_target"]


@dataclass(frozen=True)
class Place:
    """A file or a folder: the file system, one of fsspec, and the path as that writes it."""

    files: Any
    path: str

    @classmethod
    def of(cls, given: Path | str) -> Place:
        """What an address (``s3://bucket/photos``) or a path names.

        Raises:
            ValueError: fsspec does not know the protocol.
            ImportError: the package for the protocol is not installed.
        """
        from fsspec.core import url_to_fs

        files, path = url_to_fs(given if "://" in str(given) else os.path.abspath(given))
        files.invalidate_cache()  # of listings, which other processes may have made old
        return cls(files, path.rstrip("/"))

    def __str__(self) -> str:
        return self.path if self.is_local else self.files.unstrip_protocol(self.path)

    def __truediv__(self, name: str) -> Place:
        return Place(self.files, f"{self.path}/{name}")

    @property
    def is_local(self) -> bool:
        protocol = self.files.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def is_archive(self) -> bool:
        return self.path.lower().endswith(ARCHIVE_SUFFIXES)

    def exists(self) -> bool:
        return self.files.exists(self.path)

    def find(self) -> Iterator[str]:
        """The names of all files in this folder and those below it, relative."""
        for path in self.files.find(self.path):
            yield path[len(self.path) :].lstrip("/")

    def write(self, encoded: bytes) -> None:
        """Write a file that appears when it is complete; an object store makes it so."""
        if self.is_local:
            path = Path(self.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, encoded)
        else:
            self.files.pipe_file(self.path, encoded)

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """As a local file."""
        if self.is_local:
            yield Path(self.path)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PurePosixPath(self.path).name
            self.files.get_file(self.path, str(path))
            yield path

    @contextmanager
    def archive(self, *, overwrite: bool) -> Iterator[ArchiveSink]:
        """An archive to write to, which appears when it is complete and there was no error."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(self.path) if self.is_local else Path(folder) / PurePosixPath(self.path).name
            if not self.is_local and not overwrite and self.files.exists(self.path):
                self.files.get_file(self.path, str(path))
            sink, whole = ArchiveSink(path, overwrite=overwrite), False
            try:
                yield sink
                whole = True
            finally:
                sink.close(whole=whole)
            if not self.is_local:
                self.files.put_file(str(path), self.path)


@dataclass(frozen=True)
class Work:
    """A photo, or an archive of them, and the name of its result.

    Args:
        target: name of the result, relative.
        place: the file.
        member: the photo's name, if the file is an archive.
        span: where in the file that is, if it is a tar archive.
        whole: it is an archive whose photos are translated into another.
    """

    target: str
    place: Place
    member: str = ""
    span: tuple[int, int] | None = None
    whole: bool = False

    @property
    def name(self) -> str:
        return self.target

    @property
    def path(self) -> Path:
        return Path(str(self.place))

    def __str__(self) -> str:
        return f"{self.member} in {self.place}" if self.member else str(self.place)

    def load(self) -> Tensor:
        if self.place.is_local and not self.member:
            return ImageEntry(self.target, Path(self.place.path)).load()
        try:
            return decode_image(self._read())
        except Exception as error:  # whatever the file systems raise
            raise UnreadableImageError(f"cannot read the image {self}: {error or type(error).__name__}") from None

    def _read(self) -> bytes:
        files, path = self.place.files, self.place.path
        if self.span:
            return files.cat_file(path, start=self.span[0], end=self.span[1])
        return read_member(_opened(self.place), self.member) if self.member else files.cat_file(path)


@lru_cache(4)
def _opened(place: Place) -> zipfile.ZipFile:
    return zipfile.ZipFile(place.files.open(place.path, "rb"))


class _Folder(Listed):
    """The names in a folder, for the process that hands out work and writes nothing itself."""

    def __init__(self, place: Place, *, overwrite: bool):
        self.path = Path(str(place))
        if place.is_local:
            Path(place.path).mkdir(parents=True, exist_ok=True)
        self.is_local = place.is_local
        super().__init__(() if overwrite else place.find())

    def claim(self, name: str) -> Claim:
        return "too long" if self.is_local and too_long(name) else super().claim(name)

    def write(self, name: str, encoded: bytes) -> None:
        raise NotImplementedError(f"{name}: the process that translates a photo writes it, not the one that lists")

    def close(self, *, whole: bool) -> None:
        pass


@contextmanager
def open_target(place: Place, *, overwrite: bool) -> Iterator[Sink]:
    """Where the results belong. Into a folder, which is made if it is missing, the sink does not write itself.

    Raises:
        ValueError: the path is a file that is not an archive.
    """
    if place.is_archive:
        with place.archive(overwrite=overwrite) as sink:
            yield sink
        return
    if place.is_local and Path(place.path).exists() and not Path(place.path).is_dir():
        raise ValueError(f"{place} is a file: give a folder, a .zip or a .tar for the results (-o)")
    yield _Folder(place, overwrite=overwrite)


def find_work(inputs: Iterable[str], out: Place, format: str, tell: Callable[[str], None]) -> Iterator[Work]:
    """The photos of files, folders, the folders in them, patterns and archives; tells of inputs without any.

    An archive in a folder or of a pattern is one piece of work, unless ``out`` is an archive. What is in ``out``, a
    folder inside an input, is left out.

    Raises:
        ValueError: ``out`` is an input.
    """
    for given in inputs:
        found = False
        place = Place.of(given)
        if place == out:
            raise ValueError(f"{given} is both input and output: give another folder or archive for the results (-o)")
        named, files = _files_of(place)
        searched = place.path if place.files.isdir(place.path) else _searched(place.path)
        inside = out.files == place.files and out.path.startswith(f"{searched}/")
        for name, each in files:
            if not named and inside and f"{each.path}/".startswith(f"{out.path}/"):
                continue
            found = True
            if not each.is_archive:
                yield Work(f"{_stem(name)}.{format}", each)
            elif named or out.is_archive:
                yield from _in_archive(each, "" if named else _stem(name), format, tell)
            else:
                yield Work(name, each, whole=True)
        if not found:
            tell(f"{given}: {_why_nothing(place)}")


def _files_of(place: Place) -> tuple[bool, Iterator[tuple[str, Place]]]:
    """Whether ``place`` is one file; the files there, and their names relative to its folder."""
    files = place.files
    if files.isfile(place.path):
        return True, iter([(PurePosixPath(place.path).name, place)])
    if files.isdir(place.path):
        names = (name for name in place.find() if _is_wanted(name))
        return False, ((name, place / name) for name in names)
    if not glob.has_magic(place.path):
        return False, iter(())
    base = _searched(place.path)
    matches = (path for path in files.glob(place.path) if files.isfile(path))
    return False, ((path[len(base) :].lstrip("/"), Place(files, path)) for path in matches)


def _searched(path: str) -> str:
    """The folder that a pattern searches."""
    parts = PurePosixPath(path).parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return str(PurePosixPath(*parts[:fixed])) if fixed else ""


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not is_hidden(parts) and (is_photo(parts[-1]) or name.lower().endswith(ARCHIVE_SUFFIXES))


def _in_archive(place: Place, folder: str, format: str, tell: Callable[[str], None]) -> Iterator[Work]:
    found = False
    try:
        with place.files.open(place.path, "rb") as file, open_archive(place.path, file) as archive:
            for name, member in images_in(archive):
                found = True
                target = f"{folder}/{name}.{format}".lstrip("/")
                if isinstance(member, zipfile.ZipInfo):
                    yield Work(target, place, member.filename)
                    continue
                if member.islnk() or member.issym():
                    problem = f"it is a link to {member.linkname!r}, which is not in the archive"
                    tell(f"cannot read the image {member.name} in {place}: {problem}")
                    continue
                yield Work(target, place, member.name, (member.offset_data, member.offset_data + member.size))
    except ARCHIVE_ERRORS as error:
        tell(f"{place}: an archive that cannot be read: {error}")
    else:
        if not found:
            tell(f"{place}: {NO_IMAGES}")


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _why_nothing(place: Place) -> str:
    if place.files.isdir(place.path):
        return NO_IMAGES
    return "no file matches this pattern" if glob.has_magic(place.path) else "there is no such file or folder"
