"""Reads golden files; ``GANPARTS_GOLDEN=FOLDER pytest -k golden`` runs the same tests on another folder's files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

GOLDEN = Path(os.environ.get("GANPARTS_GOLDEN") or Path(__file__).parent / "golden")


def golden_names(pattern: str) -> list[str]:
    """The golden files whose name without suffix matches, for ``pytest.mark.parametrize``."""
    return sorted(path.stem for path in GOLDEN.glob(f"{pattern}.safetensors"))


def read(name: str) -> dict[str, Tensor]:
    """The tensors of a golden file, floating-point ones in float64."""
    with safe_open(str(GOLDEN / f"{name}.safetensors"), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}


def about(name: str) -> dict[str, Any]:
    """The settings that a golden file was made with."""
    with safe_open(str(GOLDEN / f"{name}.safetensors"), framework="pt") as file:
        return json.loads(file.metadata()["about"])


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix``, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def relative_error(value: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    return ((value - expected).abs().max() / expected.abs().max().clamp_min(1e-300)).item()
