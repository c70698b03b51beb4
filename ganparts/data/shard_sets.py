"""Sets of shards, by split: their files, their columns, their images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ganparts.data.address import KNOWN_SUFFIXES, SHARD_SUFFIXES, Address, saved_splits
from ganparts.data.entries import Entries
from ganparts.data.errors import DataError
from ganparts.data.files import File, find_files
from ganparts.data.images import IMAGE_SUFFIXES, Images
from ganparts.data.indexing import open_shards
from ganparts.data.parquet import columns_of
from ganparts.data.shards import ShardSource

__all__ = ["ShardSet", "find_shards", "shards_of_data"]


@dataclass(frozen=True)
class ShardSet:
    """The files of a set of shards, by split; the split of files that were not split is ``train``.

    Args:
        address: as it was given.
        files: by split.
    """

    address: Address
    files: dict[str, list[File]] = field(repr=False)

    def columns(self) -> list[str]:
        """The columns of images; tar files have none."""
        file = next((file for files in self.files.values() for file in files), None)
        return [] if file is None else columns_of(file)

    def two_columns(self) -> tuple[str, str]:
        """The columns of photos (or first images) and of paintings (or second ones).

        Raises:
            DataError: they are not named, and the set has not just two.
        """
        address = self.address
        if address.a is not None and address.b is not None:
            return address.a, address.b
        found = self.columns()
        if len(found) == 2:
            return found[0], found[1]
        raise DataError(
            f"{address.place} needs two columns of images and has {', '.join(found) or 'none'}: name them, as in "
            f"--data '{address.place}(a=photo, b=painting)', or give the two sets of images one by one"
        )

    def check_split(self, split: str) -> str:
        """The name of a split, if there is one."""
        if split not in self.files:
            raise DataError(
                f"{self.address.place} has no split {split!r}: name one of {', '.join(self.files)}, as in "
                f"(split={next(iter(self.files))})"
            )
        return split

    def open(self, *, split: str | None = None, column: str | None = None, skip_unreadable: bool = False) -> Images:
        """The images of a split.

        Raises:
            DataError: there is no such split or column, a shard is damaged, or the set is empty.
            UnavailableError: a package is missing.
        """
        address = self.address
        files = self.files[self.check_split(split or address.split or "train")]
        shards = open_shards(files, column or address.column, skip_unreadable=skip_unreadable)
        source = ShardSource(address.label, shards, buffer=address.buffer)
        if not len(source):
            raise DataError(
                f"{address.place} has no images: its {len(files)} shard(s) hold none (in tar files: members that end "
                f"in {', '.join(IMAGE_SUFFIXES)})"
            )
        return Images(Entries(source), skip_unreadable=skip_unreadable)


def find_shards(address: Address) -> ShardSet:
    """The files that an address of shards means.

    Raises:
        DataError: there is no such file or data set.
        UnavailableError: a package is missing.
    """
    place = address.path
    if (saved := saved_splits(place)) is not None:
        return ShardSet(address, {split: _saved_files(folder) for split, folder in saved.items()})
    if not address.is_hub:
        files = find_files(place)
        _check_kind([file.path for file in files], place)
        return ShardSet(address, {address.split or "train": files})
    from ganparts.data.hub import resolve

    paths = resolve(place, config=address.config, revision=address.revision)
    for found in paths.values():
        _check_kind(found, address.place)
    return ShardSet(
        address, {split: [file for path in found for file in find_files(path)] for split, found in paths.items()}
    )


def shards_of_data(address: Address) -> ShardSet | None:
    """The shards of both domains that an address means; None if it means a folder in another layout."""
    if address.is_sharded:
        return find_shards(address)
    files = sorted(Path(address.place).glob("*.parquet"))
    return ShardSet(address, {"train": [file for path in files for file in find_files(str(path))]}) if files else None


def _check_kind(paths: list[str], place: str) -> None:
    if not all(path.lower().endswith(KNOWN_SUFFIXES) for path in paths):
        kinds = sorted({PurePosixPath(path).suffix.lower() for path in paths})
        raise DataError(
            f"{place} is made of files that end in {', '.join(kinds)}; shards end in {' or '.join(SHARD_SUFFIXES)}: "
            "fetch the files, and give the folder that they are in"
        )


def _saved_files(folder: Path) -> list[File]:
    try:
        state = json.loads((folder / "state.json").read_text())
        names = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'} is not what the library datasets writes: {error!r}") from None
    return [file for name in names for file in find_files(str(folder / name))]
