"""What a run left in its folder, as far as it can be read: a crash can happen at any instant.

Every reader takes a list of ``notes`` and adds to it a sentence on what is missing or broken, instead of raising.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
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
    except FileNotFoundError:
        notes.append(f"There is no {path.name}.")
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}.")
    return ""


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


def read_losses(path: Path, notes: list[str]) -> dict[int, dict[str, float]]:
    """The rows of ``losses.csv`` by step, in order; an empty cell is not in its row.

    A last line without its end is left out, since a number in it may be cut short. Of rows of the same step the last
    one counts.
    """
    lines = _read_text(path, notes).split("\n")[:-1]
    try:
        header, *rows = list(csv.reader(lines)) or [[]]
    except csv.Error as error:
        notes.append(f"{path.name} cannot be read: {error}.")
        return {}
    losses, unfit = {}, 0
    for row in rows:
        try:
            cells = dict(zip(header, row, strict=True))
            step = int(cells.pop("step"))
            losses[step] = {name: float(cell) for name, cell in cells.items() if cell}
        except (ValueError, KeyError):
            unfit += 1
    if unfit:
        notes.append(f"{unfit} of the {len(rows)} rows of {path.name} do not fit its header and are left out.")
    elif not rows and path.exists():
        notes.append(f"{path.name} has no rows yet.")
    return dict(sorted(losses.items()))


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
