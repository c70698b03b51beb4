"""Translate a picture that is too large for memory, a strip at a time, with the same result as in one piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import size_limits
from ganparts.data import to_bytes, to_unit_range
from ganparts.precision import device_of, dtype_of
from ganparts.translate.operations import pad
from ganparts.translate.strips import FeatureMap, Node, Plan, TilingError

__all__ = ["TilingError", "fit", "translate_tiled"]

_TILE, _TILE_ON_GPU = 256, 1024  # pixels a side
_KEPT_ON_CPU = 2**28  # bytes of feature maps; those beyond go to a temporary file


def translate_tiled(
    generator: Callable[[Tensor], Tensor], image: Tensor, *, tile: int | None = None, memory: int | None = None
) -> Tensor:
    """Translate one large picture, without seams: the numbers are those of one piece, up to rounding.

    The network runs over it a strip at a time, layer by layer (:mod:`ganparts.translate.strips`). This works for
    networks of convolutions, norms, resizing by whole factors, padding, concatenation and functions of single pixels.
    U-Nets work too, although their bottleneck sees the whole picture.

    Args:
        generator: trained, in ``eval()`` mode. One that cannot run in tiles has an attribute ``tileable = False``. Of
            one whose weights are not in float32, a copy in float32 is used.
        image: uint8 or float in [-1, 1], [3, H, W].
        tile: side of a square; about as many pixels as it has are computed at a time. None for 256, or 1024 on a GPU.
        memory: bytes of feature maps to keep in memory; the others go to temporary files (``TMPDIR``), which take up to
            about 400 bytes per pixel of the picture. None for 256 MiB on a CPU and half of what is free on a GPU.

    Returns:
        The translated picture, of the same type and shape, on the same device.

    Raises:
        TilingError: the generator is not a PyTorch module, or uses an operation that cannot be tiled.
        ValueError: ``tile`` is less than 1.
    """
    if tile is not None and tile < 1:
        raise ValueError(f"tile={tile} pixels: a tile has at least 1; leave it out for the default")
    if not isinstance(generator, nn.Module):
        raise TilingError(
            f"a {type(generator).__name__} is not a PyTorch module, and only those take tiles: make the picture "
            "smaller (--resize), or give it in one piece (tile=0, --tile 0) if it fits into memory"
        )
    if not getattr(generator, "tileable", True):
        raise TilingError(
            f"a {type(generator).__name__} takes pictures whole, not in tiles: make the picture smaller (--resize), or "
            "give it in one piece (tile=0, --tile 0) if it fits into memory"
        )
    if dtype_of(generator) != torch.float32:
        generator = deepcopy(generator).float()
    device = device_of(generator)
    if memory is None:
        memory = _free(device) // 2 if device.type == "cuda" else _KEPT_ON_CPU
    if tile is None:
        tile = _TILE_ON_GPU if device.type == "cuda" else _TILE
    plan = Plan(tile=tile, memory=memory, device=device)
    with torch.inference_mode():
        source = _picture(plan, generator, image)
        result = generator(FeatureMap(source))
        check_kept_size(source.shape, result.node.shape)
        plan.run()
        painting = torch.empty_like(image)
        height, width = image.shape[-2:]
        for start, stop in result.node.strips():
            if start < height:
                rows = result.node.rows(start, min(stop, height))[0, ..., :width]
                painting[:, start : min(stop, height)] = rows if image.is_floating_point() else to_bytes(rows)
    return painting


def _free(device: torch.device) -> int:
    """Free bytes of a GPU, including those that PyTorch keeps for later."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _picture(plan: Plan, generator: nn.Module, image: Tensor) -> Node:
    """The picture as the network's input, padded to a size that it takes."""

    def compute(start: int, stop: int) -> Tensor:
        rows = image[None, :, start:stop].to(plan.device)
        return rows.float() if image.is_floating_point() else to_unit_range(rows)

    source = Node(plan, (1, *image.shape), compute)
    bottom, right, mode = _margins(generator, *image.shape[-2:])
    return pad(source, (0, right, 0, bottom), mode) if bottom or right else source


def check_kept_size(given: Sequence[int], made: Sequence[int]) -> None:
    """Refuse what a generator made if its height and width are not those of the images that it was given.

    Raises:
        ValueError: names both sizes.
    """
    if tuple(given[-2:]) != tuple(made[-2:]):
        sizes = " of ".join(f"{height}x{width}" for height, width in (made[-2:], given[-2:]))
        raise ValueError(
            f"the generator made {sizes} pixels, but translations keep the size: declare its size_multiple "
            "(2 for one halving, 4 for two)"
        )


def fit(generator: object, images: Tensor) -> Tensor:
    """Pad images [B, C, H, W] at the bottom and the right to a size that the generator takes.

    The padding reflects the picture, or repeats its border where the picture is too small to reflect.
    """
    bottom, right, mode = _margins(generator, *images.shape[-2:])
    return F.pad(images, (0, right, 0, bottom), mode) if bottom or right else images


def _margins(generator: object, height: int, width: int) -> tuple[int, int, str]:
    multiple, minimum = size_limits(generator)
    bottom, right = (-(-max(side, minimum) // multiple) * multiple - side for side in (height, width))
    # reflection reaches no further than the picture
    return bottom, right, "reflect" if bottom < height and right < width else "replicate"
