"""How much memory a run's steps may take: the level that is asked for, or the fastest that fits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ganparts.adversarial import MemoryEstimateError, TrainingSettings, plan_memory
from ganparts.adversarial.memory import MEMORY_LEVELS
from ganparts.distributed import from_first
from ganparts.training.checkpoint import CHECKPOINT, newest_checkpoint
from ganparts.training.policy import Policy

__all__ = ["plan_level"]


def plan_level(
    model: Any,
    example: Callable[[int], Any],
    *,
    options: Any,
    settings: TrainingSettings,
    policy: Policy,
    device: torch.device,
    available: float,
) -> tuple[str, Any]:
    """The memory level of a run, and what it needs; None where that cannot be estimated.

    Args:
        model: the assembly.
        example: makes a batch of a given size.
        options: of the run: ``memory``, and whether it goes on. A run that goes on keeps its level, since other levels
            add gradients in another order.
        settings: its batch size, and whether averages are kept.
        policy: how steps are computed.
        device: where.
        available: bytes that there are.

    Raises:
        ValueError: the batch does not fit.
    """
    wished = options.memory
    if wished == "auto" and options.resume is not None:
        wished = from_first(lambda: _level_before(options)) or wished
    plan = partial(
        plan_memory,
        model,
        example,
        batch_size=settings.batch_size,
        available=available,
        device_type=device.type,
        averaged=settings.ema_decay is not None,
        context=policy.autocast,
        layout=policy.memory_layout,
    )
    try:
        try:
            planned = plan(level=wished)
        except ValueError:
            if wished == options.memory:
                raise
            planned = plan(level="auto")
            warnings.warn(
                f"the run trained with --memory {wished}, which does not fit any more: it goes on with "
                f"{planned.level}, and last bits may differ",
                stacklevel=3,
            )
        return planned.level, planned.need
    except MemoryEstimateError as error:
        level = "fast" if wished == "auto" else wished
        warnings.warn(f"{error}: training with --memory {level}", stacklevel=3)
        return level, None


def _level_before(options: Any) -> str | None:
    """The memory level of the run that goes on, if its checkpoint names one."""
    level = newest_checkpoint(options.folder / CHECKPOINT).config["settled"].get("memory")
    return level if level in MEMORY_LEVELS else None
