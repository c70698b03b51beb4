"""How much memory a training step needs, found without running it.

The step is done with tensors that have shapes but no data, and the bytes alive at every moment are counted. Not
counted is what a device's libraries take for themselves: CUDA's context, and the work space of its convolutions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganparts.blocks import recompute_blocks
from ganparts.cyclegan.assembly import CycleGAN
from ganparts.cyclegan.optimizers import Optimizers
from ganparts.cyclegan.step import train_step
from ganparts.protocols import Pair

__all__ = ["MEMORY_LEVELS", "MemoryNeed", "MemoryPlan", "memory_need", "peak_bytes", "plan_memory"]

MEMORY_LEVELS = ("fast", "low", "lowest")
"""``low``: ``train_step(low_memory=True)``; ``lowest``: that, and residual blocks recomputed."""

_BLOCK = 512  # bytes; CUDA's allocator gives multiples of it
_ADAM = 2  # moving averages that Adam keeps of every trained parameter


class MemoryNeed(NamedTuple):
    """The bytes that training needs, a straight line over the batch size.

    Every tensor of a step either grows with the batch or does not, so two batch sizes tell all others.
    """

    fixed: float
    per_pair: float

    def at(self, batch_size: int) -> float:
        """Bytes at a batch size."""
        return self.fixed + self.per_pair * batch_size

    def largest_batch(self, available: float) -> int:
        """The most pairs a step that fit into so many bytes; 0 if none does."""
        return max(0, int((available - self.fixed) // self.per_pair))


def memory_need(
    build: Callable[[], CycleGAN],
    *,
    size: int,
    level: str = "fast",
    device_type: str = "cpu",
    averaged: bool = False,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    layout: str = "channels_first",
    channels: int = 3,
) -> MemoryNeed:
    """The memory that :func:`ganparts.train_step` with Adam needs; takes some seconds and no memory.

    Args:
        build: makes the model.
        size: height and width of the images, in pixels.
        level: one of ``MEMORY_LEVELS``.
        device_type: ``"cpu"``, or ``"cuda"`` where there is one.
        averaged: whether the generators' moving average is kept too.
        context: entered around a step: autocast.
        layout: ``"channels_first"``, or ``"channels_last"``, where norms that are not compiled keep more.
        channels: of the images.
    """
    with FakeTensorMode(), torch.device(device_type):
        model = build()
        recompute_blocks(model, level == "lowest")
        if layout == "channels_last":
            _lay_out_last(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizers = Optimizers(SGD(trained, lr=0.0), SGD(trained[:1], lr=0.0))  # which keep nothing

        def step(batch_size: int) -> None:
            pair = Pair(*torch.empty(2, batch_size, channels, size, size))
            with context():
                train_step(model, pair, optimizers, low_memory=level != "fast")

        step(1)  # replay buffers are allocated
        one, three = (peak_bytes(partial(step, batch_size)) for batch_size in (1, 3))
        averages = (p for g in (model.generator_ab, model.generator_ba) for p in g.parameters() if averaged)
        held = sum(map(_bytes, chain(model.parameters(), model.buffers(), averages)))
        held += _ADAM * sum(map(_bytes, trained))
    per_pair = (three - one) / 2
    return MemoryNeed(held + one - per_pair, per_pair)


def _lay_out_last(model: nn.Module) -> None:
    """``model.to(memory_format=torch.channels_last)``, which does not work on parameters that take no memory."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 4:
                last = parameter.detach().contiguous(memory_format=torch.channels_last)
                setattr(module, name, nn.Parameter(last, parameter.requires_grad))


class MemoryPlan(NamedTuple):
    """How a step saves memory, and what it then needs.

    Args:
        level: one of ``MEMORY_LEVELS``.
        need: at this level.
    """

    level: str
    need: MemoryNeed


def plan_memory(
    build: Callable[[], CycleGAN],
    *,
    batch_size: int,
    available: float,
    size: int,
    level: str = "auto",
    device_type: str = "cpu",
    averaged: bool = False,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    layout: str = "channels_first",
) -> MemoryPlan:
    """The fastest way to train that fits; see :func:`memory_need` for what is not said here.

    Args:
        build: makes the model.
        batch_size: pairs a step.
        available: bytes that there are.
        size: height and width of the images, in pixels.
        level: one of ``MEMORY_LEVELS``, or ``"auto"`` for the first that fits.
        device_type: see there.
        averaged: see there.
        context: see there.
        layout: see there.

    Raises:
        ValueError: none fits; the message says what would.
    """
    plans = []
    ways: dict[str, Any] = {"device_type": device_type, "averaged": averaged, "context": context, "layout": layout}
    for name in MEMORY_LEVELS if level == "auto" else (level,):
        need = memory_need(build, size=size, level=name, **ways)
        plans.append(MemoryPlan(name, need))
        if need.at(batch_size) <= available:
            return plans[-1]
    fitting = ", ".join(f"{plan.need.largest_batch(available)} with --memory {plan.level}" for plan in plans)
    raise ValueError(
        f"a batch of {batch_size} needs about {plans[-1].need.at(batch_size) / 2**30:.1f} GiB, but there are "
        f"{available / 2**30:.1f}. The largest that fits: {fitting}. Take a smaller batch (--batch-size), smaller "
        "images (--image-size) or narrower networks (--width)"
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes alive at once of tensors that ``run()`` makes; those that existed before are not counted."""
    with _LiveBytes() as live:
        run()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(storage) for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if id(storage) not in self._counted | given:
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        size = -(-storage.nbytes() // _BLOCK) * _BLOCK
        self.now += size
        self.peak = max(self.peak, self.now)
        self._counted.add(id(storage))
        weakref.finalize(storage, self._drop, id(storage), size)

    def _drop(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]
