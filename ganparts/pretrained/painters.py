"""Painters: trained generators that have a short name, in the package or at an address.

``painters/painters.json`` lists them, with the size and SHA-256 of each file. A small painter ships with the package,
in ``painters/NAME``. A larger one has an address; it is fetched once, checked, and kept in :func:`cache_folder`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["FOLDER", "TABLE", "Painter", "PainterFile", "cache_folder", "find_painter", "list_painters"]

FOLDER = Path(__file__).parent / "painters"
"""The table and the painters that ship with the package."""

TABLE = "painters.json"
_BLOCK, _PATIENCE = 2**20, 30  # bytes read at a time, and seconds to wait for the next ones


@dataclass(frozen=True)
class PainterFile:
    """A file of a painter."""

    size: int
    """In bytes."""
    sha256: str
    """In hexadecimal."""


@dataclass(frozen=True)
class Painter:
    """An entry of the table."""

    name: str
    """By which ``from_pretrained`` finds it."""
    title: str
    """What it paints, in a line."""
    license: str
    """Of the weights, as the Hub spells it."""
    data: str
    """What it was trained on."""
    scores: Mapping[str, float | str]
    """As on its card."""
    address: str | None = None
    """The folder on a server that holds its files; None: it ships with the package."""
    files: Mapping[str, PainterFile] = field(default_factory=dict)
    """Its configuration and weights, by name."""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files.values())


def list_painters() -> dict[str, Painter]:
    """All painters, by name; nothing is fetched."""
    painters = {}
    for name, entry in sorted(json.loads((FOLDER / TABLE).read_text(encoding="utf-8")).items()):
        files = {file: PainterFile(**facts) for file, facts in entry.pop("files", {}).items()}
        painters[name] = Painter(name=name, files=files, **entry)
    return painters


def find_painter(painter: Painter) -> Path:
    """The folder with a painter's files, which are fetched first if need be.

    Each file is written in full and checked before it takes its place. A kept file is checked again each time, and
    fetched anew if it is damaged.

    Raises:
        OSError: a file cannot be fetched or kept, or the address holds another one.
        ValueError: it has an address, but no list of files.
    """
    if painter.address is None:
        return FOLDER / painter.name
    if not painter.files:
        raise ValueError(f"the painter {painter.name!r} has an address and no files: list each with size and sha256")
    version = hashlib.sha256("".join(file.sha256 for file in painter.files.values()).encode()).hexdigest()[:12]
    folder = cache_folder() / "painters" / f"{painter.name}-{version}"
    for name, file in painter.files.items():
        if not _is_right(folder / name, file):
            _fetch(painter, f"{painter.address.rstrip('/')}/{name}", file, folder / name)
    return folder


def cache_folder() -> Path:
    """``$GANPARTS_CACHE``, else ``~/.cache/ganparts``; it may be deleted at any time."""
    return Path(os.environ.get("GANPARTS_CACHE") or Path.home() / ".cache" / "ganparts").expanduser()


def _is_right(path: Path, file: PainterFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256.lower()


def _fetch(painter: Painter, address: str, file: PainterFile, path: Path) -> None:
    from http.client import HTTPException
    from urllib.request import urlopen

    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # of this process alone
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(address, timeout=_PATIENCE) as answer, partial.open("xb") as written:
            size, digest = 0, hashlib.sha256()
            while size <= file.size and (block := answer.read(_BLOCK)):
                written.write(block)
                digest.update(block)
                size += len(block)
        if (size, digest.hexdigest()) != (file.size, file.sha256.lower()):
            amount = f"more than {file.size:,}" if size > file.size else f"{size:,}"
            raise OSError(
                f"it holds {amount} bytes with SHA-256 {digest.hexdigest()[:12]}..., instead of {file.size:,} with "
                f"{file.sha256[:12]}..."
            )
        os.replace(partial, path)
    except (OSError, ValueError, HTTPException) as error:
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise OSError(
            f"the painter {painter.name!r} could not be fetched from {address} to {path.parent}: {reason}. Check the "
            "network, or put the file there yourself (GANPARTS_CACHE names another folder than ~/.cache/ganparts)"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
