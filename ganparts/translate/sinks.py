"""Write translated pictures to a folder or an archive. A file, or the archive, appears when it is complete."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Literal, Protocol

from ganparts.data.members import MEMBER_ERRORS, check_tar_is_whole
from ganparts.disk import naming_file, replace_file

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = [
    "ARCHIVE_SUFFIXES",
    "ArchiveSink",
    "FolderSink",
    "Listed",
    "Sink",
    "in_utf8",
    "open_sink",
    "too_long",
]

Claim = Literal["free", "done", "taken", "too long"]
ARCHIVE_SUFFIXES = (".zip", ".tar")


class Sink(Protocol):
    """A place for files."""

    @property
    def path(self) -> Path: ...

    def claim(self, name: str) -> Claim:
        """``"free"``: write it. ``"done"``: an earlier run wrote it. ``"taken"``: another input has this name.

        ``"too long"``: file systems take no such name.
        """
        ...

    def write(self, name: str, encoded: bytes) -> None:
        """Write a claimed file; from any thread."""
        ...

    def release(self, name: str, reason: str) -> None:
        """A claimed file will not be written, for a reason."""
        ...

    def close(self, *, whole: bool) -> None:
        """Finish; ``whole`` unless the run was interrupted."""
        ...


def open_sink(path: Path | str, *, overwrite: bool) -> Sink:
    """Open an archive if the path ends in .zip or .tar, else a folder, which is made if it is missing.

    Raises:
        ValueError: the path is a file that is not an archive.
    """
    path = Path(path)
    if path.suffix.lower() in ARCHIVE_SUFFIXES:
        return ArchiveSink(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: give a folder, a .zip or a .tar for the results (-o)")
    return FolderSink(path, overwrite=overwrite)


def too_long(name: str) -> bool:
    """Whether a file of this name, relative, cannot be made on most file systems."""
    return any(len(os.fsencode(part)) > 255 for part in name.split("/"))


class FolderSink:
    """A folder. The time of writing tells the files of this run from older ones, so it keeps no list."""

    def __init__(self, path: Path, *, overwrite: bool):
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.overwrite = path, overwrite
        self.began = _next_tick(path)
        self.claimed: set[str] = set()

    def claim(self, name: str) -> Claim:
        if name in self.claimed:
            return "taken"
        if too_long(name):
            return "too long"
        try:
            status = os.stat(self.path / name)
            # a copy keeps the time of its writing, perhaps by a clock that is ahead; when it was copied is ctime
            if min(status.st_mtime_ns, status.st_ctime_ns) >= self.began:
                return "taken"
            if not self.overwrite:
                return "done"
        except FileNotFoundError:
            pass
        self.claimed.add(name)
        return "free"

    def write(self, name: str, encoded: bytes) -> None:
        replace_file(self.path / name, encoded)
        self.claimed.discard(name)

    def release(self, name: str, reason: str) -> None:
        self.claimed.discard(name)

    def close(self, *, whole: bool) -> None:
        pass


def _next_tick(folder: Path) -> int:
    """A time by the clock of that file system, in nanoseconds, that is later than all files there."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as file:
        before = now = os.stat(file.name).st_mtime_ns
        while now == before:  # clocks tick every 1 to 10 ms, every 2 s on FAT
            time.sleep(0.001)
            os.utime(file.name)
            now = os.stat(file.name).st_mtime_ns
    return now


class _Zip:
    """A zip archive that is written; its pictures are compressed already."""

    def __init__(self, file: IO[bytes]):
        self.archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, content: bytes) -> None:
        self.archive.writestr(name, content)

    def copy(self, path: Path) -> Iterator[str]:
        """Copy all files of another archive; gives their names."""
        with zipfile.ZipFile(path) as old:
            for member in old.infolist():
                self.archive.writestr(member, old.read(member))
                yield member.filename

    def close(self) -> None:
        self.archive.close()


class _Tar:
    """A tar archive that is written."""

    def __init__(self, file: IO[bytes]):
        self.archive = tarfile.open(fileobj=file, mode="w")  # noqa: SIM115

    def add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(content), int(time.time())
        self.archive.addfile(member, io.BytesIO(content))
        self.archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  which would grow

    def copy(self, path: Path) -> Iterator[str]:
        """Copy all files of another archive; gives their names."""
        with tarfile.open(path, "r:") as old:
            for member in old:
                if member.type not in tarfile.SUPPORTED_TYPES:
                    continue
                self.archive.addfile(member, old.extractfile(member) if member.isreg() else None)
                if not member.isdir():
                    yield member.name
            check_tar_is_whole(old)

    def close(self) -> None:
        self.archive.close()


class Listed:
    """Part of a sink that knows by name what is there (``done``) and what this run writes."""

    def __init__(self, done: Iterable[str] = ()):
        self.done, self.claimed = set(done), set[str]()

    def claim(self, name: str) -> Claim:
        if name in self.claimed:
            return "taken"
        if name in self.done:
            return "done"
        self.claimed.add(name)
        return "free"

    def release(self, name: str, reason: str) -> None:
        self.claimed.discard(name)


class ArchiveSink(Listed):
    """An archive, written beside an older one, whose files it copies, and renamed at the end.

    An interrupted run leaves what it has written, so that the next one adds the rest; but with ``overwrite`` it leaves
    all as it was.

    Raises:
        ValueError: the older one cannot be read.
        OSError: another run writes this archive now.
    """

    def __init__(self, path: Path, *, overwrite: bool):
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__()
        self.path, self.partial, self.overwrite = path, path.with_name(path.name + ".partial"), overwrite
        self.lock = threading.Lock()
        self.written = self.damaged = False
        self.file = _open_alone(self.partial, path)
        self.archive = (_Zip if path.suffix.lower() == ".zip" else _Tar)(self.file)
        if path.exists() and not overwrite:
            try:
                self.done.update(self.archive.copy(path))
            except OSError:  # perhaps of what is written
                self.close(whole=False)
                raise
            except MEMBER_ERRORS as error:
                self.close(whole=False)
                raise ValueError(
                    f"{path} is not a {path.suffix.lower()[1:]} archive that can be read ({error}): --overwrite it"
                ) from None
            except BaseException:
                self.close(whole=False)
                raise

    def claim(self, name: str) -> Claim:
        return super().claim(in_utf8(name))

    def write(self, name: str, encoded: bytes) -> None:
        with self.lock:
            try:
                with naming_file(self.path):
                    self.archive.add(in_utf8(name), encoded)
            except BaseException:
                self.damaged = True  # by a member that was cut short
                raise
            self.written = True

    def release(self, name: str, reason: str) -> None:
        super().release(in_utf8(name), reason)

    def close(self, *, whole: bool) -> None:
        worth_keeping = self.written and not self.damaged and not self.overwrite
        renamed = False
        try:
            with self.lock, naming_file(self.path):
                self.archive.close()
                self.file.flush()
            if fcntl is None:
                self.file.close()  # Windows renames no open file
            if whole or worth_keeping:
                os.replace(self.partial, self.path)
                renamed = True
        finally:
            if not renamed:  # else a file of this name is another run's by now
                self.partial.unlink(missing_ok=True)
            with suppress(OSError):  # of a full disk, which was told
                self.file.close()  # which ends the lock


def _open_alone(partial: Path, path: Path) -> IO[bytes]:
    """Open a file that this process alone writes, where the system has locks; they end with the process."""
    while True:
        number = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        file = os.fdopen(number, "r+b")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OSError(f"another run writes {path} now: wait for its end, or take another name (-o)") from None
        except OSError:  # a file system without locks
            pass
        if partial.exists() and os.path.samestat(os.fstat(file.fileno()), partial.stat()):
            file.truncate(0)
            return file
        file.close()  # another run has just finished, and renamed it


def in_utf8(name: str) -> str:
    """The name as archives can hold it: bytes that are no UTF-8 become question marks."""
    return name.encode("utf-8", "replace").decode()
