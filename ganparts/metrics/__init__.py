"""Scores of generated images: KID, FID, the competition's MiFID, content kept, diversity.

:func:`evaluate` makes them of folders, archives, sequences, or a generator and photos::

    scores = evaluate("monet_jpg", "images.zip", photos="photo_jpg")
    rich.print(scores)

Each measure is also a pure function of feature matrices.
"""

from ganparts.metrics.cache import cache_folder
from ganparts.metrics.distances import content_distance, diversity, fid, kid, memorization, mifid
from ganparts.metrics.evaluation import Evaluator, evaluate
from ganparts.metrics.extractors import (
    FEATURE_EXTRACTORS,
    UnavailableError,
    create_extractor,
    efficientnet_lite0,
    efficientnet_lite1,
    inception,
    timm_model,
)
from ganparts.metrics.scores import Scores

__all__ = [
    "FEATURE_EXTRACTORS",
    "Evaluator",
    "Scores",
    "UnavailableError",
    "cache_folder",
    "content_distance",
    "create_extractor",
    "diversity",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "evaluate",
    "fid",
    "inception",
    "kid",
    "memorization",
    "mifid",
    "timm_model",
]
