"""``ganparts list`` and ``ganparts show``: what parts and painters there are, and what one of the parts is."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from typing import Annotated, Any, Literal

import tyro

from ganparts.cli.app import Imports, app, console, import_parts, print_table
from ganparts.interchange.costs import NETWORKS, Costs, PartRow, choice_in_words, documentation_of, measure, part_rows
from ganparts.interchange.costs import TABLES as CORE_TABLES
from ganparts.metrics import FEATURE_EXTRACTORS
from ganparts.pretrained import Painter, list_painters
from ganparts.registry import PRESETS, Registry, UnknownPartError

__all__ = ["NETWORKS", "TABLES", "list_parts", "measure", "show"]

TABLES: tuple[Registry[Any], ...] = (*CORE_TABLES, FEATURE_EXTRACTORS)


@app.command(name="list")
def list_parts(
    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*",
    imports: Imports = (),
) -> int:
    """List all parts, or those whose names match a pattern.

    For networks it also shows the number of parameters, the operations of a forward pass of one 256x256 image, the MiB
    that this pass keeps for backward, the image sizes that they take and their paper on arXiv. For generators it shows
    whether they translate large pictures in tiles (t) and whether they can be exported (e).
    Examples: ganparts list "*unet*"; ganparts list painters

    Args:
        pattern: Pattern of the names to list, as the shell's; or painters, for the trained generators that have a name.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    if pattern == "painters":
        return _list_painters()
    import_parts(imports)
    rows = part_rows(pattern, tables=TABLES)
    if not rows:
        raise UnknownPartError(f"no part has a name like {pattern!r}: ganparts list, by itself, shows all")
    columns = ("name", "kind", "parameters", "TFLOP", "kept MiB", "sizes", "arXiv", "can", "what")
    print_table(columns, map(_cells, rows), right=("parameters", "TFLOP", "kept MiB"))
    return 0


_SHOWN_SCORES = ("KID", "KID relative to the photos'", "content: SSIM")  # the card has all


def _list_painters() -> int:
    painters = list_painters().values()
    if not painters:
        console.print("There are no painters yet.")
        return 0
    print_table(_PAINTER_COLUMNS, map(_painter_cells, painters), right=("MiB",))
    return 0


_PAINTER_COLUMNS = ("name", "MiB", "licence", "where", "what", "data", "scores")


def _painter_cells(painter: Painter) -> tuple[str, ...]:
    scores = ", ".join(f"{score} {painter.scores[score]}" for score in _SHOWN_SCORES if score in painter.scores)
    size = f"{painter.size / 2**20:.1f}"
    return painter.name, size, painter.license, painter.address or "here", painter.title, painter.data, scores


def _cells(row: PartRow) -> tuple[str, ...]:
    costs = row.costs
    if costs is None:
        return row.name, row.kind, "", "", "", "", row.paper, "", row.what
    numbers = (f"{costs.parameters:,}", f"{costs.tflop:.3g}", f"{costs.kept / 2**20:.0f}")
    can = " ".join(letter for letter, able in (("t", costs.tileable), ("e", costs.exportable)) if able)
    return row.name, row.kind, *numbers, costs.sizes, row.paper, can, row.what


@app.command
def show(
    part: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PART")],
    imports: Imports = (),
) -> int:
    """Show one part: what it is, its options, and a network's layers; or a painter.

    Example: ganparts show resnet9

    Args:
        part: Name of a part or a painter; if several kinds have it, all are shown.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    import_parts(imports)
    tables, painters = [table for table in TABLES if part in table], list_painters()
    if not tables and part not in painters:
        names = [*painters, *(name for table in TABLES for name in table)]
        near = difflib.get_close_matches(part, names, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownPartError(
            f"there is no part named {part!r}{hint}: ganparts list shows all; parts of your own need --imports MODULE"
        )
    for place, table in enumerate(tables):
        console.print(f"{'' if place == 0 else chr(10)}{table.kind} {part}\n\n{documentation_of(table[part])}\n")
        _print_options(table, part)
        size = measure(table, part)
        if size is not None:
            _print_layers(size)
    if part in painters:
        console.print(f"{chr(10) if tables else ''}painter {part}: ganparts translate {part} photo.jpg -o paintings\n")
        print_table(("field", "value"), zip(_PAINTER_COLUMNS[1:], _painter_cells(painters[part])[1:], strict=True))
    return 0


def _print_layers(size: Costs) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in size.kinds.most_common())
    side = f"{size.side}x{size.side}"
    console.print(f"\n{size.parameters:,} parameters, {size.tflop:.3g} TFLOP for a {side} image: {kinds}")
    console.print(f"A forward pass of it keeps {size.kept / 2**20:.0f} MiB for backward, in 32 bits.")
    abilities = {"in tiles": size.tileable, "exported": size.exportable}
    told = ", ".join(f"{name}: {'yes' if able else 'no'}" for name, able in abilities.items() if able is not None)
    console.print(f"Sizes: {size.sizes}{f'; {told}' if told else ''}\n")
    rows = ((layer.name, layer.what, layer.output, f"{layer.parameters:,}") for layer in size.layers)
    print_table(("layer", "what", "output", "parameters"), rows, right=("output", "parameters"))


def _print_options(table: Registry[Any], name: str) -> None:
    """A builder's options; of a preset, which has none, its values."""
    if table is PRESETS:
        preset = table.create(name)
        rows = [(field.name, choice_in_words(getattr(preset, field.name))) for field in dataclasses.fields(preset)]
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
