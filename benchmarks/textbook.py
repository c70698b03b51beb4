"""A training step as textbooks and the reference implementation write it: what ours must equal and beat.

Six generator calls, discriminators frozen by ``requires_grad`` during the generators' update, a pass of its own for
every batch, a Python list for the replay buffer. It uses the model's networks and losses and nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ganparts import CycleGAN, Pair
from ganparts.cyclegan import Optimizers

__all__ = ["HistoryList", "textbook_step"]

Replay = Callable[[Tensor], Tensor]
Augmenter = Callable[[str, str, Tensor], Tensor]


class HistoryList:
    """The replay buffer of the paper as a list, driven by given draws: (swap if full, place) for each image."""

    def __init__(self, size: int, draws: Iterator[tuple[bool, int]]):
        self.size, self.draws, self.images = size, draws, []

    def __call__(self, batch: Tensor) -> Tensor:
        returned = []
        for image in batch:
            swap, place = next(self.draws)
            if len(self.images) < self.size:
                self.images.append(image.clone())
                returned.append(image)
            elif swap:
                returned.append(self.images[place])
                self.images[place] = image.clone()
            else:
                returned.append(image)
        return torch.stack(returned)


def _freeze(networks: tuple[nn.Module, ...], frozen: bool) -> None:
    for network in networks:
        network.requires_grad_(not frozen)


def textbook_step(
    model: CycleGAN,
    pair: Pair,
    optimizers: Optimizers,
    *,
    replay_a: Replay | None = None,
    replay_b: Replay | None = None,
    augment: Augmenter = lambda domain, role, images: images,
) -> dict[str, Tensor]:
    """Train all four networks once.

    Args:
        model: whose networks, losses and weights are used.
        pair: images of both domains.
        optimizers: of the model.
        replay_a: of generated images of domain a; None for no memory.
        replay_b: of domain b.
        augment: called with the domain ("a", "b"), the role ("real", "fake", "replayed") and images.

    Returns:
        The weighted losses, as :func:`ganparts.train_step` names them.
    """
    real_a, real_b = pair
    g_ab, g_ba = model.generator_ab, model.generator_ba
    d_a, d_b = model.discriminator_a, model.discriminator_b
    (cycle_a, cycle_b), (identity_a, identity_b) = model.weights.pair("cycle"), model.weights.pair("identity")

    fake_b = g_ab(real_a)
    cycled_a = g_ba(fake_b)
    fake_a = g_ba(real_b)
    cycled_b = g_ab(fake_a)

    _freeze((d_a, d_b), True)
    optimizers.generators.zero_grad()
    losses = {
        "gan_ab": model.adversarial_b.generator(d_b(augment("b", "fake", fake_b))),
        "gan_ba": model.adversarial_a.generator(d_a(augment("a", "fake", fake_a))),
        "cycle_a": (cycled_a - real_a).abs().mean() * cycle_a,
        "cycle_b": (cycled_b - real_b).abs().mean() * cycle_b,
    }
    if identity_a:
        losses["identity_a"] = (g_ba(real_a) - real_a).abs().mean() * identity_a
    if identity_b:
        losses["identity_b"] = (g_ab(real_b) - real_b).abs().mean() * identity_b
    sum(losses.values(), torch.zeros_like(losses["gan_ab"])).backward()
    optimizers.generators.step()

    _freeze((d_a, d_b), False)
    optimizers.discriminators.zero_grad()
    domains = (
        ("a", d_a, model.adversarial_a, real_a, fake_a, replay_a),
        ("b", d_b, model.adversarial_b, real_b, fake_b, replay_b),
    )
    for domain, discriminator, adversarial, real, fake, replay in domains:
        role = "fake" if replay is None else "replayed"
        seen = fake.detach() if replay is None else replay(fake.detach())
        real_logits = discriminator(augment(domain, "real", real))
        losses[f"disc_{domain}"] = adversarial.discriminator(real_logits, discriminator(augment(domain, role, seen)))
        losses[f"disc_{domain}"].backward()
    optimizers.discriminators.step()
    return {name: loss.detach() for name, loss in losses.items()}
