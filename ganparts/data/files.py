"""Files on this machine or elsewhere, by path or address (``hf://``, ``s3://`` ...: whatever fsspec knows)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ganparts.data.errors import DataError

__all__ = ["File", "expand_braces", "find_files", "is_address"]

_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class File:
    """A file.

    Args:
        path: its path, or its address.
        size: in bytes.
        version: what changes with its content: the time of its last change, or what its server says.
    """

    path: str
    size: int
    version: str = ""

    def open(self) -> Any:
        """Open it to read bytes."""
        if not is_address(self.path):
            return open(self.path, "rb")
        from fsspec.core import url_to_fs

        system, path = url_to_fs(self.path)
        return system.open(path, "rb")


def is_address(text: str) -> bool:
    """Whether a text is an address rather than a path."""
    return "://" in text


def expand_braces(text: str) -> list[str]:
    """``shards-{000..099}.tar`` and ``{a,b}.tar`` as a shell expands them; not if there is a file of just this name."""
    if os.path.exists(text):
        return [text]
    parts = _GROUP.split(text)
    return [
        "".join(chosen) for chosen in product(*(_choices(part) if i % 2 else [part] for i, part in enumerate(parts)))
    ]


def _choices(group: str) -> list[str]:
    if found := _RANGE.fullmatch(group):
        first, last = found.groups()
        width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
        return [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    return group.split(",")


def find_files(pattern: str) -> list[File]:
    """The files that a path or an address means, which may have braces and wildcards; sorted by name.

    Raises:
        DataError: a file that it names is not there, or none is.
    """
    found = [file for each in expand_braces(pattern) for file in _find(each)]
    if not found:
        raise DataError(f"there is no file {pattern}: check the pattern")
    return found


def _find(pattern: str) -> Iterator[File]:
    wild = any(letter in pattern for letter in "*?[")
    if not is_address(pattern):
        yield from _find_here(pattern, wild)
        return
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(pattern)
        found: Sequence[dict[str, Any]]
        found = list(system.glob(path, detail=True).values()) if wild else [system.info(path)]
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"cannot find {pattern}: {str(error).strip() or type(error).__name__}") from None
    for info in sorted(found, key=lambda info: info["name"]):
        if info["type"] == "file":
            version = next(
                (str(info[key]) for key in ("etag", "ETag", "blob_id", "mtime", "created") if info.get(key)), ""
            )
            yield File(system.unstrip_protocol(info["name"]), int(info["size"] or 0), version)


def _find_here(pattern: str, wild: bool) -> Iterator[File]:
    import glob

    if not wild or os.path.exists(pattern):
        paths = [pattern]
    else:
        paths = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    for path in paths:
        try:
            status = Path(path).stat()
        except OSError as error:
            raise DataError(f"cannot find {path}: {error.strerror}") from None
        yield File(path, status.st_size, str(status.st_mtime_ns))
