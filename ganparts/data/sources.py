"""Open images wherever they are: folders, TFRecords, Parquet files, tar files, data sets of the Hugging Face Hub."""

from __future__ import annotations

import difflib
import json
import os
import re
import textwrap
import warnings
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath

from ganparts.data.entries import Entries, Entry, printable_stem
from ganparts.data.errors import DataError
from ganparts.data.files import File, expand_braces, find_files, is_address
from ganparts.data.images import IMAGE_SUFFIXES, ImageEntry, Images
from ganparts.data.indexing import open_shards
from ganparts.data.listing import list_folder
from ganparts.data.parquet import columns_of
from ganparts.data.shards import ShardSource
from ganparts.data.tfrecord import TFRecordError, read_examples

__all__ = [
    "Address",
    "ShardSet",
    "existing_folder",
    "find_shards",
    "listing",
    "open_images",
    "parse_address",
    "shards_of_data",
]

RECORD_SUFFIXES = (".tfrec", ".tfrecord", ".tfrecords")
SHARD_SUFFIXES = (".parquet", ".tar")
_SUFFIXES = (*SHARD_SUFFIXES, ".arrow", ".tar.gz", ".tgz")  # the last two are refused with the reason
_HUB = "hf:"
_OPTIONS = re.compile(r"(?P<place>.*?)\s*\((?P<options>[^()]*)\)")
_LONGEST_NAME = 255  # characters, of a file or folder
_LISTED = 2**17  # files of a folder up to which all entries are made at once


@dataclass(frozen=True)
class Address:
    """Where images are, and which: ``PLACE`` or ``PLACE(option=value, ...)``.

    Args:
        place: a folder; a file or a pattern of files; ``hf:owner/name`` on the Hub, or ``hf:`` and a folder.
        config: configuration of a data set, if it has several.
        split: of a data set; ``train`` unless told otherwise.
        revision: branch, tag or commit of a data set on the Hub.
        column: with the images; None for the only one, or the one called ``image``.
        a: for :func:`open_domains`: the column of photos.
        b: the column of paintings.
        buffer: images to shuffle among; None for 4096, or as many as take 1 GiB.
    """

    place: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    column: str | None = None
    a: str | None = None
    b: str | None = None
    buffer: int | None = None

    @property
    def is_hub(self) -> bool:
        return self.place.startswith(_HUB) and not is_address(self.place)

    @property
    def is_sharded(self) -> bool:
        """Whether it can only mean shards, and no folder of image files."""
        return self.is_hub or is_address(self.place) or _is_pattern(self.place) or _saved_splits(self.place) is not None

    @property
    def label(self) -> str:
        """The name of a data set on the Hub, or the last part of a path: for a published model card."""
        place = self.place.removeprefix(_HUB).rstrip("/")
        return place if self.is_hub and not os.path.exists(place) else PurePosixPath(place).name


_NAMES = [option.name for option in fields(Address) if option.name != "place"]


def parse_address(text: Path | str) -> Address:
    """Read ``PLACE(option=value, ...)``. A file or folder that has just this name is meant as it stands.

    Raises:
        DataError: there is no such option, or no file can have such a name.
    """
    text = str(text)
    found = None if os.path.exists(text) else _OPTIONS.fullmatch(text)
    place = text if found is None else found["place"]
    if max(map(len, place.split("/"))) > _LONGEST_NAME and not set(place) & set("*?[{"):
        raise DataError(f"{place[:40]}...: a name in this path is too long for a file")
    if found is None:
        return Address(text)
    given: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in found["options"].split(","))):
        name, sign, value = (part.strip(" \"'") for part in item.partition("="))
        if name not in _NAMES or not sign or not value:
            near = difflib.get_close_matches(name, _NAMES, 1)
            hint = f" (did you mean {near[0]!r}?)" if near and near[0] != name else ""
            raise DataError(f"{text} has no option {item!r}{hint}: it takes {', '.join(f'{n}=...' for n in _NAMES)}")
        given[name] = value
    buffer = given.pop("buffer", None)
    if buffer is not None and (not buffer.isdecimal() or int(buffer) < 1):
        raise DataError(f"{text}: buffer={buffer} is not a number of images")
    return Address(found["place"], **given, buffer=None if buffer is None else int(buffer))


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
    place = address.place.removeprefix(_HUB) if address.is_hub else address.place
    if (saved := _saved_splits(place)) is not None:
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
    if not all(path.lower().endswith(_SUFFIXES) for path in paths):
        kinds = sorted({PurePosixPath(path).suffix.lower() for path in paths})
        raise DataError(
            f"{place} is made of files that end in {', '.join(kinds)}; shards end in {' or '.join(SHARD_SUFFIXES)}: "
            "fetch the files, and give the folder that they are in"
        )


def _is_pattern(place: str) -> bool:
    names = expand_braces(place)
    return any(name.lower().endswith(_SUFFIXES) for name in names[:1]) and not Path(place).is_dir()


def _saved_splits(place: str) -> dict[str, Path] | None:
    """Folders of the splits of a data set that the library ``datasets`` saved; None if this is none."""
    folder = Path(place)
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return {"train": folder}
    if (folder / "dataset_dict.json").is_file():
        return {path.parent.name: path.parent for path in sorted(folder.glob("*/state.json"))}
    return None


def _saved_files(folder: Path) -> list[File]:
    try:
        state = json.loads((folder / "state.json").read_text())
        names = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'} is not what the library datasets writes: {error!r}") from None
    return [file for name in names for file in find_files(str(folder / name))]


def open_images(folder: Path | str, *, skip_unreadable: bool = False) -> Images:
    """Open the images of a folder, sorted by name, or those of shards, in their order.

    A folder has image files; else TFRecord files with a feature ``image`` and perhaps ``image_name``; else Parquet
    files; else tar files. Checksums of TFRecord files are verified here.

    Shards are also given as ``photos.parquet``, ``photos/*.parquet``, ``shards-{000..099}.tar``, by addresses that
    fsspec knows, as ``hf:owner/name`` (a data set of the Hugging Face Hub), or as a folder that the library
    ``datasets`` saved. Options follow in brackets: ``hf:owner/name(split=test, column=picture)``, see
    :class:`ganparts.data.sources.Address`.

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
