"""Which precision suits a processor, and what must keep fp32 whatever precision the networks compute in."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = [
    "InferencePrecision",
    "at_least_fp32",
    "choose_inference",
    "device_of",
    "dtype_of",
    "has_depthwise",
    "in_precision",
    "infer",
    "native_bf16",
    "without_autocast",
]

InferencePrecision = Literal["auto", "fp32", "bf16"]


def at_least_fp32(values: Tensor) -> Tensor:
    """``values``, half precision (bf16, fp16) made fp32."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast is off for ``device``."""
    if not torch.amp.is_autocast_available(device.type):  # the meta device has none
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def native_bf16() -> str | None:
    """The instructions with which this CPU computes in bf16: ``"AMX"``, ``"AVX512-BF16"``, ``"Arm BF16"`` or None.

    Other CPUs convert every number and are many times slower in bf16 than in fp32.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        if not torch.backends.mkldnn.is_available():  # PyTorch for macOS has no oneDNN, and not its operator
            return None
        return "Arm BF16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
    if torch.cpu._is_amx_tile_supported():  # no CPU has the tiles without bf16
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None


def device_of(network: object) -> torch.device:
    """The device of a network's weights, or of its buffers if it has none; the CPU for anything else."""
    tensors = chain(network.parameters(), network.buffers()) if isinstance(network, nn.Module) else ()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def dtype_of(network: object) -> torch.dtype:
    """The type of a network's weights if they are floating-point numbers, else float32."""
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    return next((weight.dtype for weight in parameters if weight.is_floating_point()), torch.float32)


def has_depthwise(network: nn.Module) -> bool:
    """Whether a network has depthwise convolutions."""
    layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return any(1 < layer.groups == layer.in_channels for layer in layers)


def choose_inference(network: object, wish: InferencePrecision = "auto") -> tuple[Literal["fp32", "bf16", "own"], str]:
    """In which precision a trained network translates pictures, and why.

    Args:
        network: with its weights in place.
        wish: the user's; "auto" leaves it to the device and the network.

    Returns:
        The precision and the reason. ``"own"``: a function, or weights that are not in fp32: it computes as it is.

    Raises:
        ValueError: another wish, or bf16 where it is not possible.
        TypeError: ``network`` cannot be called.
    """
    if wish not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision={wish!r}: give 'auto', 'fp32' or 'bf16'")
    if not callable(network):
        raise TypeError(f"{type(network).__name__} is not a generator: give a network, or what from_pretrained returns")
    weight = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    if weight is None or weight.dtype != torch.float32:
        if wish == "bf16":
            raise ValueError(f"precision='bf16': a {type(network).__name__} has no weights in fp32: leave it out")
        return "own", "the model has no weights in fp32 that another could be made of"
    if wish == "fp32":
        return "fp32", "as asked"
    assert isinstance(network, nn.Module)
    if wish == "bf16":
        _refuse_bf16(weight.device)
        return "bf16", "as asked"
    if weight.device.type != "cpu":
        return "fp32", f"bf16 is chosen on CPUs only, and this is {weight.device.type}"
    if (native := native_bf16()) is None:
        return "fp32", "this CPU has no instructions for bf16"
    if has_depthwise(network):
        return "fp32", "its depthwise convolutions would make the picture differ visibly in bf16"
    return "bf16", f"this CPU computes in it natively ({native})"


def _refuse_bf16(device: torch.device) -> None:
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    if old or not torch.amp.is_autocast_available(device.type):
        which = "a card below capability 8.0" if old else device.type
        raise ValueError(f"precision='bf16' is not possible on {which}: leave it out")


def in_precision(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context for a network's work: autocast for ``"bf16"``, else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def infer(network: Callable[[Tensor], Tensor], images: Tensor, precision: str) -> Tensor:
    """What a network makes of images [B, C, H, W], in a precision of :func:`choose_inference`."""
    if precision == "bf16":  # in which convolutions are up to twice as fast on channels-last images
        images = images.to(memory_format=torch.channels_last)
    with in_precision(precision, images.device):
        return network(images)
