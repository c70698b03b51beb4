"""How far to trust a KID: its spread over random parts of the images, and how it compares with the photos' own.

Subsets: Bińkowski et al., arXiv 1801.01401. Bootstrap: Efron 1979, doi 10.1214/aos/1176344552.

torchmetrics has KID over subsets, but it computes the kernel anew for each and draws from torch's own random numbers.
Here the kernel is computed once, and a subset or a bootstrap draw is a row of weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ganparts.metrics.distances import checked_pair, kid, weighted_kid

__all__ = ["Interval", "KidSubsets", "kid_interval", "kid_ratio", "kid_scores", "kid_subsets", "mean_scores"]

_SUBSETS, _DRAWS, _LEVEL = 100, 1000, 0.95  # of scores
_LEAST = 3  # images for an interval: any two different ones of 2 are the same two


class Interval(NamedTuple):
    """A confidence interval.

    Args:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two share a value, or may do so (an end is nan); then the results are not called different."""
        return not (self.low > other.high or other.low > self.high)


class KidSubsets(NamedTuple):
    """KID over random subsets.

    Args:
        mean: over the subsets.
        error: standard deviation over the subsets. With halves it estimates the standard error of the whole sets' KID.
    """

    mean: float
    error: float


def kid_subsets(
    real: Tensor, fake: Tensor, *, subsets: int = 100, size: int | None = None, seed: int = 0
) -> KidSubsets:
    """KID over random subsets, drawn without replacement: mean and spread.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].
        subsets: how many are drawn.
        size: images of each set in a subset; the paper has 1,000. A smaller set is taken whole. None: half of each.
        seed: decides what is drawn.

    Raises:
        ValueError: as :func:`~ganparts.metrics.kid`; fewer than 2 subsets or images in one; or each subset would hold
            all images.
    """
    real, fake = checked_pair(real, fake)
    if subsets < 2 or (size is not None and size < 2):
        raise ValueError(f"subsets={subsets}, size={size}: a spread needs at least 2 subsets of at least 2 images")
    if size is not None and size >= (most := max(len(real), len(fake))):
        raise ValueError(f"size={size}: a subset has to leave images out, so give less than {most}, or None")
    return _over_subsets(weighted_kid(real, fake, *_subsets(real, fake, subsets, size, seed)))


def kid_interval(
    real: Tensor,
    fake: Tensor,
    *,
    photos: Tensor | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """A bootstrap confidence interval of KID; with ``photos``, of :func:`kid_ratio`.

    Images of both sets are drawn with replacement, and the interval holds the middle share ``level`` of the distances.
    A photo is drawn together with its painting. Where KID is near 0 the interval is too wide rather than too narrow.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].
        photos: features of the photos that ``fake`` are paintings of, in the same order, [M, d].
        level: between 0 and 1.
        draws: how many samples are drawn.
        seed: decides what is drawn.

    Raises:
        ValueError: as :func:`~ganparts.metrics.kid`; fewer than 3 images in a set; a level or number of draws out of
            range; or photos and paintings differ in number.
    """
    real, fake = checked_pair(real, fake)
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level={level}, draws={draws}: the level is between 0 and 1, and at least 1 sample is drawn")
    if (fewest := min(len(real), len(fake))) < _LEAST:
        raise ValueError(f"an interval of {fewest} images: it needs at least {_LEAST} in each set")
    weights = _bootstrap(real, fake, draws, seed)
    values = weighted_kid(real, fake, *weights)
    if photos is not None:
        values = _ratio(values, weighted_kid(real, _aligned(photos, fake), *weights))
    return _middle(values, level)


def kid_ratio(real: Tensor, fake: Tensor, photos: Tensor) -> Tensor:
    """KID of the paintings divided by that of the untouched photos: what is left of the way to the real paintings.

    1 is as far as the photos, 0 is there. Unlike KID's own, this scale is the same with every feature extractor.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].
        photos: features of the photos that they are paintings of, in the same order, [M, d].

    Returns:
        A scalar, lower is better; infinite where the photos' KID is not above 0.

    Raises:
        ValueError: as :func:`~ganparts.metrics.kid`, or photos and paintings differ in number.
    """
    real, fake = checked_pair(real, fake)
    return _ratio(kid(real, fake), kid(real, _aligned(photos, fake)))


def kid_scores(real: Tensor, fake: Tensor, photos: Tensor | None = None) -> dict[str, float]:
    """KID, its subsets, interval and ratio, by the names that :class:`~ganparts.metrics.Scores` has for them.

    The same values as the functions above give, with one pass over the kernel of each set. Sets of 2 images have no
    intervals.
    """
    real, fake = checked_pair(real, fake)
    whole = real.new_ones(1, len(real)), fake.new_ones(1, len(fake))
    draws = whole, _subsets(real, fake, _SUBSETS, None, 0), _bootstrap(real, fake, _DRAWS, 0)
    weights = [torch.cat(rows) for rows in zip(*draws, strict=True)]
    kids = weighted_kid(real, fake, *weights)
    mean, error = _over_subsets(kids[1 : 1 + _SUBSETS])
    scores = {"kid_subsets": mean, "kid_error": error}
    drawn = {"kid": kids}
    if photos is not None:
        drawn["kid_ratio"] = _ratio(kids, weighted_kid(real, _aligned(photos, fake), *weights))
    for name, values in drawn.items():
        scores[name] = values[0].item()
        if min(len(real), len(fake)) >= _LEAST:
            scores[f"{name}_low"], scores[f"{name}_high"] = _middle(values[1 + _SUBSETS :], _LEVEL)
    return scores


def mean_scores(**values: Tensor | None) -> dict[str, float]:
    """Means over images [M], with 95% bootstrap intervals, by the names that :class:`~ganparts.metrics.Scores` has."""
    scores: dict[str, float] = {}
    for name, each in values.items():
        if each is None:
            continue
        each = each.double()
        scores[name] = each.mean().item()
        if len(each) >= _LEAST:
            drawn = _drawn(each, _DRAWS, torch.Generator(each.device).manual_seed(0)) @ each / len(each)
            scores[f"{name}_low"], scores[f"{name}_high"] = _middle(drawn, _LEVEL)
    return scores


def _ratio(painted: Tensor, untouched: Tensor) -> Tensor:
    return torch.where(untouched <= 0, torch.inf, painted / untouched)


def _aligned(photos: Tensor, fake: Tensor) -> Tensor:
    if photos.shape != fake.shape:
        raise ValueError(
            f"features of photos {list(photos.shape)} and of their paintings {list(fake.shape)}: each painting needs "
            "its photo"
        )
    return checked_pair(photos, fake, ("photos", "generated images"))[0]


def _over_subsets(values: Tensor) -> KidSubsets:
    return KidSubsets(values.mean().item(), values.std().item())


def _middle(values: Tensor, level: float) -> Interval:
    tail, kept = (1 - level) / 2, values[~values.isnan()]  # nan: of very few images only one was drawn
    low = torch.quantile(kept, tail, interpolation="lower").item()
    return Interval(low, torch.quantile(kept, 1 - tail, interpolation="higher").item())


def _subsets(real: Tensor, fake: Tensor, count: int, size: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Weights [count, N] and [count, M]: 1 for the images of a subset, of which there are at least 2."""
    source = torch.Generator(real.device).manual_seed(seed)

    def weights(features: Tensor) -> Tensor:
        order = torch.rand(count, len(features), generator=source, device=features.device).argsort(1)
        chosen = order[:, : max(2, size or len(features) // 2)]
        return features.new_zeros(count, len(features)).scatter_(1, chosen, 1.0)

    return weights(real), weights(fake)


def _bootstrap(real: Tensor, fake: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights [count, N] and [count, M]: how often each image was drawn."""
    source = torch.Generator(real.device).manual_seed(seed)
    return _drawn(real, count, source), _drawn(fake, count, source)


def _drawn(images: Tensor, count: int, source: torch.Generator) -> Tensor:
    shape = count, len(images)
    drawn = torch.randint(len(images), shape, generator=source, device=images.device)
    return images.new_zeros(shape).scatter_add_(1, drawn, images.new_ones(shape))
