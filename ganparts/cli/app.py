"""What all commands share: the application that they register with, and how they print."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from tyro.extras import SubcommandApp

__all__ = ["Imports", "app", "console", "import_parts", "print_table"]

Imports = Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE ...")]
"""The option of all commands that find parts by name."""

app = SubcommandApp()
console = Console(highlight=False, markup=False, soft_wrap=True)


def import_parts(modules: Iterable[str]) -> None:
    """Import modules, which register parts of their own."""
    for module in modules:
        importlib.import_module(module)


def print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, right: Iterable[str] = ()) -> None:
    """A table without borders; the columns called in ``right`` end at their right."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*row)
    wide = console if console.is_terminal else Console(width=400, highlight=False, markup=False)  # a pipe: a line a row
    wide.print(table)
