"""Distances between sets of deep features: KID, FID, the competition's MiFID, CMMD, content kept and diversity.

Pure functions of matrices [images, features] of any floating type. They compute in float64 and return a scalar of it.
With Inception's features the names are the published ones. Other features give numbers on another scale, which compare
only among themselves.

- KID: Bińkowski et al., arXiv 1801.01401.
- FID: Heusel et al., arXiv 1706.08500.
- MiFID: Bai et al., arXiv 2106.03062, with the threshold of the Kaggle competition's public code.
- CMMD: Jayasumana et al., arXiv 2401.09603.

Three of them exist in torchmetrics, but not as needed here. Its KID takes subsets only, of the same size from both
sets. Its MiFID averages over the real images instead of the generated ones. Its FID takes the eigenvalues of a product
that is not symmetric, and the root magnifies their rounding errors where there are fewer images than features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ROWS",
    "checked_pair",
    "cmmd",
    "content_distance",
    "content_distances",
    "diversity",
    "fid",
    "kid",
    "memorization",
    "mifid",
    "penalized",
    "squared_distances",
    "weighted_kid",
]

ROWS = 1024  # of a block of a matrix of all pairs, so that memory grows with the images and not with their square


def kid(real: Tensor, fake: Tensor) -> Tensor:
    """Kernel distance: the unbiased squared MMD over all pairs of images, with kernel (x.y / d + 1)^3.

    It is unbiased, so sets of different numbers of images compare, and it can fall a little below 0. It draws no random
    subsets; :func:`~ganparts.metrics.kid_interval` says how far to trust it.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].

    Returns:
        A scalar, lower is better.

    Raises:
        ValueError: not two matrices with the same number of columns, or one has fewer than 2 rows.
    """
    real, fake = checked_pair(real, fake)
    return weighted_kid(real, fake, real.new_ones(1, len(real)), fake.new_ones(1, len(fake)))[0]


def weighted_kid(real: Tensor, fake: Tensor, real_weights: Tensor, fake_weights: Tensor) -> Tensor:
    """:func:`kid` of weighted images, for many weightings at once.

    A weight of 0 leaves an image out, a weight of 2 counts it twice. Pairs of an image with itself never count, so
    images that a bootstrap draws twice do not bias the distance.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].
        real_weights: [R, N].
        fake_weights: [R, M].

    Returns:
        Distances [R]; nan where fewer than 2 images of a set have a weight.
    """
    products = [
        ((weights @ _kernel(rows @ fake.T, rows)) * fake_weights).sum(1)
        for rows, weights in zip(real.split(ROWS), real_weights.split(ROWS, dim=1), strict=True)
    ]
    between = torch.stack(products).sum(0) / (real_weights.sum(1) * fake_weights.sum(1))
    return _within(real, real_weights) + _within(fake, fake_weights) - 2 * between


def _within(features: Tensor, weights: Tensor) -> Tensor:
    """Mean kernel over the pairs of different images: [R]."""
    squares = weights.square()
    total = -(squares @ _kernel(features.square().sum(1), features))  # pairs of an image with itself
    for start in range(0, len(features), ROWS):
        stop = start + ROWS
        kernel = _kernel(features[start:stop] @ features[start:].T, features)
        kernel[:, ROWS:] *= 2  # for the pairs below the diagonal, which are left out
        total += ((weights[:, start:stop] @ kernel) * weights[:, start:]).sum(1)
    pairs = weights.sum(1).square() - squares.sum(1)
    return torch.where(pairs > 0, total / pairs, torch.nan)


def _kernel(products: Tensor, features: Tensor) -> Tensor:
    return (products / features.shape[1] + 1) ** 3


def cmmd(real: Tensor, fake: Tensor, *, sigma: float = 10.0, scale: float = 1000.0) -> Tensor:
    """CMMD: the squared MMD with a Gaussian kernel, times ``scale``; the biased estimate, as published.

    The published figures are of CLIP's embeddings (the extractor ``clip``), which have length 1. Features of other
    lengths need another ``sigma``.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].
        sigma: width of the kernel ``exp(-|x - y|^2 / (2 sigma^2))``.
        scale: makes the numbers readable.

    Returns:
        A scalar from 0, lower is better.

    Raises:
        ValueError: not two matrices with the same number of columns, or one has fewer than 2 rows; ``sigma`` or
            ``scale`` is not above 0.
    """
    real, fake = checked_pair(real, fake)
    if not (sigma > 0 and scale > 0):
        raise ValueError(f"sigma={sigma}, scale={scale}: both have to be above 0")

    def mean(x: Tensor, y: Tensor) -> Tensor:
        sums = [torch.exp(-squared_distances(rows, y) / (2 * sigma**2)).sum() for rows in x.split(ROWS)]
        return torch.stack(sums).sum() / (len(x) * len(y))

    return (scale * (mean(real, real) + mean(fake, fake) - 2 * mean(real, fake))).clamp(min=0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances [N, M] of rows [N, d] and [M, d]."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(lengths, x, y.T, alpha=-2).clamp(min=0)


def fid(real: Tensor, fake: Tensor) -> Tensor:
    """Fréchet distance between the normal distributions of the features' means and (unbiased) covariances.

    The trace of the root of the covariances' product is the sum of the singular values of A B^T, where A and B are
    the centred features (or the triangular factors of their QR decompositions, where there are more images than
    features). So no root of a matrix is taken, and few images do no harm to the arithmetic. The distance itself is
    biased upwards by few images: compare it only between sets of as many.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].

    Returns:
        A scalar from 0, lower is better.

    Raises:
        ValueError: not two matrices of as many columns, or one has fewer than 2 rows.
    """
    real, fake = checked_pair(real, fake)
    means = (real.mean(0) - fake.mean(0)).square().sum()
    a, b = _covariance_factor(real), _covariance_factor(fake)
    distance = means + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    return distance.clamp(min=0)


def _covariance_factor(features: Tensor) -> Tensor:
    """A matrix [min(N, d), d] whose transpose times itself is the covariance."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(features) > features.shape[1] else centred


def memorization(real: Tensor, fake: Tensor) -> Tensor:
    """Mean over the generated images of the smallest cosine distance, 1 - abs(cos), to a real one.

    Images without any feature (rows of zeros) have no direction and are left out, as in the competition's code.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].

    Returns:
        A scalar from 0 (each generated image is a copy) to 1.

    Raises:
        ValueError: not two matrices of as many columns, one has fewer than 2 rows, or only rows of zeros.
    """
    real, fake = (_directions(features) for features in checked_pair(real, fake))
    nearest = [1 - (rows @ real.T).abs().amax(1) for rows in fake.split(ROWS)]
    return torch.cat(nearest).mean().clamp(min=0)


def _directions(features: Tensor) -> Tensor:
    directions = F.normalize(features[features.any(1)], dim=1)
    if not len(directions):
        raise ValueError(f"all {len(features)} rows of features are zeros: cosine distances need a direction")
    return directions


def mifid(real: Tensor, fake: Tensor, *, epsilon: float = 0.1) -> Tensor:
    """The competition's score: FID divided by :func:`memorization` where that is below ``epsilon``, else FID.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].
        epsilon: the threshold; 0.1 is the competition's, for Inception's features.

    Returns:
        A scalar from 0, lower is better.

    Raises:
        ValueError: as :func:`memorization`.
    """
    return penalized(fid(real, fake), memorization(real, fake), epsilon=epsilon)


def penalized(distance: Tensor, copied: Tensor, *, epsilon: float = 0.1) -> Tensor:
    """MiFID of what :func:`fid` and :func:`memorization` gave, so that neither is computed twice."""
    return distance / torch.where(copied < epsilon, copied + 1e-15, 1.0)  # 1e-15: as the competition's code


def diversity(fake: Tensor) -> Tensor:
    """Mean cosine distance, 1 - cos, over all pairs of different generated images.

    By the length of the sum of the directions, without the matrix of all pairs that torchmetrics would build.

    Args:
        fake: features of the generated images, [M, d].

    Returns:
        A scalar, 0 where all images are one; higher is more diverse.

    Raises:
        ValueError: not a matrix, or it has fewer than 2 rows.
    """
    fake, _ = checked_pair(fake, fake, ("generated images", "generated images"))
    directions, count = F.normalize(fake, dim=1), len(fake)
    similarity = (directions.sum(0).square().sum() - directions.square().sum()) / (count * (count - 1))
    return (1 - similarity).clamp(min=0)


def content_distance(photos: Tensor, paintings: Tensor) -> Tensor:
    """Mean cosine distance, 1 - cos, between each photo and its painting.

    Args:
        photos: features of the photos, [N, d].
        paintings: features of their paintings, in the same order, [N, d].

    Returns:
        A scalar, 0 where nothing changed; lower keeps more of the content.

    Raises:
        ValueError: not two matrices of one shape, or with fewer than 2 rows.
    """
    return content_distances(photos, paintings).mean()


def content_distances(photos: Tensor, paintings: Tensor) -> Tensor:
    """:func:`content_distance` of each photo and its painting: [N]."""
    photos, paintings = checked_pair(photos, paintings, ("photos", "paintings"))
    if len(photos) != len(paintings):
        raise ValueError(f"{len(photos)} photos and {len(paintings)} paintings: each photo needs its painting")
    return (1 - F.cosine_similarity(photos, paintings)).clamp(min=0)


def checked_pair(
    real: Tensor, fake: Tensor, names: tuple[str, str] = ("real images", "generated images")
) -> tuple[Tensor, Tensor]:
    """Two matrices of features in float64; errors call them by these names.

    Raises:
        TypeError: not two tensors.
        ValueError: not two matrices with the same number of columns, one has fewer than 2 rows, or a feature is not
            finite.
    """
    for features in (real, fake):
        if not isinstance(features, Tensor):
            raise TypeError(f"features are a tensor [images, features], but this is a {type(features).__name__}")
    shapes = f"{list(real.shape)} and {list(fake.shape)}"
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of shapes {shapes}: expected two matrices [images, features] of as many columns")
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"features of shapes {shapes}: each set needs at least 2 images, the rows")
    for name, features in zip(names, (real, fake), strict=True):
        if rows := int((~features.isfinite()).any(1).sum()):
            raise ValueError(f"features of {rows} of {len(features)} {name} are not finite: check the extractor")
    return real.double(), fake.double()
