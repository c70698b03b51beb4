"""A trained generator for other programs: ONNX (``.onnx``) or PyTorch without our code (``.pt2``).

Batch, height and width stay free. What was written is run on several sizes and compared with the generator before it
gets its name.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ganparts.blocks import size_limits
from ganparts.interchange.onnx import load_onnx, write_onnx

__all__ = ["export_generator", "export_sizes"]

TOLERANCE = 1e-4  # of values in [-1, 1]
HALF_TOLERANCE = 2e-2  # two and a half of 256 steps of a picture
_TRIED_ONE_BY_ONE, _LARGEST_TRIED = 16, 512  # sizes, in multiples and in pixels, when the least one is looked for


@torch.no_grad()
def export_generator(generator: nn.Module, path: Path | str, *, half: bool = False) -> float:
    """Write a generator to ``path``, if it computes there what it computes here.

    Args:
        generator: any module from images to images of the same size; it is exported in ``eval()`` mode, in float32.
            Its attributes tell what it takes: height and width are multiples of ``size_multiple`` (1 if it has none)
            and at least ``min_size`` (``size_multiple``), and it takes ``in_channels`` (3). A size that the generator
            itself refuses is too small: the least size is the first that it takes, and the file says so.
        path: ending in ``.onnx``, to be read by :func:`load_onnx` and other programs, or in ``.pt2``, for
            ``torch.export.load(path).module()``.
        half: ONNX only: weights and computations in 16 bits, images in 32; half the size, for GPUs.

    Returns:
        The greatest difference of a value, on several sizes, between what was written and PyTorch.

    Raises:
        ValueError: another ending, or a generator whose ``exportable`` is False; or they differ by more than 1e-4 (0.02
            in 16 bits) and by more than 4 times what PyTorch's own rounding makes of it, and nothing is written.
        ImportError: the packages of ``ganparts[onnx]`` are not installed.
        RuntimeError: PyTorch cannot export this generator, or the generator fails on every size.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"{path} ends neither in .onnx nor in .pt2: choose one")
    if half and path.suffix == ".pt2":
        raise ValueError(f"16 bits are for ONNX, and {path} is for PyTorch: export it whole")
    if not getattr(generator, "exportable", True):
        raise ValueError(
            f"this {type(generator).__name__} says that it cannot be exported (exportable=False), as one whose weights "
            "are made for images of one size: train one that takes all sizes, or keep it as a pretrained folder"
        )
    generator = copy.deepcopy(generator).cpu().float().eval()
    if (least := _least_size(generator)) != size_limits(generator)[1]:
        generator.min_size = least  # pyright: ignore[reportArgumentType]
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet():
            program = _program(generator, half=half)
            if path.suffix == ".onnx":
                write_onnx(program, partial, metadata=_metadata(generator))
                written: Callable[[Tensor], Tensor] = load_onnx(partial)
            else:
                torch.export.save(program, str(partial))
                written = torch.export.load(str(partial)).module()
        difference = _difference(generator, written, half=half)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def export_sizes(generator: nn.Module, *, half: bool = False) -> list[tuple[int, int, int]]:
    """Batches, heights and widths that an export is run on: the smallest, and others that vary each of the three.

    In 16 bits the smallest is 64: a norm over a few pixels enlarges any rounding.
    """
    multiple, allowed = size_limits(generator)
    smallest, least = (math.ceil(max(allowed, side) / multiple) * multiple for side in ((64, 64) if half else (1, 16)))
    return [(1, smallest, smallest), (2, least, least + multiple), (1, least + 2 * multiple, least)]


class _Half(nn.Module):
    """A network that computes in 16 bits, of images in 32."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.half()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.half()).float()


def _program(generator: nn.Module, *, half: bool) -> torch.export.ExportedProgram:
    """The generator as PyTorch's graph, its batch, height and width free."""
    multiple, least = size_limits(generator)
    side = math.ceil(max(least, 2 * multiple, 16) / multiple)  # 1 would be taken for a constant
    shape = (2, _channels(generator), side * multiple, (side + 1) * multiple)
    units = [torch.export.Dim(name, min=math.ceil(least / multiple)) for name in ("height", "width")]
    height, width = units if multiple == 1 else (multiple * unit for unit in units)
    free = {0: torch.export.Dim("batch"), 2: height, 3: width}
    try:
        network = _Half(copy.deepcopy(generator)) if half else generator
        program = torch.export.export(network, (torch.zeros(shape),), dynamic_shapes=(free,), strict=False)
    except Exception as error:  # of many kinds, and each of many lines
        reason = " ".join(str(error).split())[:300]
        raise RuntimeError(f"PyTorch cannot export this {type(generator).__name__}: {reason}") from error
    # PyTorch forbids sizes at which it would have traced otherwise, 1x1 bottlenecks among them; the check below decides
    if hasattr(program, "_guards_code"):
        program._guards_code = []
    return program


def _channels(generator: nn.Module) -> int:
    return getattr(generator, "in_channels", 3)


def _least_size(generator: nn.Module) -> int:
    """The first multiple of ``size_multiple`` from ``min_size`` on that the generator takes.

    Raises:
        RuntimeError: it takes none of those that were tried.
    """
    multiple, least = size_limits(generator)
    first = math.ceil(least / multiple)
    reason = ""
    for units in (*range(first, first + _TRIED_ONE_BY_ONE), *(first * 2**power for power in range(4, 8))):
        side = units * multiple
        if side > max(_LARGEST_TRIED, first * multiple):
            break
        try:
            generator(torch.zeros(1, _channels(generator), side, side))
        except Exception as error:  # whatever a part raises on an image that is too small
            reason = reason or f"{side} x {side}: {' '.join(str(error).split())[:300]}"
        else:
            return least if units == first else side
    raise RuntimeError(
        f"this {type(generator).__name__} fails on images of each size that was tried, the first of {reason}. If it "
        "takes only some sizes, give it the attributes size_multiple and min_size"
    )


def _metadata(generator: nn.Module) -> dict[str, str]:
    """What :func:`load_onnx` reads, and what the file is."""
    numbers = dict(zip(("size_multiple", "min_size"), map(str, size_limits(generator)), strict=True))
    built_from = getattr(generator, "built_from", None)
    return numbers | {"range": "[-1, 1]"} | ({} if built_from is None else {"part": built_from[1]})


def _difference(generator: nn.Module, written: Callable[[Tensor], Tensor], *, half: bool) -> float:
    """The greatest on all sizes.

    Raises:
        ValueError: it is more than the limit, or no number.
    """
    greatest, limit = 0.0, HALF_TOLERANCE if half else TOLERANCE
    random = torch.Generator().manual_seed(0)
    for batch, height, width in export_sizes(generator, half=half):
        images = torch.rand(batch, _channels(generator), height, width, generator=random) * 2 - 1
        try:
            difference = float((written(images) - generator(images)).abs().max())
        except Exception as error:  # whatever another program raises
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"what was exported fails on {batch} images of {height}x{width}: {reason}") from error
        if not difference <= limit and not difference <= _own_rounding(generator, images):
            raise ValueError(
                f"what was exported differs from PyTorch by {difference:.2g} on {batch} images of {height}x{width}, "
                f"more than {limit:g}, so it was not written"
            )
        greatest = max(greatest, difference)
    return greatest


def _own_rounding(generator: nn.Module, images: Tensor) -> float:
    """4 times the error that 32 bits make in PyTorch itself, but no more than the limit of 16 bits.

    Norms over a few pixels enlarge any rounding: the coarsest map of a small image may have 4.
    """
    exact = copy.deepcopy(generator).double()(images.double())
    return min(4 * float((generator(images) - exact).abs().max()), HALF_TOLERANCE)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of themselves; what counts is the comparison."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
