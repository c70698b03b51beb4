"""What every benchmark writes: one JSON with its results, its settings, and the machine that it ran on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import ganparts

__all__ = ["interleaved", "machine", "summary", "write_json"]


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that figures depend on."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ganparts": ganparts.__version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit that was measured, with ``-dirty`` if files were changed since; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        said = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:  # no git
        return None
    return said.stdout.strip() or None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def interleaved(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each call, the variants taking turns, so that a machine whose speed drifts treats them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + rounds):
        for name, call in variants.items():
            _wait(device)
            start = perf_counter()
            call()
            _wait(device)
            if turn >= warmup:
                seconds[name].append(perf_counter() - start)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, least and greatest, in milliseconds."""
    return {
        "median_ms": round(1e3 * statistics.median(seconds), 3),
        "min_ms": round(1e3 * min(seconds), 3),
        "max_ms": round(1e3 * max(seconds), 3),
    }


def write_json(path: Path, *, settings: Mapping[str, Any], results: list[dict[str, Any]], device: torch.device) -> None:
    """Write a benchmark's record, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(device),
        "settings": dict(settings),
        "results": results,
    }
    path.write_text(json.dumps(record, indent=2, default=str) + "\n")
