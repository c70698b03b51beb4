"""A whole training step as one CUDA graph: thousands of kernels, launched at once.

At batch 1 a fast card waits for Python more than it computes. A step that asks nothing of the device and whose shapes
never change can be recorded once and replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganparts.protocols import Pair

__all__ = ["CaptureError", "CapturedStep", "Step"]

Step = Callable[[Pair], dict[str, Tensor]]
"""Trains once; gives losses, scalars on the device."""

_WARMUP = 3  # steps before recording: libraries choose their algorithms, buffers are allocated, networks compiled


class CaptureError(RuntimeError):
    """A step that cannot be captured; the text says why and what to do."""


class _Recording(NamedTuple):
    """A graph and its fixed tensors: what it reads, and what it writes."""

    pair: Pair
    names: list[str]
    losses: Tensor
    replay: Callable[[], None]


class CapturedStep:
    """A step that is recorded at its first call, and replayed.

    The calls before the recording that warm the step up leave no trace: weights, optimizers, replay buffers, averages
    and random states are put back. States must be loaded in place, as :class:`ganparts.cyclegan.Optimizers`,
    ``nn.Module`` and ``HistoryBuffer`` do; then the graph goes on with what was loaded. A batch of another shape is
    recorded anew.

    Args:
        step: asks nothing of the device.
        stateful: everything that it changes, by name: objects with ``state_dict`` and ``load_state_dict``.
    """

    def __init__(self, step: Step, **stateful: Any):
        self._step, self._stateful = step, stateful
        self._recording: _Recording | None = None

    def __call__(self, pair: Pair) -> dict[str, Tensor]:
        if self._recording is None or any(a.shape != b.shape for a, b in zip(self._recording.pair, pair, strict=True)):
            self._recording = None  # its memory is given back first
            self._recording = self._capture(Pair(*(images.clone() for images in pair)))
        static, names, losses, replay = self._recording
        for fixed, images in zip(static, pair, strict=True):
            fixed.copy_(images)
        replay()
        return dict(zip(names, losses.clone().unbind(), strict=True))  # the next replay overwrites its own

    def _capture(self, pair: Pair) -> _Recording:
        def run() -> tuple[list[str], Tensor]:
            losses = self._step(pair)
            return list(losses), torch.stack(list(losses.values()))

        device = pair.a.device
        states = {name: _copied(thing.state_dict()) for name, thing in self._stateful.items()}
        randomness = _random_states(device)
        _warm_up(run, device)
        for name, thing in self._stateful.items():
            thing.load_state_dict(states[name])
        _restore_random_states(randomness, device)
        del states
        (names, losses), replay = _record(run)
        return _Recording(pair, names, losses, replay)


def _warm_up(run: Callable[[], object], device: torch.device) -> None:
    if device.type != "cuda":
        for _ in range(_WARMUP):
            run()
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)


def _record(run: Callable[[], tuple[list[str], Tensor]]) -> tuple[tuple[list[str], Tensor], Callable[[], None]]:
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        # other threads, which pin memory or write pictures, go on meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            losses = run()
    except torch.OutOfMemoryError:
        torch.cuda.set_stream(before)
        raise
    except RuntimeError as error:
        torch.cuda.set_stream(before)  # PyTorch stays on the capture's own when its end fails
        first = error.__context__ or error  # what ended the capture, not what the end of the capture said
        if isinstance(first, torch.OutOfMemoryError):
            raise first from None
        raise CaptureError(
            f"the step cannot be captured as a CUDA graph ({str(first).splitlines()[0]}): a part of it asks the device "
            "for a value, or makes tensors on the CPU; train with --capture off"
        ) from error
    return losses, graph.replay


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_copied, state))
    return state


def _random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore_random_states(states: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], device)
