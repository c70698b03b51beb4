"""Penalties on the gradient of a discriminator at its images.

Each is called as ``penalty(discriminator, real, fake)`` and gives a scalar, its weight included, to be added to the
discriminator's loss. It runs the discriminator itself, in fp32 even under autocast: a gradient's gradient needs it.

R1, R2: Mescheder et al. 2018, arXiv 1801.04406. Both together: R3GAN, Huang et al. 2024, arXiv 2501.05441. Gradient
penalty: Gulrajani et al. 2017, arXiv 1704.00028, as the CycleGAN and CUT code has it. Zero-centred: UVCGAN2, Torbunov
et al. 2023, arXiv 2303.16280.

A discriminator's output is reduced to one number for each image (``reduction``). ``"sum"`` adds up all logits of all
maps. ``"mean"`` averages each map, then the maps. For a 30x30 map the sum's gradient is 900 times the mean's, so a
weight that was published for a single logit is far too large for the sum of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ganparts.blocks import check_weight, one_of
from ganparts.precision import at_least_fp32, without_autocast
from ganparts.registry import PENALTIES

__all__ = [
    "GradientNorm",
    "GradientPenalty",
    "ZeroCentered",
    "gradient_penalty",
    "image_gradients",
    "logit_maps",
    "r1",
    "r1_r2",
    "r2",
    "zero_centered",
]

Reduction = Literal["sum", "mean"]


def logit_maps(discriminator: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """A discriminator's maps of logits, one or several, in at least fp32."""
    logits = discriminator(images)
    return tuple(map(at_least_fp32, (logits,) if isinstance(logits, Tensor) else logits))


def image_gradients(discriminator: nn.Module, images: Tensor, reduction: Reduction = "sum") -> Tensor:
    """The gradient of each image's reduced logits at its values: [B, C * H * W], itself differentiable.

    Args:
        discriminator: called once, with autocast off.
        images: [B, C, H, W]; no gradient flows back beyond them.
        reduction: how an image's logits become one number, see above.

    Raises:
        ValueError: an unknown reduction.
    """
    one_of("reduction", reduction, ("sum", "mean"))
    images = at_least_fp32(images.detach()).requires_grad_()
    with without_autocast(images.device):
        maps = logit_maps(discriminator, images)
        if reduction == "sum":
            total = torch.stack([logits.sum() for logits in maps]).sum()
        else:
            total = torch.stack([logits.mean() for logits in maps]).mean() * len(images)
        (gradient,) = torch.autograd.grad(total, images, create_graph=True)
        return gradient.flatten(1)


@dataclass(frozen=True)
class GradientNorm:
    """weight / 2 * mean over images of the squared norm of the gradient.

    Args:
        weight: the papers' gamma.
        where: at ``"real"`` images (R1), at ``"fake"`` ones (R2), or at ``"both"``, added up (R3GAN).
        reduction: of an image's logits, ``"sum"`` or ``"mean"``.

    Raises:
        ValueError: an unknown ``where`` or ``reduction``.
    """

    weight: float = 10.0
    where: Literal["real", "fake", "both"] = "real"
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        one_of("where", self.where, ("real", "fake", "both"))
        one_of("reduction", self.reduction, ("sum", "mean"))
        check_weight("weight", self.weight)

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        batches = {"real": [real], "fake": [fake], "both": [real, fake]}[self.where]
        norms = [image_gradients(discriminator, images, self.reduction).square().sum(1).mean() for images in batches]
        return 0.5 * self.weight * torch.stack(norms).sum()


@dataclass(frozen=True)
class GradientPenalty:
    """weight * mean over images of (norm of the gradient - constant)^2, by default between real and fake images.

    UVCGAN (Torbunov et al. 2022, arXiv 2203.02557) is this with ``weight=0.1 / 100**2, constant=100``.

    Args:
        weight: factor.
        constant: the norm that is wanted.
        where: at ``"mixed"`` images of real and fake, each with a share of its own, or at ``"real"`` or ``"fake"``.
        reduction: of an image's logits, ``"sum"`` or ``"mean"``.

    Raises:
        ValueError: an unknown ``where`` or ``reduction``; when called, real and fake images that cannot be mixed.
    """

    weight: float = 10.0
    constant: float = 1.0
    where: Literal["mixed", "real", "fake"] = "mixed"
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        one_of("where", self.where, ("mixed", "real", "fake"))
        one_of("reduction", self.reduction, ("sum", "mean"))
        check_weight("weight", self.weight)
        check_weight("constant", self.constant)

    def draw(self, images: Tensor) -> Tensor:
        """The share of the real image in each mixture: [B] in [0, 1)."""
        return torch.rand(len(images), device=images.device)

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return self.apply_draws(discriminator, real, fake, self.draw(real))

    def apply_draws(self, discriminator: nn.Module, real: Tensor, fake: Tensor, shares: Tensor) -> Tensor:
        """The penalty as a function of images and random numbers."""
        images = {"real": real, "fake": fake}[self.where] if self.where != "mixed" else _mixed(real, fake, shares)
        gradients = image_gradients(discriminator, images, self.reduction)
        norms = (gradients + 1e-16).norm(dim=1)  # a norm of exact zeros has no gradient
        return self.weight * (norms - self.constant).square().mean()


@dataclass(frozen=True)
class ZeroCentered:
    """weight * mean over images of the squared norm of the gradient, between real and fake images.

    The whole batch is mixed with one share. UVCGAN2's images are in [0, 1], where gradients are twice as large: its
    weight of 1 corresponds to 4 here.

    Args:
        weight: factor.
        reduction: of an image's logits, ``"mean"`` (the paper's) or ``"sum"``.

    Raises:
        ValueError: an unknown reduction; when called, real and fake images that cannot be mixed.
    """

    weight: float = 1.0
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        one_of("reduction", self.reduction, ("sum", "mean"))
        check_weight("weight", self.weight)

    def draw(self, images: Tensor) -> Tensor:
        """The share of the real images in the mixture: [1] in [0, 1)."""
        return torch.rand(1, device=images.device)

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return self.apply_draws(discriminator, real, fake, self.draw(real))

    def apply_draws(self, discriminator: nn.Module, real: Tensor, fake: Tensor, shares: Tensor) -> Tensor:
        """The penalty as a function of images and random numbers."""
        gradients = image_gradients(discriminator, _mixed(real, fake, shares), self.reduction)
        return self.weight * gradients.square().sum(1).mean()


def _mixed(real: Tensor, fake: Tensor, shares: Tensor) -> Tensor:
    if real.shape != fake.shape:
        raise ValueError(
            f"this penalty mixes real with fake images, but they have the shapes {list(real.shape)} and "
            f"{list(fake.shape)}: give it batches of one shape, or take 'r1'"
        )
    real, fake = at_least_fp32(real), at_least_fp32(fake)
    shares = shares.to(real.dtype).view(-1, *[1] * (real.ndim - 1))
    return shares * real + (1 - shares) * fake


@PENALTIES.register("r1")
def r1(*, weight: float = 10.0, reduction: Reduction = "sum") -> GradientNorm:
    """R1: weight / 2 * squared gradient at real images. The default weight is meant for a single logit.

    The usual penalty for discriminators without norm. Every 16 steps are enough (``penalty_every=16``).
    """
    return GradientNorm(weight, "real", reduction)


@PENALTIES.register("r2")
def r2(*, weight: float = 10.0, reduction: Reduction = "sum") -> GradientNorm:
    """R2: weight / 2 * squared gradient at fake images. The default weight is meant for a single logit.

    Rarely used alone.
    """
    return GradientNorm(weight, "fake", reduction)


@PENALTIES.register("r1_r2")
def r1_r2(*, weight: float = 10.0, reduction: Reduction = "sum") -> GradientNorm:
    """R1 and R2 together; with the loss ``rsgan`` this is R3GAN.

    For relativistic losses: both real and generated images are regularised.
    """
    return GradientNorm(weight, "both", reduction)


@PENALTIES.register("gradient_penalty")
def gradient_penalty(
    *,
    weight: float = 10.0,
    constant: float = 1.0,
    where: Literal["mixed", "real", "fake"] = "mixed",
    reduction: Reduction = "sum",
) -> GradientPenalty:
    """WGAN-GP: gradients between real and fake images have the norm 1.

    For the loss ``wgan``.
    """
    return GradientPenalty(weight, constant, where, reduction)


@PENALTIES.register("zero_centered")
def zero_centered(*, weight: float = 1.0, reduction: Reduction = "mean") -> ZeroCentered:
    """UVCGAN2's: gradients between real and fake images vanish.

    For ``batch_head``.
    """
    return ZeroCentered(weight, reduction)
