"""Stands for a CUDA graph on the CPU: operations are recorded once and replayed, and no Python runs again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Tape(TorchDispatchMode):
    """Notes every operation, with the tensors that it reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.seen: set[int] = set()
        self.before: list[tuple[torch.UntypedStorage, torch.UntypedStorage]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self.seen:  # from outside: it may be written to
                self.seen.add(storage._cdata)
                self.before.append((storage, storage.clone()))
        result = func(*args, **(kwargs or {}))
        self.seen |= {storage._cdata for storage in _storages(result)}
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


def fake_record(run: Callable[[], Any], *, device_draws: bool = True) -> tuple[Any, Callable[[], None]]:
    """As ``capture._record``: recording changes no tensor.

    Args:
        run: what is recorded.
        device_draws: PyTorch's CPU generator stands for the device's, which recording leaves alone.
    """
    state, tape = torch.get_rng_state(), _Tape()
    with tape:
        result = run()
    for storage, before in tape.before:
        storage.copy_(before)
    if device_draws:
        torch.set_rng_state(state)
    return result, tape.replay
