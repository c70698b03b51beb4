"""``ganparts export``: a generator for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from torch import nn

from ganparts.cli.app import Imports, app, console, import_parts
from ganparts.data import open_images, resize_square, to_unit_range
from ganparts.interchange import export_generator, from_pretrained, quantize_generator

__all__ = ["export"]

_SIDE, _MOST_PHOTOS = 256, 40  # that 8 bits are fitted to


@app.command
def export(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    fp16: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    int8: Path | None = None,
    imports: Imports = (),
) -> int:
    """Write a generator as ONNX (.onnx) or for PyTorch without ganparts (.pt2).

    Batch, height and width stay free. What is written is run on several sizes first, and discarded if it differs from
    PyTorch. Example: ganparts export runs/first monet.onnx

    Args:
        model: Run folder, pretrained folder, painter's name, or owner/model on the Hugging Face Hub.
        out: File to write, ending in .onnx or .pt2.
        fp16: Weights and computations in 16 bits, for GPUs: half the size; ONNX only.
        int8: Folder of photos, 8 or more: convolutions in 8 bits (transposed ones aside), for CPUs, if these photos'
            paintings stay the same; ONNX only.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    import_parts(imports)
    generator = from_pretrained(model)
    kind, name, _ = vars(generator)["built_from"]
    if kind != "generator":
        raise ValueError(f"{model} holds the {kind} {name}, and what is exported is a generator")
    if int8 is not None:
        return _quantize(generator, out, int8, fp16)
    difference = export_generator(generator, out, half=fp16)
    console.print(f"{out}: {name}, {out.stat().st_size / 2**20:.1f} MiB")
    console.print(f"The greatest difference from PyTorch, on several sizes, is {difference:.1g} of [-1, 1].")
    return 0


def _quantize(generator: nn.Module, out: Path, photos: Path, fp16: bool) -> int:
    if fp16:
        raise ValueError("--fp16 and --int8 exclude each other: GPUs are faster with one, CPUs with the other")
    images = open_images(photos)
    multiple = getattr(generator, "size_multiple", 1)
    side = -(-_SIDE // multiple) * multiple
    chosen = [to_unit_range(resize_square(image, side)) for _, image in images.readable(_MOST_PHOTOS)]
    psnr, speedup = quantize_generator(generator, out, chosen)
    console.print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, {speedup:.2f} times as fast here as in 32 bits")
    console.print(f"The paintings' PSNR to those in 32 bits is {psnr:.1f} dB.")
    return 0
