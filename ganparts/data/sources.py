"""Open images wherever they are: folders, TFRecords, Parquet files, tar files, data sets of the Hugging Face Hub."""

from __future__ import annotations

import os
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

from ganparts.data.address import SHARD_SUFFIXES, parse_address
from ganparts.data.entries import Entries, Entry, printable_stem
from ganparts.data.errors import DataError
from ganparts.data.files import find_files
from ganparts.data.images import IMAGE_SUFFIXES, ImageEntry, Images
from ganparts.data.listing import list_folder
from ganparts.data.shard_sets import ShardSet, find_shards
from ganparts.data.tfrecord import TFRecordError, read_examples

__all__ = ["existing_folder", "listing", "open_images"]

RECORD_SUFFIXES = (".tfrec", ".tfrecord", ".tfrecords")
_LISTED = 2**17  # files of a folder up to which all entries are made at once


def open_images(folder: Path | str, *, skip_unreadable: bool = False) -> Images:
    """Open the images of a folder, sorted by name, or those of shards, in their order.

    A folder has image files; else TFRecord files with a feature ``image`` and perhaps ``image_name``; else Parquet
    files; else tar files. Checksums of TFRecord files are verified here.

    Shards are also given as ``photos.parquet``, ``photos/*.parquet``, ``shards-{000..099}.tar``, by addresses that
    fsspec knows, as ``hf:owner/name`` (a data set of the Hugging Face Hub), or as a folder that the library
    ``datasets`` saved. Options follow in brackets: ``hf:owner/name(split=test, column=picture)``, see
    :class:`ganparts.data.address.Address`.

    Raises:
        DataError: there is no such folder, it has no images, or a file is damaged.
        UnavailableError: a package is missing.
    """
    address = parse_address(folder)
    if address.is_sharded:
        return find_shards(address).open(skip_unreadable=skip_unreadable)
    path = existing_folder(address.place)
    found, others = list_folder(path)
    entries: list[Entry] = []
    if len(found) > _LISTED:
        return Images(Entries(found), skip_unreadable=skip_unreadable)
    if len(found):
        return Images(list(Entries(found)), skip_unreadable=skip_unreadable)
    for file in others:
        if file.suffix.lower() in RECORD_SUFFIXES:
            entries += _record_entries(file, skip_unreadable=skip_unreadable)
    if entries:
        return Images(entries, skip_unreadable=skip_unreadable)
    for suffix in SHARD_SUFFIXES:
        files = [file for other in others if other.suffix.lower() == suffix for file in find_files(str(other))]
        if files:
            shards = replace(address, split=None)
            return ShardSet(shards, {"train": files}).open(skip_unreadable=skip_unreadable)
    raise DataError(
        f"{path} has no images: looked in it, not in folders below it, for files that end in "
        f"{', '.join(IMAGE_SUFFIXES + RECORD_SUFFIXES + SHARD_SUFFIXES)} and hold some; found {listing(path)}"
    )


def _record_entries(path: Path, *, skip_unreadable: bool) -> list[ImageEntry]:
    entries = []
    try:
        for number, example in read_examples(path, skip_damaged=skip_unreadable):
            image, name = example.get("image"), example.get("image_name")
            if image is None:
                has = textwrap.shorten(", ".join(example), 200) or "none"
                problem = f"{path}, record {number} (counted from 0): no bytes feature 'image', only {has}"
                if not skip_unreadable:
                    raise TFRecordError(problem)
                warnings.warn(f"skipped: {problem}", stacklevel=2)
                continue
            label = printable_stem(name.value.decode(errors="replace")) if name else ""
            entries.append(ImageEntry(label or f"{path.stem}_{number}", path, number, image.offset, len(image.value)))
    except TFRecordError as error:
        advice = "Fetch the file again, or skip such records (skip_unreadable=True; --skip-unreadable)"
        raise DataError(f"{error}. {advice}") from None
    return entries


def existing_folder(path: Path | str) -> Path:
    """Check that ``path`` is a folder, and return it.

    Raises:
        DataError: it is not a folder.
    """
    path = Path(path)
    if os.path.isfile(path):  # unlike those of Path, never raises
        raise DataError(f"{path} is a file: give the folder")
    if not os.path.isdir(path):
        raise DataError(f"there is no folder {path}")
    return path


def listing(folder: Path) -> str:
    """What a folder holds, in a few words."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
