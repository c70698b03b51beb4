"""Runs that are killed at random instants, writes included, end as if they had not been (benchmarks/faults.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")


def faults(out: Path, *options: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *options, "--steps", "6", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    "options",
    [
        ("--runs", "1", "--anywhere", "0"),
        ("--runs", "1", "--workers", "1", "--evaluate-every", "None"),
        ("--runs", "1", "--processes", "2", "--anywhere", "0", "--evaluate-every", "None"),
    ],
)
def test_killed_runs_end_as_uninterrupted_ones(tmp_path: Path, options: tuple[str, ...]):
    record = faults(tmp_path / "faults.json", *options)
    assert record["settings"]["identical"] == len(record["results"]) == int(options[1])
    assert record["settings"]["kills_done"] >= 1


def test_without_its_random_states_a_killed_run_ends_otherwise(tmp_path: Path):
    options = ("--runs", "1", "--kills", "1", "--anywhere", "0", "--evaluate-every", "None", "--forget-random-states")
    record = faults(tmp_path / "faults.json", *options, code=1)
    assert record["settings"]["kills_done"] == 1
    assert [result["exit_codes"] for result in record["results"]] == [[0]]
    assert record["settings"]["identical"] == 0
