"""Curves of a run: columns grouped into charts, smoothed, and thinned so that the page stays small."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from math import isfinite
from typing import Any

__all__ = ["charts", "keep_extremes", "smooth"]

GROUPS = {
    "gan*": "Adversarial losses of the generators",
    "disc*": "Losses of the discriminators",
    "cycle_*": "Cycle losses",
    "identity*": "Identity losses",
    "nce*": "Contrastive losses",
    "penalty*": "Penalties",
    "*": "",  # a column that no other pattern takes: with its sibling of the other domain
    "grad_norm*": "Gradient norms",
    "*mifid*": "MiFID, lower is better",
    "*fid*": "FID, lower is better",
    "kid_ratio*": "KID relative to the photos', lower is better",
    "*kid*": "KID, lower is better",
    "learning_rate*": "Learning rate",
    "pairs_per_second": "Pairs per second",
    "data_wait": "Share of time spent waiting for data",
}
"""Column to title of its chart, in the page's order; the most special pattern that fits takes a column."""
EXACT = ("*mifid*", "*fid*", "kid_ratio*", "*kid*", "learning_rate*")
"""Shown as they are; the others are noisy, and a smoothed line leads through them."""
POINTS = 800
"""A chart keeps about so many steps."""


def charts(rows: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    """What the page draws.

    Args:
        rows: a value a column, by step.

    Returns:
        For each chart ``title``, ``steps``, and ``series``: ``name``, ``values`` and ``smooth`` (empty, or as long as
        ``steps``), and ``lost``: how many values are not finite, and the step of the first. A value is a number, None
        if it was not logged, or text (``"nan"``).
    """
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    groups: dict[tuple[int, str], list[str]] = {}
    for name in columns:
        pattern = next((p for p in GROUPS if p != "*" and fnmatch(name, p)), "*")
        title = GROUPS[pattern] or re.sub(r"_(a|b|ab|ba)$", "", name).replace("_", " ")
        groups.setdefault((list(GROUPS).index(pattern), title), []).append(name)
    return [
        _chart(title, names, rows, exact=list(GROUPS)[place] in EXACT)
        for (place, title), names in sorted(groups.items(), key=lambda group: group[0][0])
    ]


def _chart(title: str, names: Sequence[str], rows: Mapping[int, Mapping[str, float]], *, exact: bool) -> dict[str, Any]:
    steps = [step for step, row in rows.items() if any(name in row for name in names)]
    columns = {name: [rows[step].get(name) for step in steps] for name in names}
    kept = keep_extremes(list(columns.values()), buckets=max(50, POINTS // (2 * len(names))))
    series = []
    for name, values in columns.items():
        smoothed = [] if exact else smooth(values)
        lost = [step for step, value in zip(steps, values, strict=True) if value is not None and not isfinite(value)]
        series.append(
            {
                "name": name,
                "values": [_plain(values[i]) for i in kept],
                "smooth": [_plain(smoothed[i]) for i in kept] if smoothed else [],
                "lost": {"count": len(lost), "first": lost[0]} if lost else None,
            }
        )
    return {"title": title, "steps": [steps[i] for i in kept], "series": series}


def smooth(values: Sequence[float | None]) -> list[float | None]:
    """The exponential moving average over about a twentieth of the finite values (10 at least), unbiased at its start.

    Returns:
        One value for each, or nothing if there are fewer than 20 finite ones. None and what is not finite stay.
    """
    finite = sum(value is not None and isfinite(value) for value in values)
    if finite < 20:
        return []
    decay = 1 - 2 / (max(10, finite / 20) + 1)
    total, weight, averages = 0.0, 0.0, []
    for value in values:
        if value is not None and isfinite(value):
            total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
            value = total / weight
        averages.append(value)
    return averages


def keep_extremes(columns: Sequence[Sequence[float | None]], *, buckets: int) -> list[int]:
    """Which rows to keep: first, last, and of each bucket of rows every column's least and greatest finite value.

    Args:
        columns: equally long.
        buckets: among which the rows are divided; of up to twice as many rows all are kept.
    """
    count = len(columns[0])
    if count <= 2 * buckets:
        return list(range(count))
    kept = {0, count - 1}
    for bucket in range(buckets):
        rows = range(bucket * count // buckets, (bucket + 1) * count // buckets)
        for column in columns:
            finite = [(value, row) for row in rows if (value := column[row]) is not None and isfinite(value)]
            kept |= {min(finite)[1], max(finite)[1]} if finite else {rows[0]}
    return sorted(kept)


def _plain(value: float | None) -> float | str | None:
    return value if value is None else float(f"{value:.5g}") if isfinite(value) else str(value)
