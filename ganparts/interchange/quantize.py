"""Generators in 8 bits, as ONNX, for CPUs: smaller and faster, if their pictures stay the same.

Weights of convolutions, and what flows into and out of them, become 8-bit integers with a scale of their own, found by
running photos (Jacob et al. 2018, arXiv 1712.05877); onnxruntime does it. Transposed convolutions stay in 32 bits:
onnxruntime has them in no other on a CPU.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganparts.blocks import check_images
from ganparts.interchange.export import export_generator
from ganparts.interchange.onnx import load_onnx

__all__ = ["Quantized", "quantize_generator"]

LEAST_PSNR = 35.0  # dB; a person sees no difference
_LEAST_PHOTOS = 8
_ROUNDS = 5


class Quantized(NamedTuple):
    """What 8 bits cost and gain."""

    psnr: float
    """Peak signal-to-noise ratio of the paintings to those in 32 bits, in dB, over photos that set no scale."""
    speedup: float
    """How many times as fast as the ONNX file in 32 bits it is, on this machine."""


@torch.no_grad()
def quantize_generator(generator: nn.Module, path: Path | str, photos: Sequence[Tensor]) -> Quantized:
    """Write a generator to ``path`` with convolutions in 8 bits, if its paintings stay the same.

    Args:
        generator: as :func:`export_generator` takes it.
        path: ending in ``.onnx``.
        photos: at least eight of the kind that it will translate, float [3, H, W] in [-1, 1], all of one size that the
            generator takes. Three of four set the scales; the others are painted and compared.

    Raises:
        ValueError: another ending; photos that are too few, of several sizes, or not what the generator takes; or a
            PSNR below 35 dB; and nothing is written.
        ImportError: the packages of ``ganparts[onnx]`` are not installed.
        RuntimeError: PyTorch cannot export this generator.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"8 bits are for ONNX, and {path} does not end in .onnx")
    if len(photos) < _LEAST_PHOTOS:
        raise ValueError(f"{len(photos)} photos: 8 bits need at least {_LEAST_PHOTOS}, which set their scales")
    if len({photo.shape for photo in photos}) > 1 or not all(photo.isfinite().all() for photo in photos):
        raise ValueError("photos that set the scales of 8 bits are all of one size, and their values are finite")
    check_images(photos[0][None], generator)
    batches = [photo[None] for photo in photos]
    tried = batches[::4]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        whole, small = Path(folder) / "whole.onnx", Path(folder) / "small.onnx"
        export_generator(generator, whole)
        with _quiet():
            _quantize(whole, small, [batch for place, batch in enumerate(batches) if place % 4])
        exact, quantized = load_onnx(whole), load_onnx(small)
        error = statistics.fmean(float((quantized(batch) - exact(batch)).square().mean()) for batch in tried)
        psnr = 10 * math.log10(4 / max(error, 1e-12))  # of a range of 2
        if not psnr >= LEAST_PSNR:  # or no number
            raise ValueError(
                f"in 8 bits the paintings are others: their PSNR to those in 32 bits is {psnr:.1f} dB, less than "
                f"{LEAST_PSNR:g}, so {path} was not written; export it without --int8"
            )
        speedup = _speedup(exact, quantized, tried[0])
        os.replace(small, path)
    return Quantized(psnr, speedup)


def _quantize(whole: Path, small: Path, batches: Sequence[Tensor]) -> None:
    """All convolutions but the first and the last, which see and make the picture itself, and transposed ones."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> Any:  # a dict, or None at the end
            batch = next(self.left, None)
            return None if batch is None else {"images": batch.numpy()}

    prepared = whole.with_name("prepared.onnx")
    quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
    convolutions = [node.name for node in onnx.load(str(prepared)).graph.node if "Conv" in node.op_type]
    quantization.quantize_static(
        str(prepared),
        str(small),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=[*convolutions[:1], *convolutions[-1:]],
    )


def _speedup(exact: Callable[[Tensor], Tensor], quantized: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """The median of pairs that take turns."""
    ratios = []
    for _ in range(_ROUNDS):
        seconds = []
        for run in (exact, quantized):
            start = time.perf_counter()
            run(images)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice, which it logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
