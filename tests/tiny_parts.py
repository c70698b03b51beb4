"""The registered parts at their smallest, for tests that run over all of them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from ganparts.registry import Registry

__all__ = ["smallest_image", "tiny"]

SMALL: dict[str, Any] = {"width": 2, "blocks": 1, "size": 32, "image_size": 32, "img_size": 32}
"""Options that make a part small, if it has them."""

OWN: dict[str, dict[str, Any]] = {
    "timm_unet": {"encoder": "tf_mobilenetv3_small_minimal_100"},  # pads as the default's encoder, with half its layers
    "projected": {"image_size": 128, "projection_width": 2},
    "unet_discriminator": {"size": 128},
    "lpips": {"trunk_weights": "random", "weights": "random"},  # there is no network to download them
    "ms_ssim": {"window": 3, "weights": (0.5, 0.5)},
}
"""Options of single parts, which come before those."""


def tiny(table: Registry[Any], name: str, **options: Any) -> partial[Any]:
    """A builder of a registered part, small, with some of its options set."""
    known = table.options(name)
    small = {key: value for key, value in SMALL.items() if key in known}
    return partial(table.create, name, **(small | OWN.get(name, {}) | options))


def smallest_image(*parts: Any, least: int = 32) -> int:
    """The smallest height and width that all of these parts take and that 4 divides, at least ``least``."""
    multiple = math.lcm(4, *(getattr(part, "size_multiple", 1) for part in parts))
    smallest = max(least, *(getattr(part, "min_size", 1) for part in parts))
    return -(-smallest // multiple) * multiple
