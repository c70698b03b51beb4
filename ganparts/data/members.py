"""Images in archives: what may go wrong when one is read, and how much memory it may take."""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zipfile
import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["MEMBER_ERRORS", "check_tar_is_whole", "follow_links", "is_hidden", "read_member"]

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
    _check(member.size)
    try:
        file = archive.extractfile(member)
    except KeyError:
        raise ValueError(f"it is a link to {member.linkname!r}, which is not in the archive") from None
    return file.read() if file else b""


def follow_links(members: Sequence[tarfile.TarInfo]) -> list[tarfile.TarInfo]:
    """For each member of a tar archive the one that has its bytes: itself, or where a link leads; a link if nowhere."""
    places = defaultdict[str, list[int]](list)
    for place, member in enumerate(members):
        places[posixpath.normpath(member.name)].append(place)

    def follow(place: int) -> tarfile.TarInfo:
        for _ in range(_LONGEST_CHAIN):
            member = members[place]
            if member.islnk():  # to what came before
                found = places.get(posixpath.normpath(member.linkname), [])
                found = found[: bisect_left(found, place)]
            elif member.issym():
                folder = posixpath.dirname(member.name)
                found = places.get(posixpath.normpath(posixpath.join(folder, member.linkname)), [])
            else:
                return member
            if not found:
                break
            place = found[-1]
        return members[place]

    return [follow(place) if each.islnk() or each.issym() else each for place, each in enumerate(members)]


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
