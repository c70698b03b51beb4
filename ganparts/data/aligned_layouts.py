"""Find aligned pairs: side by side in one file, under one name in two folders, or in one row of shards."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganparts.data.address import parse_address
from ganparts.data.aligned import AlignedImages, PairOrder
from ganparts.data.entries import Entry
from ganparts.data.errors import DataError
from ganparts.data.layouts import digest
from ganparts.data.shard_sets import ShardSet, shards_of_data
from ganparts.data.shards import shards_of
from ganparts.data.sources import existing_folder, listing, open_images

__all__ = ["AlignedDomains", "open_aligned"]

_SHOWN = 3  # names that an error lists


@dataclass(frozen=True)
class AlignedDomains:
    """The pairs of a data set.

    Args:
        train: pairs to train on.
        val: pairs for choosing settings, if there are any.
        test: pairs to keep for the end, if there are any.
        origin: says where the pairs come from.
    """

    train: AlignedImages
    val: AlignedImages | None
    test: AlignedImages | None
    origin: str

    def summary(self) -> str:
        """Number of pairs and name of their folder, without its path: for a published model card."""
        return f"{len(self.train)} aligned pairs ({self.train.a[0].place})"

    def digest(self) -> str:
        """Like :meth:`ganparts.data.Domains.digest`, for the training pairs."""
        return digest(self.train.a, self.train.b or [])


def open_aligned(
    root: Path | str | None = None,
    *,
    a: Path | str | None = None,
    b: Path | str | None = None,
    direction: PairOrder = "ab",
    skip_unreadable: bool = False,
) -> AlignedDomains:
    """Find aligned pairs.

    Images in two folders make a pair if they have the same name without suffix. An image without a partner is an error;
    with ``skip_unreadable`` a warning counts such images instead.

    Args:
        root: a folder with ``train`` and perhaps ``val`` and ``test``, whose files hold both images side by side; or
            with ``trainA``, ``trainB`` and perhaps ``valA``, ``valB``, ``testA``, ``testB``.
            Or a set of shards with two columns of images, whose rows are pairs; options name the columns:
            ``hf:owner/name(a=photo, b=painting)``.
        a: instead, a folder of the first images, or without ``b`` of files that hold both; or shards (see
            :func:`ganparts.data.open_images`).
        b: a folder of the second images, or shards with the same rows.
        direction: "ab": translate the first (left) images into the second; "ba": the other way round.
        skip_unreadable: warn of images that cannot be read or have no partner, and go on without them.

    Raises:
        DataError: folders are missing (the text says what was found), or images lack partners.
    """

    def opened(first: Path | str, second: Path | str | None) -> AlignedImages:
        return _open_pairs(first, second, direction=direction, skip_unreadable=skip_unreadable)

    if a is not None:
        if root is not None:
            raise DataError("give a data set's folder, or the folders of the images, and not both")
        origin = f"pairs side by side from {a}" if b is None else f"pairs from {a} and {b}"
        return AlignedDomains(opened(a, b), None, None, origin)
    if root is None or b is not None:
        raise DataError("give the folder of a data set, or that of the first images (a), with that of the second (b)")
    address = parse_address(root)
    if (shards := shards_of_data(address)) is not None:
        return _open_shards(shards, direction=direction, skip_unreadable=skip_unreadable)
    root = existing_folder(root)
    if (root / "trainA").is_dir() and (root / "trainB").is_dir():
        places = {part: (root / f"{part}A", root / f"{part}B") for part in ("train", "val", "test")}
    elif (root / "train").is_dir():
        places = {part: (root / part, None) for part in ("train", "val", "test")}
    else:
        raise DataError(
            f"{root} has no layout of aligned pairs that is known: looked for the folder train, with both images of a "
            f"pair side by side in each file, or trainA and trainB, with files of the same names; found {listing(root)}"
        )
    found = {
        part: opened(first, second) if first.is_dir() and (second is None or second.is_dir()) else None
        for part, (first, second) in places.items()
    }
    train = found["train"]
    assert train is not None
    how = "side by side" if train.b is None else "by name"
    return AlignedDomains(train, found["val"], found["test"], f"pairs {how} from {root}")


def _open_shards(shards: ShardSet, *, direction: PairOrder, skip_unreadable: bool) -> AlignedDomains:
    def opened(*splits: str) -> AlignedImages | None:
        split = next((split for split in splits if split in shards.files), None)
        if split is None:
            return None
        a, b = (shards.open(split=split, column=column, skip_unreadable=skip_unreadable).entries for column in columns)
        return AlignedImages(a, b, direction=direction, skip_unreadable=skip_unreadable)

    columns = shards.two_columns()
    train = opened(shards.check_split(shards.address.split or "train"))
    assert train is not None
    val, test = (None, None) if shards.address.split else (opened("val", "validation"), opened("test"))
    return AlignedDomains(train, val, test, f"pairs of columns {' and '.join(columns)} from {shards.address.place}")


def _open_pairs(
    first: Path | str, second: Path | str | None, *, direction: PairOrder, skip_unreadable: bool
) -> AlignedImages:
    a = open_images(first, skip_unreadable=skip_unreadable).entries
    options: dict[str, Any] = {"direction": direction, "skip_unreadable": skip_unreadable}
    if second is None:
        return AlignedImages(a, **options)
    b = open_images(second, skip_unreadable=skip_unreadable).entries
    if shards_of(a) is not None or shards_of(b) is not None:
        if len(a) != len(b):
            raise DataError(
                f"{first} has {len(a)} images and {second} has {len(b)}: in shards, rows of one number pair"
            )
        return AlignedImages(a, b, **options)
    by_name = [_by_name(first, a), _by_name(second, b)]
    common = [name for name in by_name[0] if name in by_name[1]]
    lone = [
        f"{len(names)} in {folder} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for folder, own, other in ((first, *by_name), (second, *by_name[::-1]))
        if (names := [name for name in own if name not in other])
    ]
    if not common:
        raise DataError(f"no image of {first} is called as one of {second}: {'; '.join(lone)}. Give pairs one name")
    if lone:
        problem = f"images without a partner of the same name: {'; '.join(lone)}"
        if not skip_unreadable:
            raise DataError(
                f"{problem}. Rename or remove them, or leave them out (skip_unreadable=True; --skip-unreadable)"
            )
        warnings.warn(f"left out: {problem}; {len(common)} pairs remain", stacklevel=3)
    return AlignedImages([by_name[0][name] for name in common], [by_name[1][name] for name in common], **options)


def _by_name(folder: Path | str, entries: Iterable[Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise DataError(f"{folder} has several images named {entry.name}, so its pair is not known: rename them")
        found[entry.name] = entry
    return found
