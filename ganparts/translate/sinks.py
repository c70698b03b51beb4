"""Write translated pictures to a folder or a zip archive. A file, or the archive, appears when it is complete."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["FolderSink", "Sink", "ZipSink", "open_sink"]

Claim = Literal["free", "done", "taken"]


class Sink(Protocol):
    """A place for files."""

    @property
    def path(self) -> Path: ...

    def claim(self, name: str) -> Claim:
        """``"free"``: write it. ``"done"``: an earlier run wrote it. ``"taken"``: another input has this name."""
        ...

    def write(self, name: str, encoded: bytes) -> None:
        """Write a claimed file; from any thread."""
        ...

    def release(self, name: str) -> None:
        """A claimed file will not be written."""
        ...

    def close(self, *, whole: bool) -> None:
        """Finish; ``whole`` unless the run was interrupted."""
        ...


def open_sink(path: Path | str, *, overwrite: bool) -> Sink:
    """Open an archive if the path ends in .zip, else a folder, which is made if it is missing.

    Raises:
        ValueError: the path is a file that is no archive.
    """
    path = Path(path)
    if path.suffix.lower() == ".zip":
        return ZipSink(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: give a folder or a .zip for the results (-o)")
    return FolderSink(path, overwrite=overwrite)


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
        partial = self.path / f".{name}.partial"
        try:
            partial.write_bytes(encoded)
            os.replace(partial, self.path / name)
        finally:
            partial.unlink(missing_ok=True)
        self.release(name)

    def release(self, name: str) -> None:
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


class ZipSink:
    """A flat archive, written beside an older one, whose files it copies, and renamed at the end."""

    def __init__(self, path: Path, *, overwrite: bool):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        self.lock = threading.Lock()
        self.done: set[str] = set()
        self.claimed: set[str] = set()
        self.archive = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_STORED)
        if path.exists() and not overwrite:
            try:
                with zipfile.ZipFile(path) as old:
                    for member in old.infolist():
                        self.archive.writestr(member, old.read(member))
                        self.done.add(member.filename)
            except zipfile.BadZipFile as error:
                self.close(whole=False)
                raise ValueError(f"{path} is no zip archive that can be read ({error}): --overwrite it") from None

    def claim(self, name: str) -> Claim:
        if name in self.claimed:
            return "taken"
        if name in self.done:
            return "done"
        self.claimed.add(name)
        return "free"

    def write(self, name: str, encoded: bytes) -> None:
        with self.lock:
            self.archive.writestr(name, encoded)

    def release(self, name: str) -> None:
        self.claimed.discard(name)

    def close(self, *, whole: bool) -> None:
        self.archive.close()
        if whole:
            os.replace(self.partial, self.path)
        self.partial.unlink(missing_ok=True)
