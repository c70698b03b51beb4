from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganparts import ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES
from ganparts.cyclegan import discriminator_loss, generator_loss
from ganparts.losses import BCE, LSGAN, Hinge, MultiObjective

logit = st.floats(-5, 5, allow_subnormal=False)


def maps(real: float, fake: float, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.full((2, channels, 3, 3), v, dtype=torch.float64) for v in (real, fake))


@given(logit, logit)
def test_each_loss_is_its_papers_formula(r: float, f: float):
    def softplus(x):
        return math.log1p(math.exp(x))

    formulas = {
        "lsgan": (((r - 1) ** 2 + f**2) / 2, (f - 1) ** 2),
        "bce": ((softplus(-r) + softplus(f)) / 2, softplus(-f)),
        "hinge": ((max(0, 1 - r) + max(0, 1 + f)) / 2, -f),
    }
    real, fake = maps(r, f)
    for name, (discriminator, generator) in formulas.items():
        loss = ADVERSARIAL_LOSSES.create(name)
        assert loss.discriminator(real, fake).item() == pytest.approx(discriminator, rel=1e-12, abs=1e-12)
        assert loss.generator(fake).item() == pytest.approx(generator, rel=1e-12, abs=1e-12)
    # two objectives: hinge on the first channel; on the second BCE with fake 1 and real 0, the generator wants 0
    real, fake = maps(r, f, 2)
    real[:, 1], fake[:, 1] = r / 2, f / 2
    loss = ADVERSARIAL_LOSSES.create("two_objective")
    inverted = (softplus(r / 2) + softplus(-f / 2)) / 2
    assert loss.discriminator(real, fake).item() == pytest.approx(formulas["hinge"][0] + inverted, rel=1e-12, abs=1e-12)
    assert loss.generator(fake).item() == pytest.approx(0.4 * (-f + softplus(f / 2)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_adversarial_contract(name: str):
    loss = ADVERSARIAL_LOSSES.create(name)
    real, fake = torch.rand(2, 2, 2, 5, 5, requires_grad=True).unbind()
    for value in (loss.discriminator(real, fake), loss.generator(fake)):
        assert value.shape == ()
    # between its labels, a discriminator and a generator pull a logit of a fake opposite ways
    (grad,) = torch.autograd.grad(loss.generator(fake), fake)
    (opposed,) = torch.autograd.grad(loss.discriminator(real, fake), fake)
    assert (grad * opposed).sum() < 0
    weighted = ADVERSARIAL_LOSSES.create(name, weight=3.0)
    base = ADVERSARIAL_LOSSES.create(name, weight=1.0)
    torch.testing.assert_close(weighted.generator(fake), 3 * base.generator(fake))
    torch.testing.assert_close(weighted.discriminator(real, fake), base.discriminator(real, fake))


def test_two_objectives_refuse_other_logits():
    loss = ADVERSARIAL_LOSSES.create("two_objective")
    with pytest.raises(
        ValueError, match=r"2 objectives, but the discriminator's logits have 1 channel.*'two_objective'"
    ):
        loss.generator(torch.zeros(1, 1, 4, 4))


def test_multi_objective_passes_real_logits_to_losses_that_need_them():
    class Relativistic:
        needs_real = True

        def discriminator(self, real, fake):
            return torch.nn.functional.softplus(fake.mean() - real).mean()

        def generator(self, fake, real=None):
            return torch.nn.functional.softplus(real.mean() - fake).mean()

    assert MultiObjective((LSGAN(), Relativistic())).needs_real
    assert not MultiObjective((LSGAN(), Hinge())).needs_real
    real, fake = torch.randn(2, 1, 2, 4, 4).unbind()
    both = MultiObjective((LSGAN(), Relativistic()), weight=2.0).generator(fake, real)
    apart = LSGAN().generator(fake[:, :1]) + Relativistic().generator(fake[:, 1:], real[:, 1:])
    torch.testing.assert_close(both, 2 * apart)


def test_multi_objective_adds_up_penalties():
    class Penalized(LSGAN):
        def penalty(self, discriminator, real, fake):
            return discriminator(real).mean() + fake.mean()

    images = torch.rand(2, 1, 3, 4, 4)
    assert MultiObjective((LSGAN(), Hinge())).penalty is None
    penalty = MultiObjective((Penalized(), Hinge(), Penalized())).penalty
    assert penalty is not None
    torch.testing.assert_close(penalty(torch.nn.Identity(), *images), 2 * images[0].mean() + 2 * images[1].mean())


def test_several_scales_are_averaged():
    real, fake = torch.randn(2, 1, 1, 4, 4).unbind()
    small_real, small_fake = torch.randn(2, 1, 1, 2, 2).unbind()
    loss = BCE()
    expected = (loss.discriminator(real, fake) + loss.discriminator(small_real, small_fake)) / 2
    torch.testing.assert_close(discriminator_loss(loss, (real, small_real), (fake, small_fake)), expected)
    expected = (loss.generator(fake) + loss.generator(small_fake)) / 2
    torch.testing.assert_close(generator_loss(loss, (fake, small_fake)), expected)
    assert generator_loss(loss, fake) == loss.generator(fake)


def test_l1_is_the_mean_absolute_difference():
    first, second = torch.randn(2, 2, 3, 4, 4).unbind()
    assert CONSISTENCY_LOSSES.create("l1")(first, second) == (first - second).abs().mean()
