"""Relativistic adversarial losses: is a real image more real than a generated one? (Jolicoeur-Martineau 2018,
arXiv 1807.00734)

The paired loss compares each real logit with the fake one at its place (RSGAN; with ``r1_r2`` it is R3GAN, Huang et al.
2024, arXiv 2501.05441). The average ones compare each logit with the mean of the others. Each is antisymmetric: the
generator's loss is the discriminator's with real and fake swapped, so it needs the real logits too (``needs_real``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from ganparts.blocks import check_weight, one_of
from ganparts.registry import ADVERSARIAL_LOSSES

__all__ = ["Relativistic", "RelativisticAverage", "rahinge", "ralsgan", "rasgan", "rsgan"]

_WANTS_MORE: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": lambda lead: F.softplus(-lead),
    "lsgan": lambda lead: (lead - 1).square(),
    "hinge": lambda lead: F.relu(1 - lead),
}


@dataclass(frozen=True)
class Relativistic:
    """Pairs logit with logit: D = mean softplus(fake - real), G = weight * mean softplus(real - fake).

    Raises:
        ValueError: real and fake logits of different shapes; no real logits for the generator.
    """

    weight: float = 1.0
    needs_real = True

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        if real.shape != fake.shape:
            raise ValueError(
                f"the relativistic loss pairs each real logit with a fake one, but there are {list(real.shape)} real "
                f"and {list(fake.shape)} fake ones: give it batches of one size, or take 'rasgan'"
            )
        return F.softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return self.weight * self.discriminator(fake, _needed(real))


@dataclass(frozen=True)
class RelativisticAverage:
    """Compares with the mean: D = (mean l(real - mean fake) + mean l(mean real - fake)) / 2; G = weight * the same with
    real and fake swapped. Means are over the batch and all places, for each objective.

    Args:
        base: l; ``"logistic"`` softplus(-x), ``"lsgan"`` (x - 1)^2, ``"hinge"`` relu(1 - x).
        weight: factor on the generator's loss.

    Raises:
        ValueError: an unknown base; no real logits for the generator.
    """

    base: Literal["logistic", "lsgan", "hinge"] = "logistic"
    weight: float = 1.0
    needs_real = True

    def __post_init__(self) -> None:
        one_of("base", self.base, _WANTS_MORE)
        check_weight("weight", self.weight)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        term = _WANTS_MORE[self.base]
        return 0.5 * (term(real - _average(fake)).mean() + term(_average(real) - fake).mean())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return self.weight * self.discriminator(fake, _needed(real))


def _average(logits: Tensor) -> Tensor:
    """The mean of each objective's logits."""
    return logits.mean((0, 2, 3), keepdim=True) if logits.ndim == 4 else logits.mean()


def _needed(real: Tensor | None) -> Tensor:
    if real is None:
        raise ValueError(
            "a relativistic loss needs the real logits for the generator too, but real=None: call generator(fake, real)"
        )
    return real


@ADVERSARIAL_LOSSES.register("rsgan")
def rsgan(*, weight: float = 1.0) -> Relativistic:
    """Relativistic, logit by logit; R3GAN's adversarial loss.

    A fake is judged against a real image, not against a label. With the penalty ``r1_r2`` it needs no tricks to be
    steady.
    """
    return Relativistic(weight)


@ADVERSARIAL_LOSSES.register("rasgan")
def rasgan(*, weight: float = 1.0) -> RelativisticAverage:
    """Relativistic average, logistic.

    Against the mean of the other side, so it wants batches of several images or maps of many logits.
    """
    return RelativisticAverage("logistic", weight)


@ADVERSARIAL_LOSSES.register("ralsgan")
def ralsgan(*, weight: float = 1.0) -> RelativisticAverage:
    """Relativistic average, least squares.

    ``rasgan`` with the least squares of ``lsgan``.
    """
    return RelativisticAverage("lsgan", weight)


@ADVERSARIAL_LOSSES.register("rahinge")
def rahinge(*, weight: float = 1.0) -> RelativisticAverage:
    """Relativistic average, hinge.

    ``rasgan`` with the margin of ``hinge``.
    """
    return RelativisticAverage("hinge", weight)
