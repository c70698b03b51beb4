"""Distances between sets of deep features: KID, FID, the competition's MiFID, content kept and diversity.

Pure functions of matrices [images, features] of any floating type; they compute in float64 and return a scalar of it.
What the features are, they do not ask: with Inception's the names are the published ones, with others the numbers
are of another scale and compare only among themselves.

- KID: Bińkowski et al., arXiv 1801.01401.
- FID: Heusel et al., arXiv 1706.08500.
- MiFID: Bai et al., arXiv 2106.03062, with the threshold of the Kaggle competition's public code.

Three are not torchmetrics': its KID averages over random subsets, and its kernel sums take only sets of one size; its
MiFID averages over the real images instead of the generated ones; and its FID takes the eigenvalues of a product that
is not symmetric, whose rounding errors the root magnifies where there are fewer images than features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["content_distance", "diversity", "fid", "kid", "memorization", "mifid", "penalized"]

_ROWS = 1024  # of a block of a matrix of all pairs, so that memory grows with the images and not with their square


def kid(real: Tensor, fake: Tensor) -> Tensor:
    """Kernel distance: the unbiased squared MMD over all pairs, with kernel (x.y / d + 1)^3.

    Being unbiased it is comparable between sets of different numbers of images, and can fall a little below 0.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].

    Returns:
        A scalar, lower is better. No subsets are drawn, so there is no chance in it and no spread.

    Raises:
        ValueError: not two matrices of as many columns, or one has fewer than 2 rows.
    """
    real, fake = _checked(real, fake)
    n, m = len(real), len(fake)
    within_real = (_kernel_sum(real, real) - _kernel(real.square().sum(1), real).sum()) / (n * (n - 1))
    within_fake = (_kernel_sum(fake, fake) - _kernel(fake.square().sum(1), fake).sum()) / (m * (m - 1))
    return within_real + within_fake - 2 * _kernel_sum(real, fake) / (n * m)


def _kernel(products: Tensor, features: Tensor) -> Tensor:
    return (products / features.shape[1] + 1) ** 3


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([_kernel(rows @ y.T, x).sum() for rows in x.split(_ROWS)]).sum()


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
    real, fake = _checked(real, fake)
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
    real, fake = (_directions(features) for features in _checked(real, fake))
    nearest = [1 - (rows @ real.T).abs().amax(1) for rows in fake.split(_ROWS)]
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
    fake, _ = _checked(fake, fake)
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
    photos, paintings = _checked(photos, paintings)
    if len(photos) != len(paintings):
        raise ValueError(f"{len(photos)} photos and {len(paintings)} paintings: each photo needs its painting")
    return (1 - F.cosine_similarity(photos, paintings)).mean().clamp(min=0)


def _checked(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    shapes = f"{list(real.shape)} and {list(fake.shape)}"
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of shapes {shapes}: expected two matrices [images, features] of as many columns")
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"features of shapes {shapes}: each set needs at least 2 images, the rows")
    return real.double(), fake.double()
