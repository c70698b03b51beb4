"""How much memory a training step needs, found without running it.

The step runs on tensors that have shapes but no data, and the bytes alive at every moment are counted. Memory that a
device's libraries take for themselves is not counted: CUDA's context, and the work space of its convolutions.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ganparts.adversarial.assembly import Assembly
from ganparts.adversarial.optimizers import Optimizers, trained_parameters
from ganparts.blocks import one_of, recompute_blocks

__all__ = [
    "MEMORY_LEVELS",
    "MemoryEstimateError",
    "MemoryNeed",
    "MemoryPlan",
    "memory_need",
    "peak_bytes",
    "plan_memory",
]

MEMORY_LEVELS = ("fast", "low", "lowest")
"""``low``: ``train_step(low_memory=True)``; ``lowest``: that, and residual blocks recomputed."""

_BLOCK = 512  # bytes; CUDA's allocator gives multiples of it
_ADAM = 2  # moving averages that Adam keeps of every trained parameter


class MemoryEstimateError(RuntimeError):
    """The memory of a step cannot be estimated; the message says why. The step itself may well work."""


class MemoryNeed(NamedTuple):
    """The bytes that training needs, a linear function of the batch size.

    Every tensor of a step either grows with the batch or does not, so two batch sizes tell all others.
    """

    fixed: float
    per_pair: float

    def at(self, batch_size: int) -> float:
        """Bytes at a batch size."""
        return self.fixed + self.per_pair * batch_size

    def largest_batch(self, available: float) -> int:
        """The largest batch size that fits into so many bytes; 0 if none does."""
        return max(0, int((available - self.fixed) // self.per_pair))


def memory_need(
    model: Assembly,
    batch: Callable[[int], Any],
    *,
    level: str = "fast",
    device_type: str = "cpu",
    averaged: bool = False,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    layout: str = "channels_first",
) -> MemoryNeed:
    """The memory that training an assembly with Adam needs; takes some seconds and no memory.

    Args:
        model: the assembly, on any device; it is not changed.
        batch: makes an example batch of a given size, of any values: ``lambda size: Pair(...)``.
        level: one of ``MEMORY_LEVELS``.
        device_type: ``"cpu"``, or ``"cuda"`` where there is one.
        averaged: whether moving averages of the generators are kept too.
        context: entered around a step: autocast.
        layout: ``"channels_first"``, or ``"channels_last"``, in which norms that are not compiled keep more.

    Raises:
        MemoryEstimateError: a part cannot run on tensors without data.
        ValueError: an unknown level or layout.
    """
    one_of("level", level, MEMORY_LEVELS)
    one_of("layout", layout, ("channels_first", "channels_last"))
    try:
        return _memory_need(model, batch, level, device_type, averaged, context, layout)
    except Exception as error:  # a part may raise anything on tensors without data
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MemoryEstimateError(f"the memory of a step cannot be estimated ({reason[:200]})") from error


def _memory_need(
    original: Assembly,
    batch: Callable[[int], Any],
    level: str,
    device_type: str,
    averaged: bool,
    context: Callable[[], AbstractContextManager[Any]],
    layout: str,
) -> MemoryNeed:
    device = torch.device(device_type)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, device:
        with FakeCopyMode(mode):
            model: Any = copy.deepcopy(original)
        for module in model.modules():
            _move(module, device, last=layout == "channels_last")
        recompute_blocks(model, level == "lowest")
        trained = {name: trained_parameters(*networks.values()) for name, networks in model.networks().items()}
        optimizers = Optimizers(
            {name: SGD(parameters, lr=0.0) for name, parameters in trained.items() if parameters}  # which keep nothing
        )

        def step(batch_size: int) -> None:
            images = tree_map(lambda value: torch.empty_like(value, device=device), batch(batch_size))
            with context():
                model.train_step(images, optimizers, low_memory=level != "fast")

        step(1)  # replay buffers are allocated
        one, three = (peak_bytes(partial(step, batch_size)) for batch_size in (1, 3))
        averages = (p for network in model.stages().values() for p in network.parameters() if averaged)
        held = sum(map(_bytes, chain(model.parameters(), model.buffers(), averages)))
        held += _ADAM * sum(map(_bytes, chain(*trained.values())))
    per_pair = (three - one) / 2
    return MemoryNeed(held + one - per_pair, per_pair)


def _move(module: nn.Module, device: torch.device, *, last: bool) -> None:
    """``module.to(device, memory_format=...)`` for its own tensors, which does not work on those without data."""
    for name, parameter in module.named_parameters(recurse=False):
        moved = parameter.detach().to(device)
        if last and parameter.ndim == 4:
            moved = moved.contiguous(memory_format=torch.channels_last)
        module.register_parameter(name, nn.Parameter(moved, parameter.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        module._buffers[name] = buffer.to(device)


class MemoryPlan(NamedTuple):
    """How a step saves memory, and what it then needs.

    Args:
        level: one of ``MEMORY_LEVELS``.
        need: at this level.
    """

    level: str
    need: MemoryNeed


def plan_memory(
    model: Assembly,
    batch: Callable[[int], Any],
    *,
    batch_size: int,
    available: float,
    level: str = "auto",
    device_type: str = "cpu",
    averaged: bool = False,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    layout: str = "channels_first",
) -> MemoryPlan:
    """The fastest way to train that fits in memory.

    Args:
        model: the assembly.
        batch: makes an example batch of a given size.
        batch_size: of a step.
        available: bytes that there are.
        level: one of ``MEMORY_LEVELS``, or ``"auto"`` for the first that fits.
        device_type: as for :func:`memory_need`, like all that follow.
        averaged: whether moving averages of the generators are kept too.
        context: entered around a step.
        layout: of the images in memory.

    Raises:
        ValueError: none fits; the message says what would.
        MemoryEstimateError: the need cannot be estimated.
    """
    plans = []
    for name in MEMORY_LEVELS if level == "auto" else (level,):
        need = memory_need(
            model, batch, level=name, device_type=device_type, averaged=averaged, context=context, layout=layout
        )
        plans.append(MemoryPlan(name, need))
        if need.at(batch_size) <= available:
            return plans[-1]
    fitting = ", ".join(f"{plan.need.largest_batch(available)} with --memory {plan.level}" for plan in plans)
    raise ValueError(
        f"a batch of {batch_size} needs about {plans[-1].need.at(batch_size) / 2**30:.1f} GiB, but there are "
        f"{available / 2**30:.1f}. The largest that fits: {fitting}. Take a smaller batch (--batch-size), smaller "
        "images (--crop) or narrower networks (--width)"
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
