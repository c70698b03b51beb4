"""Tables and plots of the records in a folder: ``report.md`` and SVG files beside it.

Run it from the repository: ``python -m benchmarks.report FOLDER``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

Record = dict[str, Any]


def main() -> int:
    folder = tyro.cli(Annotated[Path, tyro.conf.Positional], description=__doc__)
    try:
        written = write_report(folder)
    except (OSError, ValueError) as error:
        print(f"error: {error}")
        return 1
    print(f"{written} is written")
    return 0


def write_report(folder: Path) -> Path:
    """Write ``report.md`` and its plots from every record of a benchmark in a folder.

    Raises:
        ValueError: there is no record in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    sections = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and {"machine", "settings", "results"} <= record.keys():
            sections.append(_section(path, record))
    if not sections:
        raise ValueError(f"{folder} has no records of benchmarks (JSON files with machine, settings and results)")
    report = folder / "report.md"
    report.write_text("# Benchmarks\n\n" + "\n\n".join(sections) + "\n")
    return report


def _section(path: Path, record: Record) -> str:
    machine, settings = record["machine"], record["settings"]
    title = f"## {path.stem.replace('_', ' ')}"
    where = f"{machine['device']}, PyTorch {machine['torch']}, {record['when'][:10]}, ganparts {machine['ganparts']}."
    notes = [settings["stand_in"]] if settings.get("stand_in") else []
    rates = {key.removeprefix("matrix_tflops_"): rate for key, rate in settings.items() if "matrix_tflops" in key}
    if rates:
        notes.append("Matrix products measured: " + ", ".join(f"{n} {rate} TFLOP/s" for n, rate in rates.items()))
    body = next((table for name, table in _TABLES if path.stem.startswith(name)), _any_table)
    plots = [f"![{caption}]({file})" for caption, file in _plots(path, record)]
    return "\n\n".join([title, " ".join([where, *(f"{note}." for note in notes)]), body(record), *plots])


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def _trained(row: Record) -> str:
    """What a row of steps trains: a CycleGAN by the name of its generator, other methods with theirs."""
    method = row.get("method", "cyclegan")
    return row["generator"] if method == "cyclegan" else f"{method}, {row['generator']}"


def _steps(record: Record) -> str:
    rates = {key.removeprefix("matrix_tflops_"): rate for key, rate in record["settings"].items() if "matrix" in key}
    floors = any("p100_floor_ms" in row for row in record["results"])
    columns = ["generator", "px", "batch", "mode", "textbook ms", "ms", "textbook / this", "pairs/s", "TFLOP/s"]
    columns += ["share of matrix rate"] * bool(rates) + ["peak MiB"] + ["P100 floor ms"] * floors
    rows = []
    for row in record["results"]:
        if "failed" in row:
            rows.append([_trained(row), row["size"], row["batch_size"], row["mode"], row["failed"]])
            continue
        precision = next((name for name in ("bf16", "fp16", "tf32") if name in row["mode"]), "fp32")
        cells = [_trained(row), row["size"], row["batch_size"], row["mode"]]
        cells.append(row.get("textbook", {}).get("median_ms", ""))
        cells += [row["median_ms"], row.get("textbook_over_this", ""), row["pairs_per_second"], row["tflops"]]
        if rates:
            cells.append(f"{row['tflops'] / rates[precision]:.0%}" if precision in rates else None)
        cells.append(row.get("this_peak_mib"))
        rows.append(cells + ([row.get("p100_floor_ms")] if floors else []))
    return _markdown(columns, [[*row, *[None] * (len(columns) - len(row))] for row in rows])


def _any_table(record: Record) -> str:
    flat = [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in record["results"]]
    nested = [
        {
            f"{key} {name}": number
            for key, value in row.items()
            if isinstance(value, dict)
            for name, number in value.items()
        }
        for row in record["results"]
    ]
    rows = [one | two for one, two in zip(flat, nested, strict=True)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return _markdown([column.replace("_", " ") for column in columns], [[row.get(c) for c in columns] for row in rows])


_TABLES: list[tuple[str, Callable[[Record], str]]] = [("train_step", _steps), ("cpu_train_step", _steps)]


def _plots(path: Path, record: Record) -> list[tuple[str, str]]:
    rows = [row for row in record["results"] if "failed" not in row]
    if any("pairs_per_second" in row and "mode" in row for row in rows):
        groups = {f"{_trained(row)} {row['size']} px, batch {row['batch_size']}": {} for row in rows}
        for row in rows:
            group = groups[f"{_trained(row)} {row['size']} px, batch {row['batch_size']}"]
            if "textbook" in row:
                group.setdefault(row["baseline"], row["batch_size"] * 1e3 / row["textbook"]["median_ms"])
            group[row["mode"]] = row["pairs_per_second"]
        return [_bars(path, "Pairs a second", groups)]
    if any("estimate_mib" in row for row in rows):
        return [_memory_lines(path, rows)]
    if any("gaps" in row for row in rows):
        kinds = [key for key, value in rows[0].items() if isinstance(value, float)]
        return [
            _bars(
                path,
                "Milliseconds a step by class of kernel",
                {row["mode"]: {k: row[k] for k in kinds} for row in rows},
            )
        ]
    return []


def _bars(path: Path, caption: str, groups: dict[str, dict[str, float]]) -> tuple[str, str]:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure = Figure(figsize=(8, 1.2 + 0.32 * sum(map(len, groups.values()))), layout="constrained")
    axes = figure.subplots()
    place, ticks = 0.0, []
    for group, values in groups.items():
        for name, value in values.items():
            bar = axes.barh(place, value, color=f"C{names.index(name) % 10}")
            axes.bar_label(bar, fmt="%.3g", padding=3, fontsize=8)
            ticks.append((place, name if len(groups) == 1 else f"{group}: {name}"))
            place += 1
        place += 0.6
    axes.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(caption)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    return _save(path, caption, figure)


def _memory_lines(path: Path, rows: list[Record]) -> tuple[str, str]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    lines = list(dict.fromkeys((row["generator"], row["level"]) for row in rows))
    for number, (generator, level) in enumerate(lines):
        own = [row for row in rows if (row["generator"], row["level"]) == (generator, level) and "batch_size" in row]
        batches = [row["batch_size"] for row in own]
        axes.plot(batches, [row["estimate_mib"] / 1024 for row in own], f"C{number}-", label=f"{generator}, {level}")
        found = [(row["batch_size"], row["measured_mib"] / 1024) for row in own if row.get("measured_mib")]
        if found:
            axes.plot(*zip(*found, strict=True), f"C{number}o", label=f"{generator}, {level}, measured")
    axes.axhline(16e9 / 2**30, color="grey", linestyle=":")
    axes.set_xlabel("pairs a step")
    axes.set_ylabel("GiB (dotted: 16 GB)")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _save(path, "Memory by batch size", figure)


def _save(path: Path, caption: str, figure: Any) -> tuple[str, str]:
    file = path.with_suffix(".svg")
    figure.savefig(file, metadata={"Date": None})
    return caption, file.name


if __name__ == "__main__":
    sys.exit(main())
