"""The gradient penalty of UVCGAN2 (Torbunov et al. 2023, arXiv 2303.16280) for a discriminator with queues."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from ganparts.losses import ZeroCentered

__all__ = ["QueuedZeroCentered"]


@dataclass(frozen=True)
class QueuedZeroCentered:
    """A zero-centred penalty whose mixed images are compared with the discriminator's queues, mixed by the same share.

    Without queues, or behind an augmentation, it is the penalty alone. Deviation from the source: the penalty comes
    after the discriminator's own passes, so the queues hold the images of this step already.

    Args:
        penalty: on the gradient between real and fake images.
    """

    penalty: ZeroCentered = field(default_factory=ZeroCentered)

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        shares = self.penalty.draw(real)
        if getattr(discriminator, "has_queues", False):
            discriminator = _WithMixedQueues(discriminator, shares)
        return self.penalty.apply_draws(discriminator, real, fake, shares)


class _WithMixedQueues(nn.Module):
    def __init__(self, discriminator: nn.Module, shares: Tensor):
        super().__init__()
        self.discriminator, self.shares = discriminator, shares

    def forward(self, images: Tensor) -> Tensor:
        return self.discriminator(images, queue="mixed", alpha=self.shares)
