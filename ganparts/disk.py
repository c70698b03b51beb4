"""Files that are written whole or not at all, and errors of a full disk that name the file."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["naming_file", "replace_file"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, or a file system of small files


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Name this file in the error of a full disk, which the system leaves out."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that appears when it is complete; the one before stays until then.

    A link stays a link to the file, and a pipe or a device gets the bytes.

    Raises:
        OSError: it cannot be written; the file before is whole.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # of its own: others may write the same file now
    try:
        with naming_file(path):
            partial.write_bytes(content)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
