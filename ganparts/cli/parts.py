"""``ganparts list`` and ``ganparts show``: what parts there are, and what one of them is."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor, nn

from ganparts.cli.app import Imports, app, console, import_parts, print_table
from ganparts.metrics import FEATURE_EXTRACTORS
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
    Registry,
    UnknownPartError,
)

__all__ = ["Layer", "Size", "list_parts", "measure", "show"]

NETWORKS: tuple[Registry[Any], ...] = (GENERATORS, DISCRIMINATORS)
TABLES = (*NETWORKS, ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES, PENALTIES, REPLAY_BUFFERS, FEATURE_EXTRACTORS, PRESETS)
SIDE = 256  # pixels of the image that operations are counted for


class Layer(NamedTuple):
    """One layer that has parameters of its own."""

    name: str
    what: str
    output: str
    parameters: int


class Size(NamedTuple):
    """How large a network is."""

    parameters: int
    tflop: float
    layers: list[Layer]
    kinds: Counter[str]


@app.command(name="list")
def list_parts(
    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*",
    imports: Imports = (),
) -> int:
    """List the parts there are.

    With networks' parameters, and the operations of one forward pass of a 256x256 image.
    Example: ganparts list "*unet*"

    Args:
        pattern: Pattern of the names to list, as the shell's.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    import_parts(imports)
    rows = []
    for table in TABLES:
        for name in table.names(pattern):
            size = measure(table, name)
            numbers = ("", "") if size is None else (f"{size.parameters:,}", f"{size.tflop:.3g}")
            rows.append((name, table.kind, *numbers, _documentation(table[name]).partition("\n")[0]))
    if not rows:
        raise UnknownPartError(f"no part has a name like {pattern!r}: ganparts list, by itself, shows all")
    print_table(("name", "kind", "parameters", "TFLOP", "what"), rows, right=("parameters", "TFLOP"))
    return 0


@app.command
def show(
    part: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PART")],
    imports: Imports = (),
) -> int:
    """Show one part: what it is, its options, and a network's layers.

    Example: ganparts show resnet9

    Args:
        part: Name of a part; if parts of several kinds have it, all are shown.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    import_parts(imports)
    tables = [table for table in TABLES if part in table]
    if not tables:
        near = difflib.get_close_matches(part, [name for table in TABLES for name in table], n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownPartError(f"there is no part named {part!r}{hint}: ganparts list shows all")
    for place, table in enumerate(tables):
        console.print(f"{'' if place == 0 else chr(10)}{table.kind} {part}\n\n{_documentation(table[part])}\n")
        _print_options(table, part)
        size = measure(table, part)
        if size is not None:
            _print_layers(size)
    return 0


def measure(table: Registry[Any], name: str) -> Size | None:
    """The size of a network as it is without options, on the meta device, where it takes neither memory nor time.

    Returns:
        None for what is no network, or cannot be counted: one that asks for values, or takes no 256x256 images of 3
        channels.
    """
    from torch.utils.flop_counter import FlopCounterMode

    if table not in NETWORKS:
        return None
    layers: list[Layer] = []
    try:
        with torch.device("meta"):
            network = table.create(name)
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            leaves = {path: layer for path, layer in network.named_modules() if not any(layer.children())}
            for path, layer in leaves.items():
                if any(True for _ in layer.parameters()):
                    layer.register_forward_hook(_recorder(path, layers))
            network(torch.zeros(1, 3, SIDE, SIDE))
    except Exception:  # whatever a part of somebody's own raises
        return None
    kinds = Counter(type(layer).__name__ for layer in leaves.values())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Size(parameters, counter.get_total_flops() / 1e12, layers, kinds)


def _recorder(path: str, layers: list[Layer]) -> Callable[[nn.Module, Any, Tensor], None]:
    def record(layer: nn.Module, _: Any, output: Tensor) -> None:
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        layers.append(Layer(path, _told(layer), "x".join(map(str, output.shape[1:])), parameters))

    return record


def _told(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return kind
    kernel, stride = ("x".join(map(str, pair)) for pair in (layer.kernel_size, layer.stride))
    return f"{kind} {layer.in_channels} to {layer.out_channels}, {kernel}, stride {stride}"


def _print_layers(size: Size) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in size.kinds.most_common())
    console.print(f"\n{size.parameters:,} parameters, {size.tflop:.3g} TFLOP for a {SIDE}x{SIDE} image: {kinds}\n")
    rows = ((layer.name, layer.what, layer.output, f"{layer.parameters:,}") for layer in size.layers)
    print_table(("layer", "what", "output", "parameters"), rows, right=("output", "parameters"))


def _print_options(table: Registry[Any], name: str) -> None:
    """A builder's options; of a preset, which has none, its values."""
    if table is PRESETS:
        preset = table.create(name)
        rows = [(field.name, str(getattr(preset, field.name))) for field in dataclasses.fields(preset)]
        print_table(("field", "value"), rows)
        return
    options = table.options(name)
    if not options:
        console.print("It has no options.")
        return
    hints = typing.get_type_hints(table[name] if inspect.isfunction(table[name]) else table[name].__init__)
    rows = []
    for option in options.values():
        default = "needed" if option.default is option.empty else repr(option.default)
        rows.append((option.name, default, _spelled(hints.get(option.name, Any))))
    print_table(("option", "default", "type"), rows)


def _spelled(annotation: Any) -> str:
    """A type as a reader writes it."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return ", ".join(_spelled(part) for part in inner)
    if origin is not None and getattr(origin, "__name__", "") == "Callable":
        return "a function"
    return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _documentation(builder: Any) -> str:
    return (inspect.getdoc(builder) or "").replace("``", "")
