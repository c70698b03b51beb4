"""Losses as pure functions of logits and images: nothing here knows a network.

They are computed in at least fp32, whatever precision the networks work in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganparts.precision import at_least_fp32
from ganparts.protocols import AdversarialLoss, ConsistencyLoss

__all__ = ["Logits", "as_scales", "consistency_loss", "discriminator_loss", "generator_loss"]

Logits = Tensor | Sequence[Tensor]
"""A map [B, objectives, H', W'], or several, one a scale."""


def as_scales(logits: Logits) -> tuple[Tensor, ...]:
    """The maps of a discriminator that judges at one scale or at several, in at least fp32."""
    return tuple(map(at_least_fp32, (logits,) if isinstance(logits, Tensor) else logits))


def consistency_loss(loss: ConsistencyLoss, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of two batches of images of one shape."""
    return loss(at_least_fp32(prediction), at_least_fp32(target))


def generator_loss(loss: AdversarialLoss, fake: Logits, real: Logits | None = None) -> Tensor:
    """The generator's adversarial loss, the mean over scales; ``real`` for losses that need it."""
    fakes = as_scales(fake)
    reals = [None] * len(fakes) if real is None else as_scales(real)
    return torch.stack([loss.generator(f, r) for f, r in zip(fakes, reals, strict=True)]).mean()


def discriminator_loss(loss: AdversarialLoss, real: Logits, fake: Logits) -> Tensor:
    """The discriminator's loss, the mean over scales."""
    pairs = zip(as_scales(real), as_scales(fake), strict=True)
    return torch.stack([loss.discriminator(r, f) for r, f in pairs]).mean()
