"""Read images from folders, TFRecords and shards, and pair them at random or by name.

Images are bytes in files and in memory; a batch for training has floats in [-1, 1].
"""

from ganparts.data.aligned import AlignedImages, AlignedPairs
from ganparts.data.aligned_layouts import AlignedDomains, open_aligned
from ganparts.data.decoding import decode_image, to_rgb
from ganparts.data.errors import DataError, UnreadableImageError
from ganparts.data.images import ImageEntry, Images
from ganparts.data.layouts import Domains, open_domains, sample
from ganparts.data.loading import Pairs, load_pairs
from ganparts.data.pairs import PairDataset
from ganparts.data.resizing import resize, resize_shorter, resize_square, to_bytes, to_unit_range
from ganparts.data.sources import open_images

__all__ = [
    "AlignedDomains",
    "AlignedImages",
    "AlignedPairs",
    "DataError",
    "Domains",
    "ImageEntry",
    "Images",
    "PairDataset",
    "Pairs",
    "UnreadableImageError",
    "decode_image",
    "load_pairs",
    "open_aligned",
    "open_domains",
    "open_images",
    "resize",
    "resize_shorter",
    "resize_square",
    "sample",
    "to_bytes",
    "to_rgb",
    "to_unit_range",
]
