"""What it costs to list a folder of millions of image files: time and memory a file, as the slope between two sizes.

The files are empty, and have names of 18 letters. Run it from the repository: ``python -m benchmarks.listing --help``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.record import write_json

CODE = """
import json, resource, sys, time
from ganparts.data import open_domains

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, start = peak(), time.process_time()
domains = open_domains(photos=sys.argv[1], paintings=sys.argv[2])
listed = time.process_time()
domains.digest()
print(json.dumps({
    "files": len(domains.a),
    "list_s": listed - start,
    "digest_s": time.process_time() - listed,
    "bytes": peak() - before,
}))
"""


@dataclass(frozen=True)
class Config:
    """Seconds and bytes for each file of a folder, and for ten million."""

    files: tuple[int, int] = (200_000, 400_000)
    """Sizes of the two folders."""
    rounds: int = 3
    """Listings of each, in processes of their own; the median counts."""
    folder: Path | None = None
    """Where the folders are made, and deleted afterwards; None for the system's temporary one."""
    out: Path = Path("benchmarks/results/listing.json")
    """Where the record goes."""


def fill(folder: Path, count: int) -> None:
    """Make so many empty files."""
    folder.mkdir()
    for number in range(count):
        (folder / f"photo_{number:08d}.jpg").touch()


def list_once(photos: Path, paintings: Path) -> dict[str, Any]:
    """What a fresh process needs: processor time, and memory beyond what it has after its imports."""
    command = [sys.executable, "-c", CODE, str(photos), str(paintings)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    small, large = config.files
    if not 0 < small < large:
        raise SystemExit(f"--files {small} {large}: the second number is the larger one")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        paintings = Path(name) / "paintings"
        fill(paintings, 1)
        for count in config.files:
            fill(Path(name) / str(count), count)
        for turn in range(config.rounds + 1):
            for count in config.files:
                row = list_once(Path(name) / str(count), paintings)
                if turn:  # the first fills the disk's cache
                    results.append(row)
    slopes = {}
    for key in ("list_s", "digest_s", "bytes"):
        middle = [
            sorted(row[key] for row in results if row["files"] == count)[config.rounds // 2] for count in config.files
        ]
        slopes[f"{key}_per_file"] = (middle[1] - middle[0]) / (large - small)
    ten_million = {name.replace("per_file", "for_ten_million"): round(1e7 * slope, 3) for name, slope in slopes.items()}
    print(json.dumps(slopes | ten_million, indent=2))
    write_json(config.out, settings=vars(config) | slopes | ten_million, results=results, device=torch.device("cpu"))


if __name__ == "__main__":
    main()
