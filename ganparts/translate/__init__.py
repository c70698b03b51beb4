"""Use a trained generator: on pictures in memory, on many files, on photos too large for memory."""

from ganparts.translate.archive import translate_to_zip
from ganparts.translate.cluster import translate_on_cluster
from ganparts.translate.files import translate_files
from ganparts.translate.image import translate
from ganparts.translate.pipeline import Report
from ganparts.translate.tiles import TilingError, translate_tiled

__all__ = [
    "Report",
    "TilingError",
    "translate",
    "translate_files",
    "translate_on_cluster",
    "translate_tiled",
    "translate_to_zip",
]
