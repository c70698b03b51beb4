"""Convert embedded colour profiles to sRGB, so that numbers mean the same colours in every picture."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

__all__ = ["to_srgb"]


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture to sRGB by the colour profile (ICC) that it carries.

    Like viewers, it ignores a profile that is damaged or made for another kind of picture (RGB in a grey one).

    Args:
        image: 8-bit, of any mode.

    Returns:
        RGB, or RGBA if the picture is transparent; the same picture if there is no profile to apply.
    """
    embedded = image.info.get("icc_profile")
    if not embedded:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        described = ImageCms.getProfileDescription(profile)
        if "sRGB" in described and "linear" not in described.lower() and "g10" not in described:
            return image
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        opaque = image if image.mode in ("RGB", "L", "CMYK", "LAB") else image.convert(_opaque_mode(image))
        converted = ImageCms.profileToProfile(opaque, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    assert converted is not None
    converted.info.pop("transparency", None)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _opaque_mode(image: Image.Image) -> str:
    return "L" if image.mode in ("1", "LA", "La") else "RGB"
