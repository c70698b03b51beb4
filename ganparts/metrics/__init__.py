"""Scores of generated images: KID, FID, the competition's MiFID, precision and recall, content kept, diversity.

:func:`evaluate` scores folders, archives, sequences, or a generator and photos::

    scores = evaluate("monet_jpg", "images.zip", photos="photo_jpg")
    rich.print(scores)

Each measure is also a pure function of feature matrices.
"""

from ganparts.metrics.distances import cmmd, content_distance, diversity, fid, kid, memorization, mifid
from ganparts.metrics.evaluation import Evaluator, FewImagesWarning, evaluate
from ganparts.metrics.extractors import (
    FEATURE_EXTRACTORS,
    UnavailableError,
    clip,
    create_extractor,
    dino,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    inception,
    timm_model,
)
from ganparts.metrics.manifolds import PRDC, prdc
from ganparts.metrics.resampling import Interval, KidSubsets, kid_interval, kid_ratio, kid_subsets
from ganparts.metrics.scores import Scores

__all__ = [
    "FEATURE_EXTRACTORS",
    "PRDC",
    "Evaluator",
    "FewImagesWarning",
    "Interval",
    "KidSubsets",
    "Scores",
    "UnavailableError",
    "clip",
    "cmmd",
    "content_distance",
    "create_extractor",
    "dino",
    "diversity",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "evaluate",
    "fid",
    "inception",
    "kid",
    "kid_interval",
    "kid_ratio",
    "kid_subsets",
    "memorization",
    "mifid",
    "prdc",
    "timm_model",
]
