"""Fidelity and variety apart: precision, recall, density and coverage of sets of deep features.

Around each image lies a ball that reaches to its k-th nearest neighbour of the same set. What lies in the balls of the
real images is taken for real.

- Precision and recall: Kynkäänniemi et al., arXiv 1904.06991.
- Density and coverage: Naeem et al., arXiv 2002.09797.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ganparts.blocks import check_counts
from ganparts.metrics.distances import ROWS, checked_pair, squared_distances

__all__ = ["PRDC", "prdc"]


class PRDC(NamedTuple):
    """Scores of :func:`prdc`; higher is better.

    Args:
        precision: share of the generated images that lie in the ball of a real one, from 0 to 1.
        recall: share of the real images that lie in the ball of a generated one, from 0 to 1.
        density: in how many balls of real images a generated one lies, on average, divided by k; 1 is what a second
            set of real images would have, and it can be more.
        coverage: share of the real images with a generated one in their ball, from 0 to 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor, *, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage.

    All four depend on the numbers of images: compare them only between sets of the same sizes.

    Args:
        real: features of the real images, [N, d].
        fake: features of the generated images, [M, d].
        k: the neighbour that a ball reaches to, in Euclidean distance.

    Raises:
        ValueError: not two matrices with the same number of columns, or one has no more than ``k`` rows; ``k`` is no
            whole number from 1 on.
    """
    real, fake = checked_pair(real, fake)
    check_counts(k=k)
    fewest = min(len(real), len(fake))
    if k >= fewest:
        raise ValueError(f"k={k}: a ball reaches to one of the {fewest - 1} other images of the smaller set")
    middle = real.mean(0)  # small numbers keep the distances of neighbours exact
    real, fake = real - middle, fake - middle
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    balls, reached, covered = fake.new_zeros(len(fake)), [], []
    for rows, reach in zip(real.split(ROWS), real_reach.split(ROWS), strict=True):
        distances = squared_distances(rows, fake)
        inside = distances <= reach[:, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        reached.append((distances <= fake_reach).any(1))
    return PRDC(
        precision=(balls > 0).double().mean().item(),
        recall=torch.cat(reached).double().mean().item(),
        density=balls.mean().item() / k,
        coverage=torch.cat(covered).double().mean().item(),
    )


def _reach(features: Tensor, k: int) -> Tensor:
    """Squared distance of each image to its k-th nearest neighbour, itself not counted: [N].

    It is a little enlarged, so that rounding does not decide whether that neighbour is inside; neither where it is
    another copy of the image.
    """
    rounding = 1e-12 * features.square().sum(1).max()
    reaches = []
    for start in range(0, len(features), ROWS):
        distances = squared_distances(features[start : start + ROWS], features)
        distances.diagonal(start).fill_(torch.inf)
        reaches.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(reaches) * (1 + 1e-9) + rounding
