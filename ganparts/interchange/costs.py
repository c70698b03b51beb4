"""What parts there are and what networks cost, for ``ganparts list`` and for tables in the documentation.

Networks are counted on the meta device, where they take neither memory nor time.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from ganparts.blocks import size_limits
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    AUGMENTATIONS,
    BACKBONES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
    Registry,
)

__all__ = [
    "NETWORKS",
    "TABLES",
    "Costs",
    "Layer",
    "PartRow",
    "choice_in_words",
    "documentation_of",
    "measure",
    "paper_of",
    "part_rows",
]

NETWORKS: tuple[Registry[Any], ...] = (GENERATORS, DISCRIMINATORS)
TABLES: tuple[Registry[Any], ...] = (
    *NETWORKS,
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    PENALTIES,
    REPLAY_BUFFERS,
    AUGMENTATIONS,
    BACKBONES,
    PRESETS,
)

_SIDE = 256  # pixels of the image that is counted, where a network takes it


class Layer(NamedTuple):
    """One layer that has parameters of its own."""

    name: str
    what: str
    output: str
    parameters: int


class Costs(NamedTuple):
    """How large a network is, and what one forward pass of an image of 3 channels costs."""

    parameters: int
    side: int
    """Height and width of the image that is counted: 256, or the nearest that the network takes."""
    tflop: float
    kept: int
    """Bytes that a forward pass in training, in 32 bits, keeps for backward, without weights and buffers."""
    sizes: str
    """Which heights and widths the network takes, in words."""
    tileable: bool | None
    """Of a generator: whether large pictures go through in tiles."""
    exportable: bool | None
    """Of a generator: whether it can be written as ONNX and for PyTorch."""
    layers: list[Layer]
    kinds: Counter[str]


class PartRow(NamedTuple):
    """One part, as a table tells of it."""

    name: str
    kind: str
    what: str
    paper: str
    """Its number on arXiv, or empty."""
    costs: Costs | None
    """None for what is not a network, or cannot be counted."""


def part_rows(pattern: str = "*", *, tables: Sequence[Registry[Any]] = TABLES) -> list[PartRow]:
    """All parts whose names match a shell pattern, table after table; some seconds for all."""
    return [
        PartRow(name, _kind(table, name), _summary(table[name]), paper, measure(table, name))
        for table in tables
        for name in table.names(pattern)
        for paper in [paper_of(table[name], whole_module=table in NETWORKS)]
    ]


def measure(table: Registry[Any], name: str) -> Costs | None:
    """What a network costs as it is without options.

    Returns:
        None for what is not a network or cannot be counted: it asks for values, or takes no images of 3 channels.
    """
    from torch.utils.flop_counter import FlopCounterMode

    if table not in NETWORKS:
        return None
    layers: list[Layer] = []
    try:
        with torch.device("meta"):
            network = table.create(name)
        multiple, least = size_limits(network)
        side = max(-(-least // multiple), round(_SIDE / multiple), 1) * multiple
        modules = dict(network.named_modules())
        trained = {path: layer for path, layer in modules.items() if _is_layer(layer)}
        for path, layer in trained.items():
            layer.register_forward_hook(_recorder(path, layers))
        kept = _Kept(network)
        hooks = torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor)
        with torch.device("meta"), FlopCounterMode(display=False) as counter, hooks:
            network(torch.zeros(1, 3, side, side))
    except Exception:  # whatever a part of somebody's own raises
        return None
    makes = table is GENERATORS
    return Costs(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        side=side,
        tflop=counter.get_total_flops() / 1e12,
        kept=kept.bytes,
        sizes=_told_sizes(network, multiple, least),
        tileable=getattr(network, "tileable", True) if makes else None,
        exportable=getattr(network, "exportable", True) if makes else None,
        layers=layers,
        kinds=Counter(
            type(layer).__name__ for path, layer in modules.items() if path in trained or not any(layer.children())
        ),
    )


def documentation_of(builder: Any) -> str:
    """A builder's docstring as plain text."""
    return (inspect.getdoc(builder) or "").replace("``", "")


def choice_in_words(value: Any) -> str:
    """A value of a preset; parts that have a name as a command line takes them: ``pixel+patchgan(width=48)``."""
    if isinstance(value, list | tuple):
        return ("+" if isinstance(value, list) else ", ").join(map(choice_in_words, value))
    if isinstance(value, partial):
        named = next(filter(None, (table.named(value) for table in TABLES)), None)
        name = named[0] if named else value.func.__name__
        given = [] if named else list(map(repr, value.args))
        given += [f"{option}={chosen!r}" for option, chosen in value.keywords.items()]
        return f"{name}({', '.join(given)})" if given else name
    return "none" if value is None else str(value)


def _summary(builder: Any) -> str:
    """The first paragraph of a builder's docstring, in one line."""
    return " ".join(documentation_of(builder).partition("\n\n")[0].split())


def paper_of(builder: Any, *, whole_module: bool = True) -> str:
    """The number on arXiv of the paper that a builder's docstring names, or else that of its module.

    If a module names several, the right one is that which follows the word that the builder's docstring begins with,
    as in "CUT's discriminator". Without such a word it is the first.
    """
    number = r"arXiv (\d{4}\.\d{4,5})"
    own = documentation_of(builder)
    if (match := re.search(number, own)) is not None:
        return match[1]
    module = getattr(sys.modules.get(getattr(builder, "__module__", "")), "__doc__", None) if whole_module else None
    text = " ".join((module or "").split())
    if (word := re.match(r"(\w+)'s ", own)) is not None:
        after = re.finditer(rf"\b{word[1]}\b(?=((?:(?!arXiv).){{0,80}}?){number})", text)
        if (near := min(after, key=lambda found: len(found[1]), default=None)) is not None:
            return near[2]
    match = re.search(number, text)
    return match[1] if match else ""


class _Kept:
    """Counts what autograd keeps; each storage once, and none of the network's own."""

    def __init__(self, network: nn.Module):
        self.own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
        self.bytes = 0
        self.alive: list[Tensor] = []  # so that no storage gets the number of another

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.own:
            self.own.add(storage._cdata)
            self.alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


def _told_sizes(network: nn.Module, multiple: int, least: int) -> str:
    if isinstance(size := getattr(network, "size", None), int):
        return f"{size}x{size} only (option size)"
    if multiple == 1:
        return f"from {least} on" if least > 1 else "any"
    return f"multiples of {multiple}" + (f" from {least} on" if least > multiple else "")


def _kind(table: Registry[Any], name: str) -> str:
    """A preset's names its method, the module that defines it."""
    if table is not PRESETS:
        return table.kind
    return f"{table.kind} ({type(table.create(name)).__module__.split('.')[1]})"


def _is_layer(module: nn.Module) -> bool:
    """Whether a module has weights, and none of its children has."""
    if isinstance(module, ParametrizationList):  # it makes the weights of a layer
        return False
    inside = any(True for child in module.children() for _ in child.parameters())
    return not inside and any(True for _ in module.parameters())


def _recorder(path: str, layers: list[Layer]) -> Callable[[nn.Module, Any, Tensor], None]:
    def record(layer: nn.Module, _: Any, output: Tensor) -> None:
        parameters = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        layers.append(Layer(path, _told(layer), "x".join(map(str, output.shape[1:])), parameters))

    return record


def _told(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return kind
    kernel, stride = ("x".join(map(str, pair)) for pair in (layer.kernel_size, layer.stride))
    return f"{kind} {layer.in_channels} to {layer.out_channels}, {kernel}, stride {stride}"
