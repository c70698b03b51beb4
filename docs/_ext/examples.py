"""A short example of each part for the catalogue, with its result: it runs when the site is built."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ganparts
from ganparts import ADVERSARIAL_LOSSES, DISCRIMINATORS, PENALTIES
from ganparts.registry import Registry

__all__ = ["example"]

_TABLES = {name: table for name, table in vars(ganparts).items() if isinstance(table, Registry)}
_FETCHED = ("alexnet", "lpips", "vgg16")
"""Parts whose weights would be downloaded."""
_CODE = {
    "ADVERSARIAL_LOSSES": """
        loss = {table}.create("{name}")
        real, fake = torch.full((1, {objectives}, 8, 8), 0.5), torch.full((1, {objectives}, 8, 8), -0.5)
        loss.discriminator(real, fake)
        loss.generator(fake, real)""",
    "AUGMENTATIONS": """
        augment = {table}.create("{name}")
        augment(torch.rand(2, 3, 64, 64) * 2 - 1).shape""",
    "BACKBONES": """
        backbone = {table}.create("{name}")
        [list(features.shape) for features in backbone(torch.rand(1, 3, 256, 256) * 2 - 1)]""",
    "CONSISTENCY_LOSSES": """
        loss = {table}.create("{name}")
        loss(torch.zeros(1, 3, 256, 256), torch.full((1, 3, 256, 256), 0.5))""",
    "PENALTIES": """
        penalty = {table}.create("{name}")
        real, fake = torch.rand(2, 2, 3, 32, 32) * 2 - 1
        penalty(DISCRIMINATORS.create("pixel"), real, fake)""",
    "REPLAY_BUFFERS": """
        buffer = {table}.create("{name}")
        buffer(torch.rand(2, 3, 64, 64) * 2 - 1).shape""",
}


def example(table: Registry[Any], name: str, known: dict[str, Any] | None = None) -> str:
    """Code that uses a part, and after each expression its value.

    There is nothing for a part that must be given an option, or whose weights would be downloaded.

    Args:
        table: the part's.
        name: of the part.
        known: a network's measured facts, which stand in for running it again.
    """
    kind = next((each for each, known_table in _TABLES.items() if known_table is table), None)
    if known is not None:
        shapes = [[1, *shape] for shape in known["structure"][2]] if table is DISCRIMINATORS else None
        return _network(kind, name, known["side"], shapes)
    if kind not in _CODE or name in _FETCHED or _needs_options(table, name):
        return ""
    objectives = len(getattr(table.create(name), "losses", [None])) if table is ADVERSARIAL_LOSSES else 1
    code = _CODE[kind].format(table=kind, name=name, objectives=objectives)
    lines = _run([line.strip() for line in code.strip().splitlines()])
    tables = [kind, *(["DISCRIMINATORS"] if table is PENALTIES else [])]
    return _block(["import torch", f"from ganparts import {', '.join(sorted(tables))}", "", *lines])


def _needs_options(table: Registry[Any], name: str) -> bool:
    return any(option.default is option.empty for option in table.options(name).values())


def _network(kind: str | None, name: str, side: int, logits: list[list[int]] | None) -> str:
    made = ["import torch", f"from ganparts import {kind}", ""]
    made += [f'network = {kind}.create("{name}")', f"images = torch.rand(1, 3, {side}, {side}) * 2 - 1"]
    if logits is None or len(logits) == 1:
        return _block([*made, "network(images).shape", f"# {torch.Size(logits[0] if logits else (1, 3, side, side))}"])
    return _block([*made, "[list(logits.shape) for logits in network(images)]", f"# {logits}"])


def _run(lines: list[str]) -> list[str]:
    """The lines; one that is an expression is followed by its value."""
    names: dict[str, Any] = {"torch": torch} | _TABLES
    torch.manual_seed(0)
    shown = []
    for line in lines:
        try:
            value = eval(line, names)
        except SyntaxError:
            exec(line, names)
            shown.append(line)
        else:
            shown += [line, f"# {_short(value)}"]
    return shown


def _short(value: Any) -> str:
    return f"{value.item():.4g}" if isinstance(value, Tensor) else str(value)


def _block(lines: list[str]) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"
