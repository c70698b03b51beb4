"""The report of a run: everything in its folder that a person wants to see, in one page."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib.resources import files
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from ganparts.disk import naming_file
from ganparts.training.report.curves import charts
from ganparts.training.report.reading import read_grids, read_json, read_losses, read_warnings

__all__ = ["write_report"]

STATES = ("running", "finished", "stopped", "crashed")
REFRESH = '<meta http-equiv="refresh" content="30">'
TITLES = {"settled": "What the run settled on", "parts": "Parts", "options": "Options as given"}


def write_report(folder: Path | str, *, state: str | None = None) -> Path:
    """Write ``report.html`` into a run's folder: pictures, curves, warnings, throughput and configuration.

    The file holds all that it shows, and a browser opens it without a server or a network. Files that are missing or
    half written (the run crashed) are named in it. It is replaced whole: who reads it meanwhile sees the one before.
    Pictures are encoded once a process, so writing it again is cheap.

    Args:
        folder: of the run; read are ``config.json``, ``losses.csv``, ``samples/``, ``warnings.jsonl`` and
            ``best.json``.
        state: ``"running"`` (the page then loads itself anew every 30 seconds), ``"finished"``, ``"stopped"`` or
            ``"crashed"``. None: finished if the last row is of the last step, else unknown.

    Returns:
        The page's path.

    Raises:
        ValueError: no such state.
        FileNotFoundError: no such folder.
        OSError: the page cannot be written.
    """
    folder = Path(folder)
    if state not in (None, *STATES):
        raise ValueError(f"state {state!r} is none of {', '.join(STATES)}")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to report on")
    data = json.dumps(_gather(folder, state), allow_nan=False).replace("<", "\\u003c")  # no </script>, no <!--
    page = files("ganparts.training.report").joinpath("page.html").read_text(encoding="utf-8")
    page = page.replace("<!-- refresh -->", REFRESH if state == "running" else "").replace("/* data */", data)
    path = folder / "report.html"
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with naming_file(path):
            partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _gather(folder: Path, state: str | None) -> dict[str, Any]:
    """All that the page shows, as plain values."""
    notes: dict[str, list[str]] = {part: [] for part in ("warnings", "samples", "curves", "configuration")}
    config = read_json(folder / "config.json", notes["configuration"])
    rows = read_losses(folder / "losses.csv", notes["curves"])
    scores = read_losses(folder / "scores.csv", notes["curves"]) if (folder / "scores.csv").exists() else {}
    both = rows | {step: {**rows.get(step, {}), **row} for step, row in scores.items()}
    warnings = read_warnings(folder / "warnings.jsonl", notes["warnings"])
    grids = read_grids(folder / "samples", notes["samples"])
    settled, options, parts = (_mapping(config.get(name)) for name in ("settled", "options", "parts"))
    step, steps = max(rows, default=None), settled.get("steps") or options.get("steps")
    steps = steps if isinstance(steps, int) else None
    if state is None:
        state = "finished" if step and steps and step >= steps else "unknown"
    left = steps - step if state == "running" and step and steps else 0
    facts = list(_facts(rows, left=left, pairs=_pairs_of_a_step(settled)))
    return {
        "name": folder.resolve().name,
        "state": state,
        "step": step,
        "steps": steps,
        "logged": _time((folder / "losses.csv").stat().st_mtime) if rows else None,
        "written": _time(time.time()),
        "preset": _text(options.get("preset")),
        "parts": [
            [name, _text(part)] for name, part in parts.items() if name.startswith(("generator", "discriminator"))
        ],
        "facts": facts + _best(folder, notes["warnings"]),
        "warnings": warnings,
        "grids": grids,
        "charts": charts(dict(sorted(both.items()))),
        "tables": _tables(config),
        "notes": notes,
    }


def _pairs_of_a_step(settled: Mapping[str, Any]) -> int | None:
    """Pairs of all processes together; None if the record does not tell."""
    batch_size, processes = settled.get("batch_size"), settled.get("processes", 1)
    return batch_size * processes if isinstance(batch_size, int) and isinstance(processes, int) else None


def _facts(rows: Mapping[int, Mapping[str, float]], *, left: int, pairs: int | None) -> Iterator[tuple[str, str]]:
    """Values and what they are: speed, waiting, time left."""
    before, speeds, seconds, waited = 0, [], 0.0, 0.0
    for step, row in rows.items():
        speed = row.get("pairs_per_second", row.get("images_per_second", 0.0) / 2)  # the second of version 0.1
        wait = row.get("data_wait", 0.0)
        if isfinite(speed) and speed > 0 and isfinite(wait):
            speeds.append(speed)
            took = max(step - before, 1) / speed  # in units of a step's pairs
            seconds, waited = seconds + took, waited + took * wait
        before = step
    if not speeds:
        return
    yield f"{median(speeds):.3g}", "pairs per second (median)"
    yield f"{waited / seconds:.1%}", "of the time waiting for data"
    if left > 0 and pairs is not None:
        minutes = left * pairs / median(speeds) / 60
        yield f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min", "left, about"


def _best(folder: Path, notes: list[str]) -> list[tuple[str, str]]:
    """The best score, if the run has scores."""
    path = folder / "best.json"
    best = read_json(path, notes) if path.exists() else {}
    if not best:
        return []
    value = best.get("value")
    shown = f"{value:.4g}" if isinstance(value, int | float) else _text(value)
    return [(f"{_text(best.get('metric'))} {shown}", f"best generator, step {_text(best.get('step'))}")]


def _tables(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The configuration as tables of names and texts: one for each object in it, and one for what is in none."""
    objects = {name: value for name, value in config.items() if isinstance(value, dict) and value}
    objects[""] = {name: value for name, value in config.items() if name not in objects}
    order = [name for name in TITLES if name in objects] + [name for name in objects if name not in TITLES]
    return [
        {"title": TITLES.get(name, name.replace("_", " ").capitalize() or "More"), "rows": rows}
        for name in order
        if (rows := _rows(objects[name]))
    ]


def _rows(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Leaves by dotted name; those that are not set share the last row."""
    leaves = list(_flatten(value))
    unset = ", ".join(name for name, text in leaves if not text)
    return [leaf for leaf in leaves if leaf[1]] + ([("not set", unset)] if unset else [])


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Leaves by dotted name."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        yield from _flatten({str(place): inner for place, inner in enumerate(value)}, name)
    elif name:
        yield name, _text(value)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
