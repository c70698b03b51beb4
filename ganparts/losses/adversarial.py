"""Adversarial losses: what makes a discriminator tell real from generated, and a generator deceive it.

Each is a small object with two methods, ``discriminator(real, fake)`` and ``generator(fake, real=None)``, on logits
[B, objectives, H', W'] of any shape. The discriminator's loss is the mean of its real and its fake term. ``weight``
is the factor on the generator's loss: the adversarial weight belongs here, beside the loss whose scale it sets.

LSGAN: Mao et al. 2017, arXiv 1611.04076. Hinge: Lim and Ye 2017, arXiv 1705.02894. BCE and logistic: Goodfellow et al.
2014, arXiv 1406.2661, in the non-saturating form. WGAN: Arjovsky et al. 2017, arXiv 1701.07875. Two objectives: the
Kaggle notebook "Two-objective discriminator". Losses that compare real with fake logits are in ``relativistic.py``.

Deviation: hinge, logistic and WGAN are published as the sum of the real and the fake term, twice the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from ganparts.blocks import check_weight
from ganparts.protocols import AdversarialLoss
from ganparts.registry import ADVERSARIAL_LOSSES

__all__ = [
    "BCE",
    "LSGAN",
    "WGAN",
    "Hinge",
    "Logistic",
    "MultiObjective",
    "bce",
    "hinge",
    "logistic",
    "lsgan",
    "two_objective",
    "wgan",
]


@dataclass(frozen=True)
class _Weighted:
    """What the losses have in common: the factor on the generator's loss."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)


@dataclass(frozen=True)
class LSGAN(_Weighted):
    """Least squares: D = (mean (real - 1)^2 + mean fake^2) / 2, G = weight * mean (fake - 1)^2."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return self.weight * (fake - 1).square().mean()


@dataclass(frozen=True)
class BCE(_Weighted):
    """Cross-entropy from logits: D = (BCE(real, real_label) + BCE(fake, fake_label)) / 2,
    G = weight * BCE(fake, real_label).

    Args:
        weight: factor on the generator's loss.
        real_label: target for real images, from 0 to 1; with 0 (and ``fake_label`` 1) the
            labels are inverted, for both networks.
        fake_label: target for generated images.

    Raises:
        ValueError: a label outside 0 to 1, or a negative weight.
    """

    real_label: float = 1.0
    fake_label: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("real_label", "fake_label"):
            label = getattr(self, name)
            if not isinstance(label, Real) or not 0 <= float(label) <= 1:
                raise ValueError(f"{name}={label!r}: give a number from 0 to 1")

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * (_bce(real, self.real_label) + _bce(fake, self.fake_label))

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return self.weight * _bce(fake, self.real_label)


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


@dataclass(frozen=True)
class Hinge(_Weighted):
    """D = (mean relu(1 - real) + mean relu(1 + fake)) / 2, G = -weight * mean fake."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -self.weight * fake.mean()


@dataclass(frozen=True)
class Logistic(_Weighted):
    """D = (mean softplus(-real) + mean softplus(fake)) / 2, G = weight * mean softplus(-fake).

    The non-saturating loss of StyleGAN. It equals :class:`BCE` with labels 1 and 0.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return self.weight * F.softplus(-fake).mean()


@dataclass(frozen=True)
class WGAN(_Weighted):
    """D = (mean fake - mean real) / 2, G = -weight * mean fake.

    The discriminator must be kept Lipschitz: add a penalty such as ``gradient_penalty``. Since this loss is half the
    published one, a published penalty weight of 10 corresponds to 5 here.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * (fake.mean() - real.mean())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -self.weight * fake.mean()


@dataclass(frozen=True)
class MultiObjective:
    """Gives each channel of the logits a loss of its own and adds them up.

    Args:
        losses: one for each channel.
        weight: factor on the sum of the generator's losses; the discriminator's is the plain sum.

    Raises:
        ValueError: no losses, or a negative weight; when called, logits that have another number of channels.
    """

    losses: Sequence[AdversarialLoss]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses=() judges no channel: give a loss for each channel of the logits")
        check_weight("weight", self.weight)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        pairs = zip(self.losses, self._channels(real), self._channels(fake), strict=True)
        return torch.stack([loss.discriminator(r, f) for loss, r, f in pairs]).sum()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        reals = [None] * len(self.losses) if real is None else self._channels(real)
        triples = zip(self.losses, self._channels(fake), reals, strict=True)
        return self.weight * torch.stack([loss.generator(f, r) for loss, f, r in triples]).sum()

    @property
    def needs_real(self) -> bool:
        return any(getattr(loss, "needs_real", False) for loss in self.losses)

    def _channels(self, logits: Tensor) -> list[Tensor]:
        if logits.shape[1] != len(self.losses):
            raise ValueError(
                f"this loss has {len(self.losses)} objectives, but the discriminator's logits have {logits.shape[1]} "
                f"channel(s): take a discriminator with objectives={len(self.losses)}, such as 'two_objective' for 2"
            )
        return list(logits.split(1, 1))


@ADVERSARIAL_LOSSES.register("lsgan")
def lsgan(*, weight: float = 1.0) -> LSGAN:
    """Least squares, the paper's CycleGAN.

    Its gradient grows with the distance from the label, which makes it stable; the usual choice with
    ``patchgan``.
    """
    return LSGAN(weight)


@ADVERSARIAL_LOSSES.register("bce")
def bce(*, weight: float = 1.0, real_label: float = 1.0, fake_label: float = 0.0) -> BCE:
    """Binary cross-entropy from logits, the Keras tutorial's.

    The classic one. Labels such as ``real_label=0.9`` keep the discriminator from being too sure.
    """
    return BCE(weight, real_label, fake_label)


@ADVERSARIAL_LOSSES.register("hinge")
def hinge(*, weight: float = 1.0) -> Hinge:
    """Hinge.

    It leaves alone what is already judged well enough. Usual with spectral norm and with ``projected``.
    """
    return Hinge(weight)


@ADVERSARIAL_LOSSES.register("logistic")
def logistic(*, weight: float = 1.0) -> Logistic:
    """Non-saturating logistic, StyleGAN's.

    ``bce`` with labels 1 and 0, without options for them. Usual with ``stylegan2`` and the penalty ``r1``.
    """
    return Logistic(weight)


@ADVERSARIAL_LOSSES.register("wgan")
def wgan(*, weight: float = 1.0) -> WGAN:
    """Wasserstein; needs a penalty such as ``gradient_penalty``.

    For logits that mean a distance: they stay informative however well the discriminator does, if the penalty holds.
    """
    return WGAN(weight)


@ADVERSARIAL_LOSSES.register("two_objective")
def two_objective(*, weight: float = 0.4) -> MultiObjective:
    """Hinge on the first channel, cross-entropy with inverted labels on the second; the generator gets 0.4 of both.

    For the discriminator of the same name.
    """
    return MultiObjective((Hinge(), BCE(real_label=0.0, fake_label=1.0)), weight)
