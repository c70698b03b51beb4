"""The registered parts at their smallest, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ganparts.registry import Registry

__all__ = ["smallest_image", "tiny"]

SMALL: dict[str, Any] = {"width": 2, "blocks": 1, "size": 32, "image_size": 32, "img_size": 32}
"""Options that make a part small, if it has them."""


def tiny(table: Registry[Any], name: str, **options: Any) -> Callable[[], Any]:
    """A builder of a registered part, small, with some of its options set."""
    known = table.options(name)
    return partial(table.create, name, **({key: value for key, value in SMALL.items() if key in known} | options))


def smallest_image(network: Any, least: int = 32) -> int:
    """The smallest height and width that a network takes and that 4 divides, at least ``least``."""
    multiple = max(4, getattr(network, "size_multiple", 1))
    return -(-max(least, getattr(network, "min_size", 1)) // multiple) * multiple
