"""What a text says of where images are: ``PLACE`` or ``PLACE(option=value, ...)``."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

from ganparts.data.errors import DataError
from ganparts.data.files import expand_braces, is_address

__all__ = ["Address", "parse_address"]

SHARD_SUFFIXES = (".parquet", ".tar")
KNOWN_SUFFIXES = (*SHARD_SUFFIXES, ".arrow", ".tar.gz", ".tgz")  # the last two are refused with the reason
_HUB = "hf:"
_OPTIONS = re.compile(r"(?P<place>.*?)\s*\((?P<options>[^()]*)\)")
_LONGEST_NAME = 255  # characters, of a file or folder


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
    def path(self) -> str:
        """The place without the mark of the Hub."""
        return self.place.removeprefix(_HUB) if self.is_hub else self.place

    @property
    def is_sharded(self) -> bool:
        """Whether it can only mean shards, and no folder of image files."""
        return self.is_hub or is_address(self.place) or _is_pattern(self.place) or saved_splits(self.place) is not None

    @property
    def label(self) -> str:
        """The name of a data set on the Hub, or the last part of a path: for a published model card."""
        place = self.path.rstrip("/")
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


def _is_pattern(place: str) -> bool:
    names = expand_braces(place)
    return any(name.lower().endswith(KNOWN_SUFFIXES) for name in names[:1]) and not Path(place).is_dir()


def saved_splits(place: str) -> dict[str, Path] | None:
    """Folders of the splits of a data set that the library ``datasets`` saved; None if this is none."""
    folder = Path(place)
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return {"train": folder}
    if (folder / "dataset_dict.json").is_file():
        return {path.parent.name: path.parent for path in sorted(folder.glob("*/state.json"))}
    return None
