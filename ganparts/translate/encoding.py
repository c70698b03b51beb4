"""Translated pictures as files, JPEG or PNG."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

from torch import Tensor

__all__ = ["Encoding", "JPEGOptions", "Subsampling"]

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]

_LONGEST_SIDE = 65_500  # pixels, of what libjpeg writes


@dataclass(frozen=True)
class Encoding:
    """How pictures are written.

    Args:
        format: "jpg" or "png".
        quality: of JPEGs, from 1 to 100.
        subsampling: how JPEGs store colours: "4:2:0" at half the height and width, as most programs do; "4:2:2" at half
            the width; "4:4:4" in full, in a larger file.

    Raises:
        ValueError: an option is out of range.
    """

    format: Literal["jpg", "png"] = "jpg"
    quality: int = 95
    subsampling: Subsampling = "4:2:0"

    def __post_init__(self) -> None:
        if self.format not in ("jpg", "png"):
            raise ValueError(f"format={self.format!r}: it is 'jpg' or 'png'")
        if not isinstance(self.quality, Integral) or not 1 <= self.quality <= 100:
            raise ValueError(f"quality={self.quality!r}: give a whole number from 1 to 100")
        if self.subsampling not in ("4:4:4", "4:2:2", "4:2:0"):
            raise ValueError(f"subsampling={self.subsampling!r}: it is '4:4:4', '4:2:2' or '4:2:0'")

    def check_size(self, picture: Tensor) -> None:
        """Raise ValueError if no file of the format can hold a picture of this size, [3, H, W].

        Raises:
            ValueError: a JPEG's sides are too long.
        """
        height, width = picture.shape[-2:]
        if self.format == "jpg" and max(height, width) > _LONGEST_SIDE:
            raise ValueError(
                f"a JPEG's sides have at most {_LONGEST_SIDE:,} pixels, and this picture has {width:,} x {height:,}: "
                "write PNG (--format png), or make it smaller (--resize)"
            )

    def encode(self, picture: Tensor) -> bytes:
        """The bytes of a file with a picture, uint8 [3, H, W].

        Raises:
            ValueError: a JPEG cannot have its size.
        """
        from torchvision.transforms.v2.functional import to_pil_image

        self.check_size(picture)
        encoded, image = io.BytesIO(), to_pil_image(picture)
        if self.format == "jpg":
            image.save(encoded, "JPEG", quality=self.quality, subsampling=self.subsampling)
        else:
            image.save(encoded, "PNG")
        return encoded.getvalue()


@dataclass(frozen=True)
class JPEGOptions:
    """Options of recipes that write JPEGs."""

    jpeg_quality: int = field(default=95, metadata={"least": 1, "on_resume": True})
    """Quality of the JPEGs in images.zip, 1 to 100."""
    subsampling: Subsampling = field(default="4:2:0", metadata={"on_resume": True})
    """How JPEGs store colours: 4:2:0 at half the height and width; 4:2:2 at half the width; 4:4:4 in full."""

    def jpeg(self) -> dict[str, Any]:
        """The keyword arguments of functions that write JPEGs.

        Raises:
            ValueError: an option is out of range.
        """
        Encoding("jpg", self.jpeg_quality, self.subsampling)
        return {"quality": self.jpeg_quality, "subsampling": self.subsampling}
