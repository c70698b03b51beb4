"""Images in: folders and TFRecords, paired at random; bytes become floats in [-1, 1] here and nowhere else."""

from ganparts.data.images import (
    DataError,
    ImageEntry,
    Images,
    UnreadableImageError,
    decode_image,
    open_images,
    resize,
    to_bytes,
    to_rgb,
    to_unit_range,
)
from ganparts.data.layouts import Domains, open_domains, sample
from ganparts.data.pairs import PairDataset, load_pairs

__all__ = [
    "DataError",
    "Domains",
    "ImageEntry",
    "Images",
    "PairDataset",
    "UnreadableImageError",
    "decode_image",
    "load_pairs",
    "open_domains",
    "open_images",
    "resize",
    "sample",
    "to_bytes",
    "to_rgb",
    "to_unit_range",
]
