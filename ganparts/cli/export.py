"""``ganparts export``: a generator for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import nn

from ganparts.blocks import size_limits
from ganparts.cli.app import Imports, app, console, import_parts
from ganparts.cli.demo import name_models
from ganparts.data import open_images, resize_square, to_unit_range
from ganparts.interchange import export_generator, export_web, from_pretrained, quantize_generator

__all__ = ["export"]

_SIDE, _MOST_PHOTOS = 256, 40  # that 8 bits are fitted to


@app.command
def export(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    fp16: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    int8: Path | None = None,
    web: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    title: str | None = None,
    megapixels: float | None = None,
    runtime: Path | None = None,
    imports: Imports = (),
) -> int:
    """Write a generator as ONNX (.onnx), for PyTorch without ganparts (.pt2), or as a web page (--web).

    Batch, height and width stay free. What is written is run on several sizes first, and discarded if it differs from
    PyTorch. Examples: ganparts export runs/first monet.onnx; ganparts export runs/first page/ --web

    Args:
        model: Run folder, pretrained folder, painter's name, or owner/model on the Hugging Face Hub.
        out: File to write, ending in .onnx or .pt2; with --web a folder.
        fp16: Weights and computations in 16 bits, for GPUs: half the size; ONNX only.
        int8: Folder of photos, 8 or more: convolutions in 8 bits (transposed ones aside), for CPUs, if these photos'
            paintings stay the same; ONNX only.
        web: Write a folder of static files, a page that paints photos in the browser and uploads none.
        title: With --web: the page's. None: Photo to painting.
        megapixels: With --web: larger photos are made smaller, unless the visitor chooses otherwise. None: 1.
        runtime: With --web: folder with the npm package onnxruntime-web, to be copied. None: the page loads it from a
            content network (jsDelivr, or unpkg) and checks its hash.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    import_parts(imports)
    generator = from_pretrained(model, kind="generator")
    if web:
        return _web(generator, model, out, fp16 or int8 is not None, _given(title, megapixels, runtime))
    if given := _given(title, megapixels, runtime):
        raise ValueError(f"--{next(iter(given))} is for a page: give --web too, and a folder to write")
    if int8 is not None:
        return _quantize(generator, out, int8, fp16)
    difference = export_generator(generator, out, half=fp16)
    _, name, _ = vars(generator)["built_from"]
    console.print(f"{out}: {name}, {out.stat().st_size / 2**20:.1f} MiB")
    console.print(f"The greatest difference from PyTorch, on several sizes, is {difference:.1g} of [-1, 1].")
    return 0


def _quantize(generator: nn.Module, out: Path, photos: Path, fp16: bool) -> int:
    if fp16:
        raise ValueError("--fp16 and --int8 exclude each other: GPUs are faster with one, CPUs with the other")
    images = open_images(photos, skip_unreadable=True)  # a few fewer are enough to fit to
    multiple, _ = size_limits(generator)
    side = -(-_SIDE // multiple) * multiple
    chosen = [to_unit_range(resize_square(image, side)) for _, image in images.readable(_MOST_PHOTOS)]
    psnr, speedup = quantize_generator(generator, out, chosen)
    console.print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, {speedup:.2f} times as fast here as in 32 bits")
    console.print(f"The paintings' PSNR to those in 32 bits is {psnr:.1f} dB.")
    return 0


def _given(title: str | None, megapixels: float | None, runtime: Path | None) -> dict[str, Any]:
    options = {"title": title, "megapixels": megapixels, "runtime": runtime}
    return {name: value for name, value in options.items() if value is not None}


def _web(generator: nn.Module, model: str, folder: Path, smaller: bool, options: dict[str, Any]) -> int:
    if smaller:
        raise ValueError("--web excludes --fp16 and --int8: browsers compute a page's model in 32 bits")
    if folder.suffix in (".onnx", ".pt2", ".html"):
        raise ValueError(f"--web writes a folder, and {folder} is called like a file: give a folder")
    difference = export_web(generator, folder, name=next(iter(name_models([model]))), **options)
    console.print(
        f"{folder}: a page; the greatest difference of its model from PyTorch is {difference:.1g} of [-1, 1]."
    )
    console.print(f"Try it: python -m http.server -d {folder} 8000, and open http://localhost:8000")
    return 0
