"""The benchmarks run through their command line and leave a record; their figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_step_is_compared_with_the_textbooks(tmp_path: Path):
    out = tmp_path / "new" / "step.json"
    shown = run("train_step", "--sizes", "32", "--width", "2", "--rounds", "2", "--device", "cpu", "--out", str(out))
    assert "resnet9" in shown
    record = json.loads(out.read_text())
    assert record["machine"]["cores"] > 0
    assert record["settings"]["width"] == 2
    (row,) = record["results"]
    assert (row["size"], row["batch_size"]) == (32, 1)
    assert all(row[kind]["median_ms"] > 0 for kind in ("textbook", "ours", "low_memory"))
    assert row["textbook_over"].keys() == {"ours", "low_memory"}


def test_import_time_is_measured(tmp_path: Path):
    out = tmp_path / "import.json"
    assert "ganparts / torch:" in run("import_time", "--rounds", "1", "--out", str(out))
    (row,) = json.loads(out.read_text())["results"]
    assert row["torch"]["median_ms"] > 0


@pytest.mark.parametrize("name", ["train_step", "import_time"])
def test_help(name: str):
    assert "--out" in run(name, "--help")
