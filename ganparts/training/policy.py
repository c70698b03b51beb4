"""How a step is computed on a device: precision, memory layout, streams, capture, compilation.

None of it is in the step; it is wrapped around the step. The right choices depend on the device, so ``"auto"`` leaves
them to :func:`choose_policy`, which gives its reasons. Each can be forced.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from ganparts.allocation import keep_freed_memory
from ganparts.precision import native_bf16
from ganparts.training.capture import CapturedStep, Step

__all__ = ["CompileError", "Policy", "PolicyOptions", "choose_policy"]

Switch = Literal["auto", "on", "off"]
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class CompileError(RuntimeError):
    """A network that cannot be compiled; the message says why and what to do."""


@dataclass(frozen=True)
class PolicyOptions:
    """The user's choices; "auto" leaves a choice to the device."""

    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Precision of the networks; losses are always computed in fp32. fp16 scales the losses."""
    layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    """How images lie in memory."""
    streams: Literal["auto", "1", "2"] = "auto"
    """2: train discriminators and generators at the same time on one GPU (two CUDA streams)."""
    capture: Switch = "auto"
    """Replay the whole step as one CUDA graph."""
    compile: Switch = "auto"
    """Compile the generators (torch.compile)."""


@dataclass(frozen=True)
class Policy:
    """How a step is computed, and why.

    Args:
        device_type: ``"cpu"`` or ``"cuda"``.
        precision: ``"fp32"`` (IEEE), ``"tf32"``, ``"bf16"`` or ``"fp16"``.
        layout: ``"channels_first"`` or ``"channels_last"``.
        streams: 1 or 2.
        capture: whether the step is replayed as a CUDA graph.
        compile: whether generators are compiled.
        reasons: for each of these, as text.
    """

    device_type: str
    precision: str
    layout: str
    streams: int
    capture: bool
    compile: bool
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def scaling(self) -> bool:
        """Whether losses must be scaled: gradients in fp16 would vanish."""
        return self.precision == "fp16"

    def autocast(self) -> AbstractContextManager[Any]:
        """A context for the networks' work: autocast in half precision, else nothing."""
        if self.precision not in _HALVES:
            return nullcontext()
        # weights change in every step, so a cache of their half-precision copies would serve one step alone, and not
        # at all in a captured graph
        return torch.autocast(self.device_type, _HALVES[self.precision], cache_enabled=False)

    def side_stream(self) -> torch.cuda.Stream | None:
        """A second CUDA stream if ``streams`` is 2, else None."""
        return torch.cuda.Stream() if self.streams == 2 else None

    def set_backends(self) -> None:
        """Set what holds for the whole process: TF32, the search for the fastest convolutions, memory that is kept."""
        if self.device_type == "cuda":
            torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.precision != "fp32"
        else:
            keep_freed_memory()

    def prepare(self, model: nn.Module) -> None:
        """Set PyTorch and a model, on its device already, up for training."""
        self.set_backends()
        if self.layout == "channels_last":
            model.to(memory_format=torch.channels_last)

    def wrap(
        self,
        step: Step,
        *,
        networks: Sequence[nn.Module] = (),
        phase: Callable[[int], Hashable] = lambda number: None,
        guarded: nn.Module | None = None,
        **stateful: Any,
    ) -> Step:
        """The step with this policy around it: layout, autocast, compiled forwards and CUDA graphs.

        Args:
            step: ``step(batch, number)`` trains once.
            networks: those that may be compiled; outside the step they stay unchanged.
            phase: of a step's number; steps of one phase run the same operations.
            guarded: a model whose batch norms keep their old statistics if a step would make them not finite (which
                happens in steps that the optimizers skip).
            stateful: what the step changes, by name: model, optimizers, averages (see :class:`CapturedStep`).
        """
        forwards = {network: torch.compile(network.forward, dynamic=False) for network in networks if self.compile}
        last = partial(torch.Tensor.contiguous, memory_format=torch.channels_last)

        def wrapped(batch: Any, number: int) -> dict[str, Tensor]:
            if self.layout == "channels_last":
                batch = tree_map(lambda value: last(value) if value.ndim == 4 else value, batch)
            with self.autocast(), _replaced(forwards), _finite_statistics(guarded):
                return step(batch, number)

        return CapturedStep(wrapped, phase=phase, **stateful) if self.capture else wrapped

    @property
    def memory_layout(self) -> str:
        """The layout for which a step's memory is estimated: with compiled norms the layout makes no difference."""
        return "channels_first" if self.compile else self.layout

    def at_level(self, level: str, model: nn.Module) -> Policy:
        """The policy for a memory level: PyTorch before 2.10 cannot record dropout that is recomputed."""
        dropout = any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in model.modules())
        old = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10)
        if not (self.capture and level == "lowest" and dropout and old):
            return self
        reason = "memory lowest recomputes dropout, which PyTorch before 2.10 cannot record"
        return replace(self, capture=False, reasons=self.reasons | {"capture": reason})

    def describe(self) -> list[tuple[str, str, str]]:
        """Name, choice and reason of each choice."""
        words = {True: "on", False: "off"}
        choices = {name: getattr(self, name) for name in self.reasons}
        return [
            (name, words[choice] if isinstance(choice, bool) else str(choice), self.reasons[name])
            for name, choice in choices.items()
        ]


@contextmanager
def _finite_statistics(model: nn.Module | None) -> Iterator[None]:
    """On leaving, batch norms whose statistics became not finite get their old ones back."""
    norms = [] if model is None else [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    before = [value.clone() for value in statistics]
    yield
    with torch.no_grad():
        for value, old in zip(statistics, before, strict=True):
            value.copy_(torch.where(value.isfinite().all(), value, old))


@contextmanager
def _replaced(forwards: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """While entered, networks have other ``forward`` methods."""
    for network, forward in forwards.items():
        network.forward = forward
    try:
        yield
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        if not isinstance(error, TorchDynamoException):
            raise
        reason = str(error).partition("\n")[0]
        raise CompileError(f"a generator cannot be compiled ({reason}): train with --compile off") from error
    finally:
        for network in forwards:
            del network.forward


def choose_policy(
    device: torch.device, options: PolicyOptions = PolicyOptions(), *, capability: tuple[int, int] | None = None
) -> Policy:
    """The policy for a device.

    Args:
        device: that the model is trained on.
        options: the user's choices.
        capability: of a CUDA device; None asks it.

    Raises:
        ValueError: a choice that is not possible on the device.
    """
    if device.type == "cuda" and capability is None:
        capability = torch.cuda.get_device_capability(device)
    chosen = _automatic(capability)
    for name in (wish.name for wish in fields(PolicyOptions)):
        wish = getattr(options, name)
        if wish != "auto":
            chosen[name] = ({"on": True, "off": False, "1": 1, "2": 2}.get(wish, wish), "as asked")
    _refuse_impossible({name: value for name, (value, _) in chosen.items()}, capability)
    if torch.are_deterministic_algorithms_enabled() and options.compile == "auto" and chosen["compile"][0]:
        chosen["compile"] = (False, "compiled kernels may be chosen by timing, so not where runs must be equal")
    return Policy(
        device.type,
        **{name: value for name, (value, _) in chosen.items()},
        reasons={name: reason for name, (_, reason) in chosen.items()},
    )


def _automatic(capability: tuple[int, int] | None) -> dict[str, tuple[Any, str]]:
    """Choice and reason for a CUDA device of a capability, or for a CPU."""
    if capability is None:
        return {
            "precision": ("bf16", f"this CPU computes in it natively ({native})")
            if (native := native_bf16())
            else ("fp32", "this CPU has no instructions for bf16"),
            "layout": ("channels_first", "as published"),
            "streams": (1, "a CPU has none"),
            "capture": (False, "CUDA only"),
            "compile": (False, "on a CPU only if asked"),
        }
    number = ".".join(map(str, capability))
    one_stream = (1, "one after the other: a second stream brings its own gaps")
    capture = (True, "one launch a step instead of thousands")
    if capability < (7, 0):
        return {
            "precision": ("fp32", f"capability {number}: convolutions in half precision are no faster"),
            "layout": ("channels_first", f"capability {number} has no tensor cores that would want another"),
            "streams": one_stream,
            "capture": capture,
            "compile": (False, f"capability {number}: Triton needs 7.0"),
        }
    half, why = ("bf16", "range of fp32") if capability >= (8, 0) else ("fp16", "bf16 needs 8.0; losses are scaled")
    return {
        "precision": (half, f"capability {number}: tensor cores; {why}"),
        "layout": ("channels_last", "what tensor cores work on"),
        "streams": one_stream,
        "capture": capture,
        "compile": (False, missing)
        if (missing := _compiler_lacks())
        else (True, "fuses norms, activations and padding"),
    }


def _compiler_lacks() -> str | None:
    """What torch.compile needs for a GPU and this machine has not."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "Triton needs a C compiler, and there is none"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Triton needs Python's headers (python3-dev), and they are not installed"
    return None


def _refuse_impossible(chosen: dict[str, Any], capability: tuple[int, int] | None) -> None:
    where = "a CPU" if capability is None else f"a card of capability {capability[0]}.{capability[1]}"
    least = capability or (0, 0)
    refused = {
        "precision": (chosen["precision"] == "tf32" and least < (8, 0))
        or (chosen["precision"] == "bf16" and capability is not None and least < (8, 0)),
        "capture": chosen["capture"] and capability is None,
        "streams": chosen["streams"] == 2 and capability is None,
        "compile": chosen["compile"] and capability is not None and (least < (7, 0) or _compiler_lacks() is not None),
    }
    for name, impossible in refused.items():
        if impossible:
            value = {True: "on"}.get(chosen[name], chosen[name])
            raise ValueError(
                f"--{name} {value} is not possible on {where}: leave it out, and it is chosen by the device"
            )
