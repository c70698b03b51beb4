"""Published weights: what all readers of them share.

A reader recognises the names of one family's weights and builds the network of their shapes, by name where it is
registered. It is built on the meta device, so that weights that do not fit are refused before they take memory.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ganparts.blocks import Norm
from ganparts.discriminators import PixelDiscriminator

__all__ = ["Builder", "Weights", "as_module", "checked_weights", "layer_numbers", "norm_of", "with_weights"]

Weights = dict[str, Tensor]
Builder = Callable[[Weights], nn.Module]

_MOST_TENSORS = 10_000


def checked_weights(state_dict: Mapping[str, Tensor], *, caller: str) -> Weights:
    """The tensors by name, without the prefix ``module.`` of ``nn.DataParallel``.

    Raises:
        TypeError: not a mapping.
        ValueError: something in it is not a tensor of floating-point numbers, or there are far too many.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"{caller} takes a state_dict, for instance torch.load(file, weights_only=True), but was given a "
            f"{type(state_dict).__name__}"
        )
    if len(state_dict) > _MOST_TENSORS:
        raise ValueError(f"these are {len(state_dict):,} tensors, and at most {_MOST_TENSORS:,} are read as a network")
    for name, tensor in state_dict.items():
        _check_plain(name, tensor)
    if len({tensor.is_meta for tensor in state_dict.values()}) > 1:
        raise ValueError("some of these tensors are on the meta device, without numbers: load them all to one device")
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _check_plain(name: object, tensor: object) -> None:
    """Refuse what is not a tensor of floating-point numbers, or none whose numbers are all there."""
    if not isinstance(name, str):
        raise ValueError(f"{name!r:.100} is not the name of a tensor: pass the state_dict itself")
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name!r:.100} is not a tensor but {type(tensor).__name__}: pass the state_dict itself")
    counts = name.endswith("num_batches_tracked")
    if tensor.layout != torch.strided or not (tensor.is_floating_point() or counts):
        raise ValueError(f"{name!r:.100} holds no floating-point numbers but {tensor.dtype}, {tensor.layout}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name!r:.100} claims the shape {list(tensor.shape)}, but holds fewer numbers")


def with_weights(build: Builder, weights: Weights) -> nn.Module:
    """The network that ``build`` makes for these weights, with copies of them, of their dtype and on their device.

    Raises:
        ValueError: they do not fit; the message says what does not.
    """
    try:
        with torch.device("meta"):
            network = build(weights)
    except Exception as error:  # names and shapes that no network has make it raise almost anything
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"these weights have the names of a network, but do not fit one: {reason}") from None
    example = next(iter(weights.values()))
    expected = network.state_dict()
    # Instance norms of before PyTorch 0.4 saved statistics that were never used.
    weights = {n: t for n, t in weights.items() if n in expected or not re.search(r"running_|num_batches", n)}
    biases = _biases_that_theirs_lack(network)
    if not biases & weights.keys():
        weights |= {name: torch.zeros_like(expected[name], device=example.device) for name in biases}
    counters = {name for name, tensor in expected.items() if not tensor.is_floating_point()} - weights.keys()
    weights |= {name: torch.zeros_like(expected[name], device=example.device) for name in counters}
    try:
        network.load_state_dict(weights, assign=True)  # the tensors as they are, to see whether they fit
    except RuntimeError as error:
        kind, reason = type(network).__name__, textwrap.shorten(str(error), 500)
        raise ValueError(f"these weights look like a {kind}, but do not fit one: {reason}") from None
    place = partial(torch.Tensor.to, device=example.device, copy=True, memory_format=torch.contiguous_format)
    floats = {name for name, tensor in expected.items() if tensor.is_floating_point()}
    owned = {n: place(t.detach(), dtype=example.dtype if n in floats else t.dtype) for n, t in weights.items()}
    network.load_state_dict(owned, assign=True)
    return network.to(example.device)


def _biases_that_theirs_lack(network: nn.Module) -> set[str]:
    """Of convolutions before norm "none", and of the last one of a pixel discriminator with batch norm."""
    biases = set()
    for name, layers in network.named_modules():
        if isinstance(layers, nn.Sequential):
            for (place, _), (_, after) in pairwise(layers.named_children()):
                if isinstance(after, nn.Identity):
                    biases.add(f"{name}.{place}.bias")
    if isinstance(network, PixelDiscriminator) and isinstance(network.net[3], nn.BatchNorm2d | nn.Identity):
        biases.add("net.5.bias")
    return biases & network.state_dict().keys()


def norm_of(weights: Weights, layer: str, *, biased: bool) -> Norm:
    """The norm called ``layer``; ``biased``: whether the convolution before it has a bias."""
    if f"{layer}.weight" in weights:
        # Statistics beside a bias are an old instance norm's: before batch norm the reference has no bias.
        return "batch" if f"{layer}.running_mean" in weights and not biased else "instance_affine"
    return "instance" if biased else "none"


def layer_numbers(weights: Weights, pattern: str, *, most: int = 1000, dimensions: int | None = None) -> list[int]:
    """The numbers that ``pattern`` captures in the names, in order; of tensors of so many dimensions alone, if given.

    Raises:
        ValueError: there are more than ``most``.
    """
    matches = ((re.fullmatch(pattern, name), tensor) for name, tensor in weights.items())
    numbers = {int(match[1]) for match, tensor in matches if match and dimensions in (None, tensor.ndim)}
    if len(numbers) > most:
        raise ValueError(f"there are {len(numbers):,} layers called {pattern}, and at most {most} are built")
    return sorted(numbers)


def as_module(part: object) -> nn.Module:
    """A table promises what a part does; that it is a module too, the names of the weights have shown."""
    assert isinstance(part, nn.Module)
    return part
