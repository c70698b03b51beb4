"""Images in archives: what may go wrong when one is read, and how much memory it may take."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

__all__ = ["MEMBER_ERRORS", "is_hidden", "read_member"]

MEMBER_ERRORS = (
    OSError,
    ValueError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    EOFError,
)
"""Of members that are damaged, encrypted, or compressed in a way that Python does not know."""

_MOST = 2**30  # bytes of a member once it is unpacked; a small archive can claim any number


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path of these parts is hidden, or is what macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in parts)


def read_member(archive: zipfile.ZipFile | tarfile.TarFile, member: Any) -> bytes:
    """The bytes of an archive's member; ``member`` is its entry, or in a zip archive its name.

    Raises:
        ValueError: it is larger than any image that is read.
        MEMBER_ERRORS: it cannot be read.
    """
    if isinstance(archive, zipfile.ZipFile):
        found = archive.getinfo(member) if isinstance(member, str) else member
        _check(found.file_size)
        return archive.read(found)
    _check(member.size)
    file = archive.extractfile(member)
    return file.read() if file else b""


def _check(size: int) -> None:
    if size > _MOST:
        raise ValueError(f"it has {size:,} bytes, more than the {_MOST:,} that are read of an image in an archive")
