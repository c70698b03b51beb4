"""What a run left in its folder, as far as it can be read: a crash can happen at any instant.

Every reader takes a list of ``notes`` and adds to it a sentence on what is missing or broken, instead of raising.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

__all__ = ["read_grids", "read_json", "read_losses", "read_warnings"]

ItemT = TypeVar("ItemT")

GRIDS = 24
"""At most so many sample grids are shown ..."""
GRID_BYTES = 300_000
"""... of at most so many bytes each: 7 MB, and 10 MB in base64."""
WARNINGS_OF_A_KIND = 50


def _read_text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "")  # zeros: the power failed
    except OSError as error:
        notes.append(_why_unread(path, error))
    return ""


def _why_unread(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"There is no {path.name}."
    return f"{path.name} cannot be read: {error.strerror}."


def read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is none."""
    text = _read_text(path, notes)
    try:
        value = json.loads(text) if text else {}
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}, not an object")
        return value
    except ValueError as error:
        notes.append(f"{path.name} cannot be read: {error}.")
        return {}


class _Row(Mapping[str, float]):
    """A row of numbers in a few bytes: a long run has many, and its report reads them all."""

    __slots__ = ("_places", "_values")

    def __init__(self, places: Mapping[str, int], values: Iterable[float]):
        self._places, self._values = places, array("d", values)

    def __getitem__(self, name: str) -> float:
        return self._values[self._places[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_losses(path: Path, notes: list[str]) -> dict[int, Mapping[str, float]]:
    """The rows of ``losses.csv`` by step, in order; an empty cell is not in its row.

    A last line without its end is left out, since a number in it may be cut short. Of rows of the same step the last
    one counts.
    """
    losses: dict[int, Mapping[str, float]] = {}
    known: dict[tuple[str, ...], dict[str, int]] = {}  # rows with the same cells share their names
    count = unfit = 0
    try:
        rows = csv.reader(_whole_lines(path, notes))
        header = next(rows, [])
        for row in rows:
            count += 1
            try:
                cells = {name: cell for name, cell in zip(header, row, strict=True) if cell}
                step, names = int(cells.pop("step")), tuple(cells)
                places = known.setdefault(names, {name: place for place, name in enumerate(names)})
                losses[step] = _Row(places, map(float, cells.values()))
            except (ValueError, KeyError):
                unfit += 1
    except csv.Error as error:
        notes.append(f"{path.name} cannot be read: {error}.")
        return {}
    if unfit:
        notes.append(f"{unfit} of the {count} rows of {path.name} do not fit its header and are left out.")
    elif not count and path.exists():
        notes.append(f"{path.name} has no rows yet.")
    return dict(sorted(losses.items()))


def _whole_lines(path: Path, notes: list[str]) -> Iterator[str]:
    """The lines of a file that have an end, one after the other."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if line.endswith("\n"):
                    yield line.replace("\0", "")
    except OSError as error:
        notes.append(_why_unread(path, error))


def read_warnings(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The warnings in ``warnings.jsonl`` by kind, the kind that was last warned of first.

    Returns:
        For each kind ``kind``, ``count``, and ``entries``, the newest first, each with ``step``, ``what``, ``since``
        and ``advice`` as text.
    """
    found: dict[str, list[dict[str, str]]] = {}
    broken = 0
    for line in filter(str.strip, _read_text(path, notes).split("\n") if path.exists() else ()):
        try:
            warning = json.loads(line)
            entry = {name: str(warning.get(name, "")) for name in ("step", "what", "since", "advice")}
        except (ValueError, AttributeError):
            broken += 1
            continue
        kind = str(warning.get("kind", "warning"))
        found[kind] = [entry, *found.pop(kind, [])]
    if broken:
        notes.append(f"Of {path.name}, {broken} {'line' if broken == 1 else 'lines'} cannot be read.")
    return [
        {"kind": kind, "count": len(entries), "entries": entries[:WARNINGS_OF_A_KIND]}
        for kind, entries in reversed(found.items())
    ]


def read_grids(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The sample grids as data URIs, an even selection if there are many, first and last included.

    Returns:
        For each ``step``, ``image``, ``width`` and ``height``.
    """
    names = {path: re.fullmatch(r"step_(\d+)\.png", path.name) for path in folder.glob("step_*.png")}
    paths = sorted((int(name[1]), path) for path, name in names.items() if name)
    if not paths:
        notes.append(f"There are no sample grids in {folder.name}/ yet.")
    while True:  # until all that are chosen can be read
        grids, broken = [], []
        for step, path in _spread(paths, GRIDS):
            try:
                image, width, height = _as_data_uri(path, path.stat().st_mtime_ns)
                grids.append({"step": step, "image": image, "width": width, "height": height})
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                broken.append((step, path))
        if not broken:
            return grids
        notes += [f"{folder.name}/{path.name} cannot be read and is left out." for _, path in broken]
        paths = [path for path in paths if path not in broken]


def _spread(items: Sequence[ItemT], most: int) -> Sequence[ItemT]:
    """Evenly chosen items, first and last included."""
    return items if len(items) <= most else [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


@lru_cache(maxsize=2 * GRIDS)  # a run writes its report again and again, with nearly the same pictures
def _as_data_uri(path: Path, changed: int) -> tuple[str, int, int]:
    """A picture as a JPEG in a data URI, smaller until it fits :data:`GRID_BYTES`; its width and height."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((2048, 2048))
    data = io.BytesIO()
    for quality, scale in ((85, 1), (75, 1), (75, 0.75), (75, 0.5), (60, 0.35)):
        data = io.BytesIO()
        image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))).save(
            data, "JPEG", quality=quality
        )
        if data.tell() <= GRID_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(), image.width, image.height
