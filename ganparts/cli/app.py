"""What all commands share: the application that they register with, how they print, and how they find a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn
from tyro.extras import SubcommandApp

from ganparts.training import import_parts

__all__ = ["Imports", "app", "console", "import_parts", "load_generator", "print_table"]

Imports = Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE ...")]
"""The option of all commands that find parts by name."""

app = SubcommandApp()
console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def load_generator(model: str, *, device: torch.device) -> nn.Module:
    """A trained generator: images [B, 3, H, W] in [-1, 1] to images of the same size.

    It has ``size_multiple`` and ``min_size``, as a network may.

    Args:
        model: an ``.onnx`` file of ``ganparts export``, or what
            :func:`~ganparts.pretrained.find_pretrained` takes: a pretrained folder, a run folder, a painter's name, a
            name on the Hugging Face Hub.
        device: on which it computes; an ONNX file does so where onnxruntime does.

    Raises:
        FileNotFoundError: there is no such folder, or it lacks a file.
        OSError: it is not on the Hub either.
        ValueError: as :func:`~ganparts.interchange.from_pretrained`, or it holds no generator.
    """
    from ganparts.interchange import from_pretrained, load_onnx

    if model.endswith(".onnx"):
        return load_onnx(model)
    return from_pretrained(model, device=str(device), kind="generator")


def print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, right: Iterable[str] = ()) -> None:
    """A table without borders; the columns called in ``right`` end at their right."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*row)
    pipe = Console(width=400, highlight=False, markup=False, emoji=False)  # a line a row
    (console if console.is_terminal else pipe).print(table)
