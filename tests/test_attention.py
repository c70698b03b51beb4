"""The loss of U-GAT-IT's attention, and a whole step of U-GAT-IT, against the formulas written out."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts import (
    DISCRIMINATORS,
    GENERATORS,
    CycleGAN,
    LossWeights,
    Pair,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import trained_parameters
from ganparts.cyclegan.attention import look
from ganparts.discriminators import PatchGAN
from ganparts.generators import UGATITGenerator

tiny: dict[str, Any] = {
    "generator": partial(GENERATORS.create, "ugatit", width=2, blocks=1),
    "discriminator": [partial(DISCRIMINATORS.create, name, width=2) for name in ("ugatit_local", "ugatit_global")],
}


def pair(batch: int = 2, size: int = 96) -> Pair:
    return Pair(*(torch.rand(2, batch, 3, size, size, dtype=torch.float64) * 2 - 1))


def squares(maps: tuple[Tensor, ...], label: float) -> Tensor:
    return torch.stack([(logits - label).square().mean() for logits in maps]).sum()


def entropy(logits: Tensor, label: float) -> Tensor:
    """-log of the probability that the logits give the label."""
    return (F.softplus(-logits) if label else F.softplus(logits)).mean()


def written_out(model: CycleGAN, images: Pair) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """A step of U-GAT-IT as published: its losses by our names, and the generators' and the discriminators' sums."""
    losses: dict[str, Tensor] = {}
    judged = []
    for here, there, source, target, generator, backward, critics in (
        ("a", "b", images.a, images.b, model.generator_ab, model.generator_ba, model.critics_b),
        ("b", "a", images.b, images.a, model.generator_ba, model.generator_ab, model.critics_a),
    ):
        fake, says_source, _ = generator.forward_with_attention(source)
        same, says_target, _ = generator.forward_with_attention(target)
        losses[f"cycle_{here}"] = 10 * (backward(fake) - source).abs().mean()
        losses[f"identity_{there}"] = 10 * (same - target).abs().mean()
        attention = entropy(says_source, 1) + entropy(says_target, 0)
        losses[f"attention_{here}{there}"] = 1000 * attention
        for number, critic in enumerate(critics):
            made, real = critic.discriminator(fake), critic.discriminator(target)
            losses[f"gan_{here}{there}_{number}"] = squares(made, 1)
            judged.append(squares(real, 1) + squares(made, 0))
    return losses, torch.stack(list(losses.values())).sum(), torch.stack(judged).sum()


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_step_of_ugatit_is_the_published_one(low_memory: bool):
    model = build_cyclegan("ugatit", **tiny).double()
    oracle, images = deepcopy(model), pair()
    expected, of_generators, of_discriminators = written_out(oracle, images)
    losses = train_step(model, images, make_optimizers(model), low_memory=low_memory)
    assert len(expected) == 10
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss.detach(), rtol=1e-9, atol=1e-12, msg=name)
    for which, total, factor in (("generators", of_generators, 1), ("discriminators", of_discriminators, 4)):
        theirs = trained_parameters(*oracle.networks()[which].values())
        gradients = torch.autograd.grad(total, theirs, retain_graph=True)
        ours = trained_parameters(*model.networks()[which].values())
        for parameter, gradient in zip(ours, gradients, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(factor * parameter.grad, gradient, rtol=1e-7, atol=1e-9)


def test_shares_of_norms_are_clipped_after_a_step():
    model = build_cyclegan("ugatit", **tiny)
    shares = [p for network in model.stages().values() for n, p in network.named_parameters() if n.endswith("rho")]
    for number, share in enumerate(shares):
        share.data.fill_(1.7 if number % 2 else -0.3)
    train_step(model, Pair(*torch.rand(2, 1, 3, 96, 96)), make_optimizers(model))
    assert {float(value) for share in shares for value in share.detach().flatten()} == {0.0, 1.0}


@pytest.mark.parametrize("low_memory", [False, True])
def test_each_generators_attention_has_its_own_weight(low_memory: bool):
    small = {"generator": tiny["generator"], "discriminator": partial(PatchGAN, width=2)}
    model = build_cyclegan(**small, weights=LossWeights(identity=0.0, attention=(0.0, 3.0))).double()
    oracle, images = deepcopy(model), pair(size=32)
    losses = train_step(model, images, make_optimizers(model), low_memory=low_memory)
    assert list(losses) == ["gan_ab", "gan_ba", "cycle_a", "cycle_b", "attention_ab", "disc_a", "disc_b"]
    logits = [oracle.generator_ab.forward_with_attention(batch)[1] for batch in images]
    expected = 3 * (entropy(logits[0], 1) + entropy(logits[1], 0))
    torch.testing.assert_close(losses["attention_ab"], expected.detach(), rtol=1e-9, atol=1e-12)


class Mixing(nn.Module):
    """Its images depend on each other, and it says more than two things."""

    def __init__(self):
        super().__init__()
        self.batches: list[int] = []

    def forward_with_attention(self, images: Tensor) -> tuple[Tensor, Tensor, str]:
        self.batches.append(len(images))
        return images - images.mean(), images.mean((1, 2, 3)), "more"


def test_batches_go_through_together_only_where_images_are_independent():
    first, second = torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 8)
    mixing = Mixing()
    seen = look(mixing, first, second)
    assert mixing.batches == [2, 1]
    torch.testing.assert_close(seen[1].image, second - second.mean())
    generator = UGATITGenerator(width=2, blocks=1)
    calls: list[int] = []
    generator.DownBlock.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    both = look(generator, first, second)
    assert calls == [3]
    for one, batch in zip(both, (first, second), strict=True):
        alone = generator.forward_with_attention(batch)
        torch.testing.assert_close((one.image, one.logits), (alone.image, alone.logits))
