"""One training step of pix2pix.

The discriminators are updated first, then the generator against the updated discriminators, as in the reference
implementation. A discriminator is conditional: it sees source and target together, as one image of twice the channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganparts.adversarial import (
    Optimizers,
    consistency_loss,
    constrain,
    losses_of_critics,
    sum_of,
    trained_parameters,
)
from ganparts.blocks import check_sizes
from ganparts.protocols import Pair

if TYPE_CHECKING:
    from ganparts.pix2pix.assembly import Pix2Pix

__all__ = ["train_pix2pix"]


def train_pix2pix(model: Pix2Pix, pair: Pair, optimizers: Optimizers, *, step: int | None = None) -> dict[str, Tensor]:
    """Train generator and discriminators once; see :meth:`ganparts.Pix2Pix.train_step`."""
    optimizers.zero_grad()
    source, target = pair
    check_sizes(source, target, aligned=True)
    fake = model.generator(source)
    real_pair, fake_pair = torch.cat([source, target], 1), torch.cat([source, fake.detach()], 1)
    each = [critic.discriminate(real_pair, fake_pair, optimizers, step=step) for critic in model.critics]
    if "discriminators" in optimizers:
        optimizers.step("discriminators")
    judged = [critic.gradient(fake_pair, optimizers, real=real_pair) for critic in model.critics]
    gradient = sum_of([one.gradient for one in judged])[:, source.shape[1] :]
    reconstruction = model.reconstruction_weight * consistency_loss(model.reconstruction, fake, target)
    optimizers.backward(reconstruction, trained_parameters(model.generator), onward=(fake, gradient))
    if "generators" in optimizers:
        optimizers.step("generators")
    constrain([model.generator])
    losses = (
        losses_of_critics("gan", [one.generator for one in judged])
        | {"reconstruction": reconstruction}
        | losses_of_critics("disc", [loss for loss, _ in each])
        | losses_of_critics("penalty", [penalty for _, penalty in each])
    )
    return {name: loss.detach() for name, loss in losses.items()}
