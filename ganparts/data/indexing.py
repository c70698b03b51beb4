"""Open shards, and remember where the blocks of those lie that take long to go through."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ganparts.data.errors import DataError
from ganparts.data.files import File, is_address
from ganparts.data.parquet import ArrowShard, ColumnError, ParquetShard, open_arrow, open_parquet
from ganparts.data.shards import Shard
from ganparts.data.tar import TarShard, open_tar
from ganparts.pretrained.painters import cache_folder

__all__ = ["open_shards"]

_AT_ONCE = 16  # shards elsewhere, whose servers are slow to answer
_VERSION = 1


def open_shards(files: Sequence[File], column: str | None, *, skip_unreadable: bool = False) -> list[Shard]:
    """Open shards, of which all have the same columns.

    Where the blocks of tar files and of files elsewhere lie is kept in ``$GANPARTS_CACHE`` (``~/.cache/ganparts``).

    Args:
        files: Parquet, Arrow or tar files.
        column: that holds the images; None for the only one, or the one called ``image``.
        skip_unreadable: warn of damaged files, and leave them out.

    Raises:
        DataError: a file is damaged, or has no such column.
        UnavailableError: pyarrow is not installed.
    """
    open_one = partial(_open, column=column)
    if not any(is_address(file.path) or file.path.endswith(".tar") for file in files):
        return _checked(map(partial(_tried, open_one), files), skip_unreadable)
    kept = _Kept(files, column)
    if (shards := kept.read()) is not None:
        return shards
    with ThreadPoolExecutor(_AT_ONCE if is_address(files[0].path) else 1) as pool:
        shards = _checked(pool.map(partial(_tried, open_one), files), skip_unreadable)
    if len(shards) == len(files):
        kept.write(shards)
    return shards


def _open(file: File, *, column: str | None) -> Shard:
    if file.path.lower().endswith(".parquet"):
        return open_parquet(file, column)
    return open_arrow(file, column) if file.path.lower().endswith(".arrow") else open_tar(file)


def _tried(open_one: Callable[[File], Shard], file: File) -> Shard | DataError:
    try:
        return open_one(file)
    except ColumnError:
        raise
    except DataError as error:
        return error


def _checked(found: Iterable[Shard | DataError], skip_unreadable: bool) -> list[Shard]:
    shards = []
    for each in found:
        if not isinstance(each, DataError):
            shards.append(each)
        elif skip_unreadable:
            warnings.warn(f"left out: {each}", stacklevel=4)
        else:
            raise each
    return shards


class _Kept:
    """The file that remembers where the blocks of these shards lie."""

    def __init__(self, files: Sequence[File], column: str | None):
        self.files = files
        lines = [f"{_VERSION} {column}", *(f"{_whole(file.path)} {file.size} {file.version}" for file in files)]
        key = hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()[:32]
        self.path: Path = cache_folder() / "shards" / f"{key}.json"

    def read(self) -> list[Shard] | None:
        try:
            saved = json.loads(self.path.read_text())
            return [_restored(file, **each) for file, each in zip(self.files, saved, strict=True)]
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, shards: Sequence[Shard]) -> None:
        partial_path = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial_path.write_text(json.dumps([_index(shard) for shard in shards]))
            os.replace(partial_path, self.path)
        except OSError as error:
            warnings.warn(
                f"where images lie in shards cannot be kept in {self.path.parent} ({error}): set GANPARTS_CACHE",
                stacklevel=4,
            )


def _whole(path: str) -> str:
    """An address as it is, or a path from the root: the same from every working directory."""
    return path if is_address(path) else os.path.abspath(path)


def _index(shard: Shard) -> dict[str, Any]:
    return {name: value for name, value in vars(shard).items() if name != "file"}


def _restored(file: File, **index: Any) -> Shard:
    if "column" not in index:
        return TarShard(file, **index)
    return ArrowShard(file, **index) if "offsets" in index else ParquetShard(file, **index)
