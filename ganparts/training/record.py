"""What ``config.json`` says of a run, and whether a run that is resumed may go on with it."""

from __future__ import annotations

import json
import os
import platform
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganparts.distributed import processes
from ganparts.training.device import versions

__all__ = ["compare_records", "describe_part", "make_record"]

_MAY_DIFFER = ("steps", "pairs", "origin", "processes", "memory")  # the loop looks at the length


def make_record(
    *, options: dict[str, Any], settled: Mapping[str, Any], parts: Mapping[str, object], device: torch.device
) -> dict[str, Any]:
    """The record of a run, of values that JSON has; others become text.

    Args:
        options: as the user gave them.
        settled: the numbers of the run.
        parts: what is trained, by name.
        device: that it trains on.
    """
    record = {
        "options": options,
        "settled": {**settled, **({"processes": processes()} if processes() > 1 else {})},
        "parts": {name: describe_part(part) for name, part in parts.items()},
        "machine": _machine(device),
        "versions": versions(),
    }
    return json.loads(json.dumps(record, default=_in_words))


def compare_records(saved: Mapping[str, Any], now: Mapping[str, Any], *, checkpoint: Path) -> None:
    """Warn if a run goes on with other data, processes or PyTorch than it began with.

    Args:
        saved: the record in the checkpoint.
        now: what the run would go on with.
        checkpoint: its file, for the message.

    Raises:
        ValueError: it would go on with other numbers or parts; the message names the first.
    """
    for kind in ("parts", "settled"):
        for name, value in now[kind].items():
            before = saved[kind].get(name)
            if before == value or name in _MAY_DIFFER:
                continue
            if name == "data":
                warnings.warn(
                    "the data are not those that the run began with (names and sizes of the images differ): "
                    "going on with what is there now",
                    stacklevel=3,
                )
                continue
            raise ValueError(
                f"{checkpoint} is of a run with {name} {before}, but here it would go on with {value}: go on with the "
                "same device and version of ganparts"
            )
    before, after = (record["settled"].get("processes", 1) for record in (saved, now))
    if before != after:
        warnings.warn(
            f"the run had {before} process(es) and goes on with {after}: from here on a step has {after}/{before} of "
            "its pairs, and pairs, replay buffers and random numbers are others. The number of steps stays",
            stacklevel=3,
        )
    before, after = (record.get("versions", {}).get("torch") for record in (saved, now))
    if before != after:
        warnings.warn(
            f"the run began with PyTorch {before} and goes on with {after}: last bits may differ", stacklevel=3
        )


def describe_part(part: object) -> str:
    """A part in one line: its registered name and options, else what its ``repr`` or class says."""
    built_from = vars(part).get("built_from") if isinstance(part, nn.Module) else None
    if built_from is not None:
        _, name, options = built_from
        return f"{name}({', '.join(f'{option}={value!r}' for option, value in options.items())})"
    return type(part).__name__ if isinstance(part, nn.Module) else _in_words(part)


def _machine(device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _in_words(value: object) -> str:
    """A value that JSON lacks as text, without addresses: the same in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
