"""Sample grids: the same photos at every stage of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ganparts.blocks import evaluating
from ganparts.data import resize_square, to_bytes, to_unit_range
from ganparts.disk import replace_file

__all__ = ["fetch_later", "paint_grid", "sample_photos", "save_grid"]


def sample_photos(images: Sequence[Tensor], *, count: int, size: int) -> Tensor:
    """``count`` images, evenly spread, their middle squares resized to ``size`` (bicubic).

    Returns:
        float [count, 3, size, size] in [-1, 1].
    """
    chosen = [images[i * len(images) // count] for i in range(min(count, len(images)))]
    return to_unit_range(torch.stack([resize_square(image, size) for image in chosen]))


@torch.inference_mode()
def paint_grid(photos: Tensor, stages: Sequence[nn.Module]) -> Tensor:
    """A column a photo: the photo, then what each stage makes of the row above it.

    Args:
        photos: float [N, 3, H, W] in [-1, 1], on the stages' device.
        stages: for instance (generator_ab, generator_ba): painting of it, and photo again. They are put in
            ``eval()`` mode (no dropout) while they work.

    Returns:
        uint8 [3, height, width], on the device.
    """
    from torchvision.utils import make_grid

    rows = [photos]
    for stage in stages:
        with evaluating(stage):
            rows.append(stage(rows[-1]))
    return make_grid(to_bytes(torch.cat(rows)), nrow=len(photos), padding=4, pad_value=255)


def save_grid(path: Path, grid: Tensor) -> None:
    """Write a grid, uint8 [3, height, width], as a PNG."""
    encoded = BytesIO()
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(encoded, "PNG")
    replace_file(path, encoded.getvalue())


def fetch_later(values: Tensor) -> Callable[[], Tensor]:
    """Start an asynchronous copy of a tensor to the host. The function that is returned waits for it, in any thread."""
    if not values.is_cuda:
        return lambda: values
    host = torch.empty_like(values, device="cpu", pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def fetch() -> Tensor:
        copied.synchronize()
        return host

    return fetch
