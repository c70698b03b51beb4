"""How a run's steps are computed on its device, and what they need."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ganparts.adversarial import MemoryEstimateError, MemoryNeed, TrainingSettings, plan_memory
from ganparts.adversarial.memory import MEMORY_LEVELS
from ganparts.distributed import from_first, highest, processes
from ganparts.training.checkpoint import CHECKPOINT, newest_checkpoint
from ganparts.training.device import available_memory
from ganparts.training.policy import Policy
from ganparts.training.together import agree_on_policy

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """How the steps of a run are computed, and what they need: the same in all processes.

    Args:
        policy: how a step is computed on the device.
        batch_size: of each process.
        level: of memory, one of ``MEMORY_LEVELS``.
        need: of memory, at this level; None where it cannot be estimated.
        free_memory: bytes that there are, in the process that has the least.
    """

    policy: Policy
    batch_size: int
    level: str
    need: MemoryNeed | None
    free_memory: int

    def fits_beside(self, nbytes: int) -> bool:
        """Whether so many bytes of data fit on a GPU beside training."""
        if self.policy.device_type != "cuda" or self.need is None:
            return False
        return self.need.at(self.batch_size) + nbytes < self.free_memory

    def describe(self) -> list[str]:
        """How steps are computed, and why, in lines."""
        lines = [f"{name} {choice}: {reason}" for name, choice, reason in self.policy.describe()]
        if processes() > 1:
            whole = processes() * self.batch_size
            lines.append(f"processes {processes()}: each trains on {self.batch_size} of a step's {whole} pairs")
        if self.need is None:
            return [*lines, f"memory {self.level}: the need could not be estimated"]
        line = (
            f"memory {self.level}: needs about {self.need.at(self.batch_size) / 2**30:.2f} of "
            f"{self.free_memory / 2**30:.1f} GiB"
        )
        largest = self.need.largest_batch(self.free_memory)
        if largest < 100 * self.batch_size:
            line += f"; the largest batch that fits is {largest}"
        return [*lines, line]


def make_plan(
    model: Any, example: Callable[[int], Any], *, options: Any, settings: TrainingSettings, device: torch.device
) -> Plan:
    """Choose how steps are computed: the policy that suits the device, and the fastest memory level that fits.

    Args:
        model: the assembly.
        example: makes a batch of a given size.
        options: of the run, :class:`~ganparts.training.PolicyOptions` among them, which may force each choice. A run
            that goes on keeps its memory level, since other levels add gradients in another order.
        settings: its batch size, and whether averages are kept.
        device: to train on.

    Raises:
        ValueError: the batch does not fit, the device cannot do what is asked, or a process would choose otherwise
            than the first one.
    """
    policy = agree_on_policy(device, options, sync_batch_norm=options.sync_batch_norm)
    free = -highest(-available_memory(device))
    level, need = _plan_level(model, example, options, settings, policy, free)
    return Plan(policy.at_level(level, model), settings.batch_size, level, need, free)


def _plan_level(
    model: Any, example: Callable[[int], Any], options: Any, settings: TrainingSettings, policy: Policy, available: int
) -> tuple[str, MemoryNeed | None]:
    """The memory level, and what it needs; None where that cannot be estimated."""
    wished = options.memory
    if wished == "auto" and options.resume is not None:
        wished = from_first(lambda: _level_before(options)) or wished
    plan = partial(
        plan_memory,
        model,
        example,
        batch_size=settings.batch_size,
        available=available,
        device_type=policy.device_type,
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
                stacklevel=4,
            )
        return planned.level, planned.need
    except MemoryEstimateError as error:
        level = "fast" if wished == "auto" else wished
        warnings.warn(f"{error}: training with --memory {level}", stacklevel=4)
        return level, None


def _level_before(options: Any) -> str | None:
    """The memory level of the run that goes on, if its checkpoint names one."""
    level = newest_checkpoint(options.folder / CHECKPOINT).config["settled"].get("memory")
    return level if level in MEMORY_LEVELS else None
