"""Runs that are killed at random instants, writes included, end as if they had not been (benchmarks/faults.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
@pytest.mark.parametrize(("runs", "workers"), [(6, 0), (4, 0), (2, 1)])
def test_killed_runs_end_as_uninterrupted_ones(tmp_path: Path, runs: int, workers: int):
    out = tmp_path / "faults.json"
    counts = ("--runs", str(runs), "--workers", str(workers), "--seed", str(runs), "--steps", "6")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *counts, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(out.read_text())
    assert record["settings"]["identical"] == len(record["results"]) == runs
    assert record["settings"]["kills_done"] >= 1
