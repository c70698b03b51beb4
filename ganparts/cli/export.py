"""``ganparts export``: a generator for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ganparts.cli.app import Imports, app, console, import_parts
from ganparts.interchange import export_generator, from_pretrained

__all__ = ["export"]


@app.command
def export(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    fp16: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    imports: Imports = (),
) -> int:
    """Write a generator as ONNX (.onnx) or for PyTorch without ganparts (.pt2).

    Batch, height and width stay free. What is written is run on several sizes first, and discarded if it differs from
    PyTorch. Example: ganparts export runs/first/generator monet.onnx

    Args:
        model: pretrained folder, or owner/model on the Hugging Face Hub.
        out: file to write, ending in .onnx or .pt2.
        fp16: weights and computations in 16 bits, for GPUs: half the size; ONNX only.
        imports: modules to import first, which register parts of your own (PYTHONPATH).
    """
    import_parts(imports)
    generator = from_pretrained(model)
    kind, name, _ = vars(generator)["built_from"]
    if kind != "generator":
        raise ValueError(f"{model} holds the {kind} {name}, and what is exported is a generator")
    difference = export_generator(generator, out, half=fp16)
    console.print(f"{out}: {name}, {out.stat().st_size / 2**20:.1f} MiB")
    console.print(f"The greatest difference from PyTorch, on several sizes, is {difference:.1g} of [-1, 1].")
    return 0
