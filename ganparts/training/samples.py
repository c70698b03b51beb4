"""Sample grids: the same photos at every stage of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ganparts.data import Images, resize, to_bytes, to_unit_range

__all__ = ["evaluating", "sample_photos", "save_grid"]


def sample_photos(images: Images, *, count: int, size: int) -> Tensor:
    """``count`` images, evenly spread, resized to ``size`` (bicubic): float [count, 3, size, size] in [-1, 1]."""
    chosen = [images[i * len(images) // count] for i in range(min(count, len(images)))]
    return to_unit_range(torch.stack([resize(image, size) for image in chosen]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model in ``eval()`` mode (no dropout), and back in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.inference_mode()
def save_grid(path: Path, photos: Tensor, stages: Sequence[nn.Module]) -> None:
    """Write a PNG with a column a photo: the photo, then what each stage makes of the row above it.

    Args:
        path: of the PNG.
        photos: float [N, 3, H, W] in [-1, 1], on the stages' device.
        stages: for instance (generator_ab, generator_ba): painting of it, and photo again. They are put in
            ``eval()`` mode (no dropout) while they work.
    """
    from torchvision.transforms.v2.functional import to_pil_image
    from torchvision.utils import make_grid

    rows = [photos]
    for stage in stages:
        with evaluating(stage):
            rows.append(stage(rows[-1]))
    grid = make_grid(to_bytes(torch.cat(rows)).cpu(), nrow=len(photos), padding=4, pad_value=255)
    to_pil_image(grid).save(path)
