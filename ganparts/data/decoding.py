"""Decode image bytes to 8-bit RGB tensors.

Pillow decodes every format, JPEG too, so that pixels do not depend on a choice of decoder. It reads HEIC, the format of
iPhones, if the package pillow-heif is installed.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from functools import cache

from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from ganparts.data.colour import to_srgb
from ganparts.optional import require

__all__ = ["MAX_PIXELS", "decode_image", "encoded_dimensions", "ignore_pillow_warnings", "to_rgb"]

# twice Pillow's MAX_IMAGE_PIXELS as it comes, where Pillow refuses; a program may change its own
MAX_PIXELS = 178_956_970
_PILLOW = re.compile(r"PIL\.")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def encoded_dimensions(encoded: bytes) -> tuple[int, int]:
    """Height and width of an encoded image as :func:`decode_image` would turn it, without decoding it.

    Raises:
        ValueError: says why they are not known.
    """
    ignore_pillow_warnings()
    try:
        with _open(encoded) as image:
            width, height = image.size
            if image.format == "TIFF":  # whose size Pillow turns by itself, from some version on
                tags: dict[int, int] = getattr(image, "tag_v2", {})
                width, height = tags.get(256, width), tags.get(257, height)
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (width, height) if turned else (height, width)
    except Exception as error:  # whatever Pillow's many decoders raise on damaged files
        raise ValueError(str(error)) from error


def decode_image(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode image bytes to 8-bit RGB: uint8 [3, H, W].

    Grey, palette and CMYK images become RGB, 16-bit values are scaled to 8, an embedded colour profile (ICC) is
    converted to sRGB, transparency is laid on white, and EXIF orientation is applied. An image that claims more than
    ``max_pixels`` is refused before any memory is taken.

    Raises:
        ValueError: says why the image cannot be decoded.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor

    if not encoded:
        raise ValueError("it is empty")
    try:
        ignore_pillow_warnings()
        with _open(encoded) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(_too_many(f"{image.width} x {image.height} pixels", max_pixels))
            if image.format == "EPS":
                raise ValueError("it is a PostScript program, which is not run: save it as PNG or JPEG")
            return pil_to_tensor(to_rgb(ImageOps.exif_transpose(image)))
    except Image.DecompressionBombError as error:  # Pillow counts first, and says the number alone
        claimed, limit = (*map(int, re.findall(r"\d+", str(error))), MAX_PIXELS + 1, MAX_PIXELS)[:2]
        raise ValueError(_too_many(f"{claimed:,} pixels", limit)) from error
    except Exception as error:  # whatever Pillow's many decoders raise on damaged files
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "it is not an image that Pillow knows" if unknown else str(error)
        raise ValueError(reason or type(error).__name__) from error


def _open(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded))
    except Image.UnidentifiedImageError:
        if encoded[4:8] != b"ftyp" or encoded[8:12] not in _HEIC_BRANDS:
            raise
        _read_heic()
        return Image.open(io.BytesIO(encoded))


@cache
def _read_heic() -> None:
    """Teach Pillow to read HEIC images, once."""
    require("pillow_heif", "pillow-heif", "heic", what="an HEIC image").register_heif_opener()


_warnings_lock = threading.Lock()


def ignore_pillow_warnings() -> None:
    """Ignore warnings of Pillow's own modules from now on: of damaged metadata and of large images.

    Warnings that Pillow attributes to its caller, such as deprecations, still show. ``warnings.catch_warnings`` is no
    alternative: it changes the whole process, and threads that decode would undo each other's changes.
    """
    with _warnings_lock:
        if not any(action == "ignore" and module == _PILLOW for action, _, _, module, _ in warnings.filters):
            warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _too_many(claimed: str, limit: int = MAX_PIXELS) -> str:
    return f"it claims {claimed}, and more than {limit:,} are not read: make it smaller"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to RGB; see :func:`decode_image`.

    Raises:
        ValueError: its pixels are floating-point or 32-bit numbers, whose range is not defined.
    """
    import numpy

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits")
    key = image.info.get("transparency")  # the colour that is transparent, in the file's number of bits
    if image.mode.startswith("I"):  # 16-bit grey, which older Pillows open as 32-bit
        image = image.convert("I")
        opaque = None if key is None else Image.fromarray(numpy.asarray(image) != key)
        if image.getextrema()[1] > 65535:  # pyright: ignore[reportOperatorIssue]
            raise ValueError("its pixels have more than 16 bits, of unknown range: save it with 8 or 16 bits")
        image = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
        image.info.pop("transparency", None)
        if opaque is not None:
            image.putalpha(opaque.convert("L"))
    elif image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        image = image.copy()  # the caller's stays as it was
        image.info["transparency"] = tuple(value >> 8 for value in key)
    image = to_srgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
