"""Images in archives: what may go wrong when one is read, and how much memory it may take."""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

__all__ = ["MEMBER_ERRORS", "check_tar_is_whole", "is_hidden", "link_target", "read_member"]

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

_LONGEST_CHAIN = 8  # of links
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
    target = link_target(archive, member)
    _check(target.size)
    file = archive.extractfile(target)
    return file.read() if file else b""


def link_target(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member of a tar archive that holds the bytes: the member itself, unless it is a link.

    Raises:
        ValueError: the link leads nowhere.
    """
    followed = member
    for _ in range(_LONGEST_CHAIN):
        if not (followed.islnk() or followed.issym()):
            return followed
        name = followed.linkname
        if followed.issym():
            name = posixpath.normpath(posixpath.join(posixpath.dirname(followed.name), name))
        try:
            followed = archive.getmember(name)
        except KeyError:
            break
    raise ValueError(f"it is a link to {member.linkname!r}, which is not in the archive")


def check_tar_is_whole(archive: tarfile.TarFile) -> None:
    """Refuse a tar archive that was read to its last member if more follows, which tarfile passes by in silence.

    Raises:
        ReadError: tells where the header is that cannot be read.
    """
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"there is no header of a member at byte {archive.offset:,}")


def _check(size: int) -> None:
    if size > _MOST:
        raise ValueError(f"it has {size:,} bytes, more than the {_MOST:,} that are read of an image in an archive")
