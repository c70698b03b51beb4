from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden_names, read
from hypothesis import given
from hypothesis import strategies as st

from ganparts import ADVERSARIAL_LOSSES
from ganparts.adversarial import discriminator_loss, generator_loss
from ganparts.losses import BCE, LSGAN, Hinge, MultiObjective, Relativistic, RelativisticAverage, grid_pattern

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
        "logistic": ((softplus(-r) + softplus(f)) / 2, softplus(-f)),
        "wgan": ((f - r) / 2, -f),
        "rsgan": (softplus(f - r), softplus(r - f)),
        "rasgan": (softplus(f - r), softplus(r - f)),
        "ralsgan": ((r - f - 1) ** 2, (f - r - 1) ** 2),
        "rahinge": (max(0, 1 - r + f), max(0, 1 + r - f)),
    }
    assert {*formulas, "two_objective"} == set(ADVERSARIAL_LOSSES)
    real, fake = maps(r, f)
    for name, (discriminator, generator) in formulas.items():
        loss = ADVERSARIAL_LOSSES.create(name)
        assert loss.discriminator(real, fake).item() == pytest.approx(discriminator, rel=1e-12, abs=1e-12)
        given = (fake, real) if getattr(loss, "needs_real", False) else (fake,)
        assert loss.generator(*given).item() == pytest.approx(generator, rel=1e-12, abs=1e-12)
    # two objectives: hinge on the first channel; on the second BCE with fake 1 and real 0, the generator wants 0
    real, fake = maps(r, f, 2)
    real[:, 1], fake[:, 1] = r / 2, f / 2
    loss = ADVERSARIAL_LOSSES.create("two_objective")
    inverted = (softplus(r / 2) + softplus(-f / 2)) / 2
    assert loss.discriminator(real, fake).item() == pytest.approx(formulas["hinge"][0] + inverted, rel=1e-12, abs=1e-12)
    assert loss.generator(fake).item() == pytest.approx(0.4 * (-f + softplus(f / 2)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_adversarial_losses_take_logits_without_a_map(name: str):
    loss = ADVERSARIAL_LOSSES.create(name)
    for shape in [(3, 2)] + ([(3,)] if name != "two_objective" else []):
        real, fake = torch.randn(2, *shape, dtype=torch.float64).unbind()
        value = loss.discriminator(real, fake), loss.generator(fake, real)
        assert all(term.shape == () and term.isfinite() for term in value)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_a_loss_stays_as_it_was_made(name: str):
    loss: Any = ADVERSARIAL_LOSSES.create(name, weight=2.0)
    with pytest.raises(FrozenInstanceError):
        loss.weight = 3.0
    assert hash(loss) == hash(ADVERSARIAL_LOSSES.create(name, weight=2.0))


THEIRS = {  # golden name: ours, and how many times ours theirs is for the discriminator
    "lsgan": ("lsgan", 1),
    "vanilla": ("bce", 1),
    "nonsaturating": ("logistic", 1),
    "wgan": ("wgan", 1),
    "hinge": ("hinge", 2),  # its source adds the real and the fake term, and does not average them
    "rsgan": ("rsgan", 1),
    "rasgan": ("rasgan", 1),
    "ralsgan": ("ralsgan", 1),
    "rahinge": ("rahinge", 1),
    "r3gan_adv": ("rsgan", 1),
}


@pytest.mark.parametrize("file", golden_names("loss_maps*"))
def test_adversarial_losses_are_golden(file: str):
    golden = read(file)
    names = {key.removesuffix(".D") for key in golden if key.endswith(".D")}
    assert names == set(THEIRS)
    for theirs in names:
        name, factor = THEIRS[theirs]
        loss = ADVERSARIAL_LOSSES.create(name)
        real, fake = golden["r"].requires_grad_(), golden["f"].requires_grad_()
        for player, value in (("D", factor * loss.discriminator(real, fake)), ("G", loss.generator(fake, real))):
            torch.testing.assert_close(value, golden[f"{theirs}.{player}"], rtol=1e-9, atol=0)
            gradients = torch.autograd.grad(value, (real, fake), materialize_grads=True)
            for letter, gradient in zip("rf", gradients, strict=True):
                if (expected := golden.get(f"{theirs}.{player}.grad_{letter}")) is not None:
                    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


RELATIVISTIC = [name for name in ADVERSARIAL_LOSSES if name.startswith("r")]


@given(st.integers(0, 2**31), st.sampled_from(RELATIVISTIC), st.integers(1, 3))
def test_relativistic_losses_are_antisymmetric_and_see_differences_alone(seed: int, name: str, channels: int):
    torch.manual_seed(seed)
    loss = ADVERSARIAL_LOSSES.create(name)
    assert loss.needs_real
    real, fake = torch.randn(2, 2, channels, 4, 3, dtype=torch.float64).unbind()
    torch.testing.assert_close(loss.generator(fake, real), loss.discriminator(fake, real))
    shift = torch.randn(channels, 1, 1, dtype=torch.float64)  # of each objective
    torch.testing.assert_close(loss.discriminator(real + shift, fake + shift), loss.discriminator(real, fake))


@pytest.mark.parametrize("name", RELATIVISTIC)
def test_relativistic_losses_want_real_logits(name: str):
    with pytest.raises(ValueError, match=r"real=None: call generator\(fake, real\)"):
        ADVERSARIAL_LOSSES.create(name).generator(torch.zeros(1, 1, 2, 2))


def test_pairing_logits_of_other_shapes_and_unknown_bases_are_refused():
    loss = ADVERSARIAL_LOSSES.create("rsgan")
    with pytest.raises(ValueError, match=r"\[1, 1, 4, 4\] real and \[2, 1, 4, 4\] fake ones: .* 'rasgan'"):
        loss.discriminator(torch.zeros(1, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"^base='bce' is not known: use one of 'logistic', 'lsgan', 'hinge'"):
        RelativisticAverage("bce")  # pyright: ignore[reportArgumentType]


def test_two_objectives_refuse_other_logits():
    loss = ADVERSARIAL_LOSSES.create("two_objective")
    with pytest.raises(
        ValueError, match=r"2 objectives, but the discriminator's logits have 1 channel.*'two_objective'"
    ):
        loss.generator(torch.zeros(1, 1, 4, 4))


def test_multi_objective_passes_real_logits_to_losses_that_need_them():
    assert MultiObjective((LSGAN(), Relativistic())).needs_real
    assert not MultiObjective((LSGAN(), Hinge())).needs_real
    real, fake = torch.randn(2, 1, 2, 4, 4).unbind()
    both = MultiObjective((LSGAN(), Relativistic()), weight=2.0).generator(fake, real)
    apart = LSGAN().generator(fake[:, :1]) + Relativistic().generator(fake[:, 1:], real[:, 1:])
    torch.testing.assert_close(both, 2 * apart)


def test_several_scales_are_averaged():
    real, fake = torch.randn(2, 1, 1, 4, 4).unbind()
    small_real, small_fake = torch.randn(2, 1, 1, 2, 2).unbind()
    loss = BCE()
    expected = (loss.discriminator(real, fake) + loss.discriminator(small_real, small_fake)) / 2
    torch.testing.assert_close(discriminator_loss(loss, (real, small_real), (fake, small_fake)), expected)
    expected = (loss.generator(fake) + loss.generator(small_fake)) / 2
    torch.testing.assert_close(generator_loss(loss, (fake, small_fake)), expected)
    assert generator_loss(loss, fake) == loss.generator(fake)


def test_objectives_are_not_empty():
    with pytest.raises(ValueError, match="give a loss for each channel"):
        MultiObjective(())


def test_a_weight_may_be_a_tensor_that_changes():
    weight = torch.tensor(2.0)
    loss, fake = LSGAN(weight=weight), torch.zeros(1, 1, 2, 2)
    assert loss.generator(fake) == 2
    weight.fill_(3)
    assert loss.generator(fake) == 3


@pytest.mark.parametrize("label", ["1", None, 2.0, float("nan")])
def test_a_label_is_a_number_from_0_to_1(label: object):
    with pytest.raises(ValueError, match=f"real_label={label!r}: give a number from 0 to 1"):
        BCE(real_label=label)  # type: ignore[arg-type]


# --- the pattern of a grid


@pytest.mark.parametrize(("height", "width", "period"), [(16, 24, 4), (18, 13, 2), (27, 30, 3)])
def test_a_pattern_is_the_power_at_the_multiples_of_its_frequency(height: int, width: int, period: int):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    rows, columns = (np.hanning(side + 1)[:-1] for side in (height // period * period, width // period * period))
    window = np.outer(rows / rows.sum(), columns / columns.sum())
    spectra = np.fft.fft2(images[..., : len(rows), : len(columns)].double().numpy() * window)
    multiples = np.abs(spectra[..., :: len(rows) // period, :: len(columns) // period]) ** 2
    expected = np.sqrt(multiples.sum((2, 3)) - multiples[..., 0, 0] + 1e-8).mean()
    assert grid_pattern(images, period=period).item() == pytest.approx(expected, rel=1e-4)


def test_smooth_areas_have_no_pattern_and_what_cannot_have_one_is_refused():
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    assert grid_pattern(ramp) < 2e-4
    assert grid_pattern(ramp + 0.1 * (torch.arange(64) % 4 == 0)) > 0.02
    still = torch.zeros(1, 3, 16, 16, requires_grad=True)
    grid_pattern(still).backward()
    assert still.grad is not None
    assert not still.grad.any()
    assert grid_pattern(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"^images of 7x16 hold no pattern of 4 pixels: give sides of at least 8"):
        grid_pattern(torch.zeros(1, 3, 7, 16))
    with pytest.raises(ValueError, match=r"^period=1: give a whole number, at least 2"):
        grid_pattern(torch.zeros(1, 3, 16, 16), period=1)
