"""A whole training step as one CUDA graph: thousands of kernels, launched at once.

A step that reads no value from the device, and whose shapes never change, can be recorded once and replayed. Then the
device does not wait for Python between kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from ganparts.training.randomness import random_states, set_random_states

__all__ = ["CaptureError", "CapturedStep", "Step"]

Step = Callable[..., dict[str, Tensor]]
"""``step(batch, number)`` trains once on a batch, any nesting of tensors, as step ``number`` of the run, counted from
0; gives losses, scalars on the device."""

_WARMUP = 3  # steps before recording: libraries choose their algorithms, buffers are allocated, networks compiled
_HOST_GENERATORS = {"torch": "PyTorch's CPU generator", "python": "Python's random", "numpy": "NumPy's random"}


class CaptureError(RuntimeError):
    """A step that cannot be captured; the message says why and what to do."""


class _Recording(NamedTuple):
    """A graph and its fixed tensors: what it reads, and what it writes."""

    batch: list[Tensor]
    names: list[str]
    losses: Tensor
    gradients: list[tuple[nn.Parameter, Tensor | None]]
    replay: Callable[[], None]


class CapturedStep:
    """A step that is recorded when it is first called, and then replayed.

    There is one recording for each kind of step: for each shape of the batch and each phase of the step's number.
    The warm-up calls before a recording leave no trace: weights, optimizers, replay buffers, averages and random states
    are put back. Loading a checkpoint copies into the existing tensors (:class:`ganparts.adversarial.Optimizers`,
    ``nn.Module`` and ``HistoryBuffer`` do so), so a recording stays valid after a load.

    A part that draws random numbers on the CPU would repeat them in every step. That is detected and refused.

    Args:
        step: must not read a value from the device.
        phase: of a step's number; steps of one phase run the same operations.
        stateful: everything that it changes, by name: objects with ``state_dict`` and ``load_state_dict``.
    """

    def __init__(self, step: Step, *, phase: Callable[[int], Hashable] = lambda number: None, **stateful: Any):
        self._step, self._phase, self._stateful = step, phase, stateful
        self._recordings: dict[Hashable, _Recording] = {}
        self._last: _Recording | None = None

    def __call__(self, batch: Any, number: int) -> dict[str, Tensor]:
        tensors, structure = tree_flatten(batch)
        key = (str(structure), tuple((t.shape, t.dtype) for t in tensors), self._phase(number))
        if key not in self._recordings:
            self._recordings[key] = self._capture(batch, number)
        recording = self._recordings[key]
        for fixed, given in zip(recording.batch, tensors, strict=True):
            fixed.copy_(given)
        recording.replay()
        if recording is not self._last:  # gradients are where this recording writes them
            for parameter, gradient in recording.gradients:
                parameter.grad = gradient
            self._last = recording
        # the next replay overwrites its own
        return dict(zip(recording.names, recording.losses.clone().unbind(), strict=True))

    def _capture(self, batch: Any, number: int) -> _Recording:
        batch = tree_map(torch.clone, batch)
        tensors: list[Tensor] = tree_flatten(batch)[0]

        def run() -> tuple[list[str], Tensor]:
            losses = self._step(batch, number)
            return list(losses), torch.stack(list(losses.values()))

        device = tensors[0].device
        states = {name: _copied(thing.state_dict()) for name, thing in self._stateful.items()}
        randomness = random_states()
        _warm_up(run, device)
        for name, thing in self._stateful.items():
            thing.load_state_dict(states[name])
        set_random_states(randomness)
        del states
        before = random_states()
        (names, losses), replay = _record(run)
        _refuse_host_randomness(before)
        modules = [thing for thing in self._stateful.values() if isinstance(thing, nn.Module)]
        gradients = [(p, p.grad) for module in modules for p in module.parameters() if p.requires_grad]
        return _Recording(tensors, names, losses, gradients, replay)


def _refuse_host_randomness(before: dict[str, Any]) -> None:
    """Refuse a step that changed a random state of the host; the device's goes on in a replay, too."""
    now = random_states()
    for name, generator in _HOST_GENERATORS.items():
        if name not in before:  # NumPy was not imported
            continue
        same = torch.equal(now[name], before[name]) if name == "torch" else now[name] == before[name]
        if not same:
            raise CaptureError(
                f"the step draws from {generator}, whose numbers would be recorded once and repeated in every step: "
                "draw them with torch on the images' device, or train with --capture off"
            )


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
