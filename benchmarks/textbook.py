"""A training step as textbooks and the reference implementation write it: what ours must equal and beat.

Six generator calls, discriminators frozen by ``requires_grad`` during the generators' update, a pass of its own for
every batch, a Python list for the replay buffer. It uses the model's networks and losses and nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganparts import CycleGAN, Pair
from ganparts.adversarial import Optimizers

__all__ = ["HistoryList", "textbook_step"]

Replay = Callable[[Tensor], Tensor] | None
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


def _frozen(networks: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Freeze networks; the parameters that were trained."""
    trained = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    return trained


def _mean_over_scales(loss: Callable[..., Tensor], *logits: Any) -> Tensor:
    """A loss of maps of logits, or its mean over scales, where a discriminator judges at several."""
    if isinstance(logits[0], Tensor):
        return loss(*logits)
    each = [loss(*maps) for maps in zip(*logits, strict=True)]
    return sum(each[1:], each[0]) / len(each)


def textbook_step(
    model: CycleGAN,
    pair: Pair,
    optimizers: Optimizers,
    *,
    replay_a: Replay | Sequence[Replay] = None,
    replay_b: Replay | Sequence[Replay] = None,
    augment: Augmenter = lambda domain, role, images: images,
    step: int | None = None,
) -> dict[str, Tensor]:
    """Train all networks once.

    Args:
        model: whose networks, losses, penalties and weights are used.
        pair: images of both domains.
        optimizers: of the model.
        replay_a: of generated images of domain a, one or one for each critic; None for no memory.
        replay_b: of domain b.
        augment: called with the domain ("a", "b"), the role ("real", "fake", "replayed", "penalty") and images.
        step: the number of the step, which lazy penalties ask for; None: they apply with their plain weight.

    Returns:
        The weighted losses, as :func:`ganparts.train_step` names them.
    """
    real_a, real_b = pair
    g_ab, g_ba = model.generator_ab, model.generator_ba
    (cycle_a, cycle_b), (identity_a, identity_b) = model.weights.of("cycle"), model.weights.of("identity")

    fake_b = g_ab(real_a)
    cycled_a = g_ba(fake_b)
    fake_a = g_ba(real_b)
    cycled_b = g_ab(fake_a)

    domains: tuple[Any, ...] = (
        ("b", "ab", list(model.critics_b), real_b, fake_b, replay_b),
        ("a", "ba", list(model.critics_a), real_a, fake_a, replay_a),
    )
    trained = _frozen([critic.discriminator for _, _, critics, *_ in domains for critic in critics])
    optimizers["generators"].zero_grad()
    losses = {
        "cycle_a": (cycled_a - real_a).abs().mean() * cycle_a,
        "cycle_b": (cycled_b - real_b).abs().mean() * cycle_b,
    }
    if identity_a:
        losses["identity_a"] = (g_ba(real_a) - real_a).abs().mean() * identity_a
    if identity_b:
        losses["identity_b"] = (g_ab(real_b) - real_b).abs().mean() * identity_b
    total = sum(losses.values(), torch.zeros_like(losses["cycle_a"]))
    for domain, way, critics, real, fake, _ in domains:
        each = []
        for critic in critics:
            logits = [critic.discriminator(augment(domain, "fake", fake))]
            if getattr(critic.loss, "needs_real", False):
                logits.append(critic.discriminator(augment(domain, "real", real)))
            each.append(_mean_over_scales(critic.loss.generator, *logits))
        losses |= _named(f"gan_{way}", each)
        total = total + losses[f"gan_{way}"]
    total.backward()
    optimizers["generators"].step()

    for parameter in trained:
        parameter.requires_grad_(True)
    optimizers["discriminators"].zero_grad()
    for domain, _, critics, real, fake, given in domains:
        each, penalties = [], list[Tensor | None]()
        for critic, replay in zip(
            critics, given if isinstance(given, Sequence) else [given] * len(critics), strict=True
        ):
            role = "fake" if replay is None else "replayed"
            seen = fake.detach() if replay is None else replay(fake.detach())
            logits = [critic.discriminator(augment(domain, *shown)) for shown in (("real", real), (role, seen))]
            loss = _mean_over_scales(critic.loss.discriminator, *logits)
            each.append(loss)
            penalties.append(None)
            if critic.penalty is not None and (step is None or step % critic.penalty_every == 0):
                judged = _Judged(critic.discriminator, lambda images, domain=domain: augment(domain, "penalty", images))
                factor = 1 if step is None else critic.penalty_every
                penalties[-1] = penalty = factor * critic.penalty(judged, real, fake.detach())
                loss = loss + penalty
            loss.backward()
        losses |= _named(f"disc_{domain}", each) | _named(f"penalty_{domain}", penalties)
    optimizers["discriminators"].step()
    return {name: loss.detach() for name, loss in losses.items()}


class _Judged(nn.Module):
    """A discriminator of augmented images, as a penalty sees it."""

    def __init__(self, discriminator: nn.Module, augment: Callable[[Tensor], Tensor]):
        super().__init__()
        self.discriminator, self.augment = discriminator, augment

    def forward(self, images: Tensor) -> Any:
        return self.discriminator(self.augment(images))


def _named(name: str, each: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """The sum of several critics' losses, and each one; a critic may have none."""
    given = {f"{name}_{number}": loss for number, loss in enumerate(each) if loss is not None}
    if not given:
        return {}
    first, *others = given.values()
    return {name: sum(others, first), **(given if len(each) > 1 else {})}
