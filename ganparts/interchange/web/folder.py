"""The folder of static files that ``ganparts export --web`` writes."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from ganparts.adversarial.memory import peak_bytes
from ganparts.data import to_bytes, to_unit_range
from ganparts.interchange.export import export_generator
from ganparts.interchange.onnx import OnnxGenerator, load_onnx
from ganparts.interchange.web.runtime import copied, fetched

__all__ = ["export_web", "trial_picture"]

_STATIC = ("style.css", "page.js", "worker.js")
_MARK = '<meta name="generator" content="ganparts">'
_SIDE = 64  # pixels of the trial picture, where the generator takes that
_COMPARED = 4096  # values of its painting that the page compares


@torch.no_grad()
def export_web(
    generator: nn.Module,
    folder: Path | str,
    *,
    name: str = "model",
    title: str = "Photo to painting",
    megapixels: float = 1.0,
    runtime: Path | str | None = None,
) -> float:
    """Write a web page that translates photos in the visitor's browser; no photo leaves it.

    The folder holds static files for any web server: the page, and the generator as ONNX. ONNX Runtime Web computes,
    with WebGPU where the browser has it, else with WebAssembly. A photo goes through the generator whole, since norms
    see the whole picture; one that is too large is made smaller, and the page says so. Before its first photo the page
    paints a trial picture and compares it with PyTorch's painting, which is in the page.

    Args:
        generator: as :func:`~ganparts.interchange.export_generator` takes it, of 3 channels.
        folder: made if it is not there. A page written before is replaced.
        name: of the model, as the page and its downloads call it.
        title: of the page.
        megapixels: larger photos are made smaller, unless the visitor chooses otherwise.
        runtime: a folder with the npm package ``onnxruntime-web``, whose files are copied; the page then asks no other
            server. None: the page loads them from a content network, and checks their hashes.

    Returns:
        The greatest difference of a value between the ONNX file and PyTorch, on several sizes.

    Raises:
        ValueError: as ``export_generator``; other than 3 channels; ``megapixels`` is not positive; or the folder holds
            another page.
        FileNotFoundError: ``runtime`` lacks a file.
        ImportError: the packages of ``ganparts[onnx]`` are not installed.
        RuntimeError: PyTorch cannot export this generator.
    """
    folder = Path(folder)
    if not 0 < megapixels < math.inf:
        raise ValueError(f"megapixels={megapixels}: the largest photo has more than 0")
    if (channels := getattr(generator, "in_channels", 3)) != 3:
        raise ValueError(f"the page shows colour photos, and this {type(generator).__name__} takes {channels} channels")
    index = folder / "index.html"
    if index.exists() and _MARK not in index.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{index} is a page that ganparts did not write: choose another folder")
    with _in_place(folder) as partial:
        made = Path(partial)
        difference = export_generator(generator, made / "model.onnx")
        settings = {
            "name": name,
            "model": {"name": "model.onnx", "bytes": (made / "model.onnx").stat().st_size},
            "pixels": round(megapixels * 1e6),
            **_numbers(generator, load_onnx(made / "model.onnx")),
            "runtime": fetched() if runtime is None else copied(Path(runtime), made),
        }
        for each in _STATIC:
            (made / each).write_text(_static(each), encoding="utf-8")
        (made / "index.html").write_text(_page(settings, name=name, title=title), encoding="utf-8")
        for path in sorted(made.rglob("*")):
            to = folder / path.relative_to(made)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                os.replace(path, to)
    return difference


@contextmanager
def _in_place(folder: Path) -> Iterator[str]:
    """A temporary folder in ``folder``, since beside it may be another disk. If this fails, no empty folder is left."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as partial:
            yield partial
    finally:
        with suppress(OSError):
            folder.rmdir()  # if it is empty


def trial_picture(height: int, width: int) -> Tensor:
    """A picture that the page can make too: uint8 [3, H, W]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(7 * x + 13 * y + 29 * channel + 5 * (x * y // 8)) % 256 for channel in range(3)]).byte()


def _numbers(generator: nn.Module, exported: OnnxGenerator) -> dict[str, Any]:
    """What the exported generator takes, and what the generator needs, and makes of the trial picture.

    Raises:
        ValueError: it does not give a picture of 3 channels.
    """
    network = copy.deepcopy(generator).cpu().float().eval()
    multiple, least = exported.size_multiple, exported.min_size
    side = math.ceil(max(least, _SIDE) / multiple) * multiple
    images = to_unit_range(trial_picture(side, side))[None]
    paintings: list[Tensor] = []
    need = peak_bytes(lambda: paintings.append(network(images)))
    painting = to_bytes(paintings[0])
    if painting.shape != images.shape:
        raise ValueError(
            f"the page shows pictures of 3 channels and the photo's size, but this {type(generator).__name__} makes "
            f"{list(painting.shape[1:])} of {list(images.shape[1:])}"
        )
    values = painting.flatten()
    every = math.ceil(len(values) / _COMPARED)
    compared = base64.b64encode(values[::every].numpy().tobytes()).decode()
    return {
        "multiple": multiple,
        "least": least,
        "bytesPerPixel": math.ceil(need / side**2),
        "check": {"side": side, "every": every, "values": compared},
    }


def _page(settings: dict[str, Any], *, name: str, title: str) -> str:
    servers = {
        f"{each.scheme}://{each.netloc}" for each in map(urlsplit, settings["runtime"]["folders"]) if each.netloc
    }
    asked = " ".join(["'self'", *sorted(servers)])
    data = json.dumps(settings, allow_nan=False).replace("<", "\\u003c")  # no </script>, no <!--
    version = hashlib.sha256("".join(map(_static, _STATIC)).encode()).hexdigest()[:12]  # so that caches notice changes
    return Template(_static("index.html")).substitute(
        mark=_MARK, servers=asked, title=html.escape(title), name=html.escape(name), settings=data, version=version
    )


def _static(name: str) -> str:
    return (files("ganparts.interchange.web") / "static" / name).read_text(encoding="utf-8")
