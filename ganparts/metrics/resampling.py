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

__all__ = ["Interval", "KidSubsets", "kid_interval", "kid_ratio", "kid_scores", "kid_subsets"]

_SUBSETS, _DRAWS, _LEVEL = 100, 1000, 0.95  # of scores


class Interval(NamedTuple):
    """A confidence interval.

    Args:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two share a value; then the results are not called different."""
        return self.low <= other.high and other.low <= self.high


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
        size: images of each set in a subset, at most all; the paper has 1,000. None: half of each set.
        seed: decides what is drawn.

    Raises:
        ValueError: as :func:`~ganparts.metrics.kid`; or fewer than 2 subsets or images in one.
    """
    real, fake = checked_pair(real, fake)
    if subsets < 2 or (size is not None and size < 2):
        raise ValueError(f"subsets={subsets}, size={size}: a spread needs at least 2 subsets of at least 2 images")
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
        ValueError: as :func:`~ganparts.metrics.kid`; a level or number of draws out of range; or photos and paintings
            differ in number.
    """
    real, fake = checked_pair(real, fake)
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level={level}, draws={draws}: the level is between 0 and 1, and at least 1 sample is drawn")
    weights = _bootstrap(real, fake, draws, seed)
    values = weighted_kid(real, fake, *weights)
    if photos is not None:
        values = _ratio(values, weighted_kid(real, _aligned(photos, fake), *weights))
    return _middle(values, level)


def kid_ratio(real: Tensor, fake: Tensor, photos: Tensor) -> Tensor:
    """KID of the paintings divided by that of the untouched photos: what is left of the way to the real paintings.

    1 is as far as the photos, 0 is there. Unlike KID itself it has the same meaning with every feature extractor.

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

    The same values as the functions above give, with one pass over the kernel of each set.
    """
    real, fake = checked_pair(real, fake)
    whole = real.new_ones(1, len(real)), fake.new_ones(1, len(fake))
    draws = whole, _subsets(real, fake, _SUBSETS, None, 0), _bootstrap(real, fake, _DRAWS, 0)
    weights = [torch.cat(rows) for rows in zip(*draws, strict=True)]
    kids = weighted_kid(real, fake, *weights)
    low, high = _middle(kids[1 + _SUBSETS :], _LEVEL)
    mean, error = _over_subsets(kids[1 : 1 + _SUBSETS])
    scores = {"kid": kids[0].item(), "kid_low": low, "kid_high": high, "kid_subsets": mean, "kid_error": error}
    if photos is not None:
        ratios = _ratio(kids, weighted_kid(real, _aligned(photos, fake), *weights))
        low, high = _middle(ratios[1 + _SUBSETS :], _LEVEL)
        scores |= {"kid_ratio": ratios[0].item(), "kid_ratio_low": low, "kid_ratio_high": high}
    return scores


def _ratio(painted: Tensor, untouched: Tensor) -> Tensor:
    return torch.where(untouched <= 0, torch.inf, painted / untouched)


def _aligned(photos: Tensor, fake: Tensor) -> Tensor:
    if photos.shape != fake.shape:
        raise ValueError(
            f"features of photos {list(photos.shape)} and of their paintings {list(fake.shape)}: each painting needs "
            "its photo"
        )
    return photos.double()


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

    def weights(features: Tensor) -> Tensor:
        shape = count, len(features)
        drawn = torch.randint(len(features), shape, generator=source, device=features.device)
        return features.new_zeros(shape).scatter_add_(1, drawn, features.new_ones(shape))

    return weights(real), weights(fake)
