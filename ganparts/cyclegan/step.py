"""One training step of a CycleGAN.

Built for speed: nothing is asked of the device, so it runs on ``meta`` too, and no module is toggled: each gradient
goes where it belongs by ``backward(inputs=...)``. The reference updates the generators before it looks at the
discriminators' losses; those do not depend on the generators' weights but through images already made, so here all
losses come first, then all gradients, then all updates, with the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganparts.cyclegan.assembly import CycleGAN, Translation
from ganparts.cyclegan.batching import apply_to_each
from ganparts.cyclegan.losses import Logits, discriminator_loss, generator_loss
from ganparts.cyclegan.optimizers import Optimizers
from ganparts.protocols import AdversarialLoss, Augment, Pair

__all__ = ["train_step"]


def train_step(model: CycleGAN, pair: Pair, optimizers: Optimizers) -> dict[str, Tensor]:
    """Train all four networks once.

    Args:
        model: the assembly; its replay buffers are drawn from and filled.
        pair: images of both domains, on the model's device.
        optimizers: from :func:`make_optimizers`.

    Returns:
        The weighted losses, scalars, detached, on the device: ``gan_ab``, ``gan_ba`` (each generator's adversarial
        loss), ``cycle_a``, ``cycle_b``, ``identity_a``, ``identity_b`` (only where their weight is not 0),
        ``disc_a``, ``disc_b`` (the mean of the real and the fake term), and ``penalty_a``, ``penalty_b`` where an
        adversarial loss has one.
    """
    translation = model(pair)
    judged_a = _judge(
        model.discriminator_a, model.adversarial_a, pair.a, translation.fake_a, model.replay_a, model.augment_a
    )
    judged_b = _judge(
        model.discriminator_b, model.adversarial_b, pair.b, translation.fake_b, model.replay_b, model.augment_b
    )
    generators = {"gan_ab": judged_b.generator, "gan_ba": judged_a.generator} | _consistency(model, pair, translation)
    discriminators = {"disc_a": judged_a.discriminator, "disc_b": judged_b.discriminator}
    for name, judged in (("penalty_a", judged_a), ("penalty_b", judged_b)):
        if judged.penalty is not None:
            discriminators[name] = judged.penalty

    optimizers.zero_grad()
    # Without a replay buffer both losses share the pass over the fakes, so the first must leave its graph.
    optimizers.backward(_sum(discriminators), optimizers.discriminator_parameters, retain_graph=True)
    optimizers.backward(_sum(generators), optimizers.generator_parameters)
    optimizers.step()
    return {name: loss.detach() for name, loss in (generators | discriminators).items()}


def _sum(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _consistency(model: CycleGAN, pair: Pair, translation: Translation) -> dict[str, Tensor]:
    """The weighted cycle and identity losses of both domains."""
    cycle_a, cycle_b = model.weights.pair("cycle")
    identity_a, identity_b = model.weights.pair("identity")
    losses = {
        "cycle_a": cycle_a * model.cycle_a(translation.cycled_a, pair.a),
        "cycle_b": cycle_b * model.cycle_b(translation.cycled_b, pair.b),
    }
    if translation.identity_a is not None:
        losses["identity_a"] = identity_a * model.identity_a(translation.identity_a, pair.a)
    if translation.identity_b is not None:
        losses["identity_b"] = identity_b * model.identity_b(translation.identity_b, pair.b)
    return losses


class _Judged(NamedTuple):
    """The adversarial losses of one domain."""

    generator: Tensor
    discriminator: Tensor
    penalty: Tensor | None


def _judge(
    discriminator: nn.Module,
    loss: AdversarialLoss,
    real: Tensor,
    fake: Tensor,
    replay: nn.Module,
    augment: Augment | None,
) -> _Judged:
    """What one discriminator says of real and generated images, as losses.

    One augmented set of images serves both networks: the generator is judged by ``fake``, the discriminator by
    ``real`` and what the replay buffer gives for ``fake``, which without a buffer is ``fake`` itself, seen once.
    """
    images = [real, fake]
    if not isinstance(replay, nn.Identity):
        images.append(replay(fake.detach()))
    if augment is not None:
        images = augment(torch.cat(images)).split([len(batch) for batch in images])
    real, fake, *replayed = images
    fake_logits: Logits = discriminator(fake)
    real_logits, *replayed_logits = apply_to_each(discriminator, real, *replayed)
    penalty = getattr(loss, "penalty", None)
    return _Judged(
        generator_loss(loss, fake_logits, real_logits if getattr(loss, "needs_real", False) else None),
        discriminator_loss(loss, real_logits, replayed_logits[0] if replayed else fake_logits),
        None if penalty is None else penalty(discriminator, real.detach(), images[-1].detach()),
    )
