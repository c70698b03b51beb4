from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganparts import Pair, build_cyclegan, make_optimizers, train_step
from ganparts.augment import AdaptiveAugment, Changes, DiffAugment, Draws, apply_changes
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator
from ganparts.losses import image_gradients


def draws(batch: int = 1, value: float = 0.5, **chosen: float) -> Draws:
    return Draws(**{name: torch.full((batch,), chosen.get(name, value)) for name in Draws._fields})


@given(st.integers(1, 3), st.integers(4, 20), st.integers(4, 20), st.integers(0, 2**31))
def test_each_image_is_augmented_by_its_own_draws(batch, height, width, seed):
    torch.manual_seed(seed)
    augment = DiffAugment()
    images = torch.rand(batch, 3, height, width)
    drawn = augment.draw(images)
    together = augment.apply_draws(images, drawn)
    assert together.shape == images.shape
    for i in range(batch):
        alone = augment.apply_draws(images[i : i + 1], Draws(*(draw[i : i + 1] for draw in drawn)))
        torch.testing.assert_close(together[i : i + 1], alone)


def test_color_is_the_papers_formula():
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    drawn = Draws(*torch.rand(7, 2, dtype=torch.float64))
    expected = []
    for i, image in enumerate(images):
        image = image + drawn.brightness[i] - 0.5
        grey = image.mean(0, keepdim=True)
        image = (image - grey) * (drawn.saturation[i] * 2) + grey
        expected.append((image - image.mean()) * (drawn.contrast[i] + 0.5) + image.mean())
    torch.testing.assert_close(DiffAugment(("color",)).apply_draws(images, drawn), torch.stack(expected))


@given(st.floats(0, 0.9999), st.floats(0, 0.9999))
def test_translation_shifts_and_fills_with_zeros(y, x):
    images = torch.rand(1, 1, 16, 24)
    moved = DiffAugment(("translation",)).apply_draws(images, draws(shift_y=y, shift_x=x))
    down, right = int(torch.tensor(y) * 5) - 2, int(torch.tensor(x) * 7) - 3
    expected = torch.zeros_like(images)
    expected[..., max(0, down) : 16 + min(0, down), max(0, right) : 24 + min(0, right)] = images[
        ..., max(0, -down) : 16 + min(0, -down), max(0, -right) : 24 + min(0, -right)
    ]
    assert torch.equal(moved, expected)


def test_translation_reaches_an_eighth_both_ways():
    augment = DiffAugment(("translation",))
    images = torch.ones(1, 1, 64, 64)
    for value, empty in ((0.0, slice(56, 64)), (0.9999, slice(0, 8))):
        moved = augment.apply_draws(images, draws(shift_y=value, shift_x=0.5))
        assert not moved[..., empty, :].any()
        assert moved.sum() == 56 * 64


@given(st.floats(0, 0.9999), st.floats(0, 0.9999))
def test_cutout_is_one_square_of_half_the_size(y, x):
    cut = DiffAugment(("cutout",)).apply_draws(torch.ones(1, 2, 16, 16), draws(cutout_y=y, cutout_x=x))
    hole = cut[0, 0] == 0
    rows, columns = hole.any(1), hole.any(0)
    assert torch.equal(hole, rows[:, None] & columns)
    assert torch.equal(cut[0, 0], cut[0, 1])
    for edge in (rows, columns):
        assert 4 <= edge.sum() <= 8
        assert edge.sum() == 8 or edge[0] or edge[-1]  # smaller only where it leaves the image


def test_it_is_differentiable_and_runs_on_meta():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    augment = DiffAugment()
    drawn = augment.draw(images)
    assert torch.autograd.gradcheck(lambda x: augment.apply_draws(x, drawn), (images,))
    assert augment(torch.zeros(2, 3, 8, 8, device="meta")).shape == (2, 3, 8, 8)


def test_policies_are_chosen_by_name():
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(DiffAugment(())(images), images)
    with pytest.raises(ValueError, match=r"policy 'colour' is not known: use some of 'color'"):
        DiffAugment(("colour",))  # pyright: ignore[reportArgumentType]


def test_translation_is_the_same_by_deterministic_means():
    images = torch.rand(3, 2, 8, 12, dtype=torch.float64, requires_grad=True)
    draws = Draws(*(torch.rand(3, dtype=torch.float64) for _ in Draws._fields))
    plain = DiffAugment(("translation",)).apply_draws(images, draws)
    (expected,) = torch.autograd.grad(plain.square().sum(), images)
    torch.use_deterministic_algorithms(True)
    try:
        same = DiffAugment(("translation",)).apply_draws(images, draws)
        (gradient,) = torch.autograd.grad(same.square().sum(), images)
    finally:
        torch.use_deterministic_algorithms(False)
    assert "Gather" in str(_functions(plain))
    assert "Gather" not in str(_functions(same))
    assert torch.equal(same, plain)
    assert torch.equal(gradient, expected)


def test_sizes_of_changes_are_options():
    images = torch.rand(2, 3, 20, 20, dtype=torch.float64)
    half = draws(2)
    colour = DiffAugment(("color",), brightness=(0.0, 1.0), saturation=(1.0, 1.0), contrast=(1.0, 1.0))
    torch.testing.assert_close(colour.apply_draws(images, half), images + 0.5)
    colour = DiffAugment(("color",), saturation=(0.0, 0.5), contrast=(1.0, 1.0))
    grey = images.mean(1, keepdim=True)
    torch.testing.assert_close(colour.apply_draws(images, half), grey + 0.25 * (images - grey))
    colour = DiffAugment(("color",), contrast=(2.0, 4.0))
    mean = images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(colour.apply_draws(images, half), mean + 3 * (images - mean))
    moved = DiffAugment(("translation",), translation=0.25).apply_draws(images, draws(2, 0.5, shift_x=0.9999))
    torch.testing.assert_close(moved[..., 5:], images[..., :-5])
    cut = DiffAugment(("cutout",), cutout=0.2).apply_draws(images.clamp(0.1), half)
    assert (cut == 0).sum() == 2 * 3 * 4 * 4
    for options in ({"translation": 8}, {"cutout": -0.1}):
        with pytest.raises(ValueError, match=r"(translation=8|cutout=-0.1) is not a fraction of the image's side"):
            DiffAugment(**options)


def changes(batch: int = 1, **chosen: float | tuple[float, float]) -> Changes:
    """No change but those chosen."""
    neutral = dict.fromkeys(Changes._fields, 0.0) | dict.fromkeys(("scale", "stretch", "contrast", "saturation"), 1.0)
    neutral |= {"shift": (0.0, 0.0), "move": (0.0, 0.0)}
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in (neutral | chosen).items()}
    return Changes(**{name: value.expand(batch, *value.shape) for name, value in values.items()})


def changed(images: torch.Tensor, **chosen: float | tuple[float, float]) -> torch.Tensor:
    return apply_changes(images, changes(len(images), **chosen))


def test_ada_changes_geometry_as_named():
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(changed(images), images)
    assert torch.equal(changed(images, mirror=1.0), images.flip(3))
    for turns in (1, 2, 3):
        assert torch.equal(changed(images, turns=float(turns)), torch.rot90(images, turns, (2, 3)))
        torch.testing.assert_close(changed(images, angle_after=turns * math.pi / 2), torch.rot90(images, turns, (2, 3)))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    assert torch.equal(changed(images, shift=(0.125, 0.0625)), padded[..., 1:17, :16])
    assert torch.equal(changed(images, shift=(0.13, 0.06)), padded[..., 1:17, :16])
    half = changed(images, move=(0.5 / 16, 0.0))
    torch.testing.assert_close(half[..., 1:], 0.5 * (images[..., 1:] + images[..., :-1]))
    ramp = torch.arange(-7.5, 8, dtype=torch.float64).expand(1, 1, 16, 16)
    for ramped, other, factor in ((ramp, ramp.mT, 1.0), (ramp.mT, ramp, -1.0)):
        middle = (..., slice(5, 11), slice(5, 11))
        torch.testing.assert_close(changed(ramped, scale=2.0)[middle], ramped[middle] / 2)
        torch.testing.assert_close(changed(ramped, stretch=1.25)[middle], (ramped * 1.25**-factor)[middle])
        cosine, sine = math.cos(0.3), math.sin(0.3)
        expected = cosine * ramped - factor * sine * other
        torch.testing.assert_close(changed(ramped, angle_before=0.3)[middle], expected[middle])


def test_ada_changes_what_is_drawn_in_the_order_of_its_fields():
    images = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    both = changed(images, mirror=1.0, turns=1.0)
    assert torch.equal(both, torch.rot90(images.flip(3), 1, (2, 3)))
    both = changed(images, turns=1.0, shift=(1 / 12, 0.0))
    assert torch.equal(both, changed(changed(images, turns=1.0), shift=(1 / 12, 0.0)))
    both = changed(images, brightness=0.5, contrast=2.0)
    torch.testing.assert_close(both, (images + 0.5) * 2)


def test_ada_changes_colour_as_named():
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    grey = images.mean(1, keepdim=True)
    torch.testing.assert_close(changed(images, brightness=0.3), images + 0.3)
    torch.testing.assert_close(changed(images, contrast=1.5), images * 1.5)
    torch.testing.assert_close(changed(images, invert=1.0), images - 2 * grey)
    torch.testing.assert_close(changed(images, saturation=0.5), grey + 0.5 * (images - grey))
    torch.testing.assert_close(changed(images, hue=2 * math.pi / 3), images.roll(1, 1))  # red becomes green
    one = images[:, :1]
    torch.testing.assert_close(changed(one, hue=1.0, saturation=3.0, invert=1.0), -one)


def test_ada_draws_each_change_with_its_probability():
    images = torch.zeros(4000, 3, 1, 1)
    assert torch.equal(AdaptiveAugment()(images[:2] + 0.25), images[:2] + 0.25)  # p begins at 0
    drawn = AdaptiveAugment(probability=0.5).draw(images)
    neutral = changes()
    odds = {"mirror": 1 / 4, "turns": 3 / 8, "invert": 1 / 4, "angle_before": 1 - 0.5**0.5, "angle_after": 1 - 0.5**0.5}
    for name, values in drawn._asdict().items():
        changed_ones = (values != getattr(neutral, name)).view(4000, -1)
        assert torch.equal(changed_ones.any(1), changed_ones.all(1)), name  # x and y together
        assert changed_ones[:, 0].float().mean().item() == pytest.approx(odds.get(name, 0.5), abs=0.03), name
    drawn = AdaptiveAugment(probability=1.0).draw(images)
    assert drawn.shift.abs().max() <= 0.125
    assert drawn.hue.abs().max() <= math.pi
    spreads = {"move": 0.125, "brightness": 0.2, "scale": 0.2, "stretch": 0.2, "contrast": 0.5, "saturation": 1.0}
    for name, spread in spreads.items():
        values = getattr(drawn, name)
        values = values.log2() if (values > 0).all() else values
        assert values.std().item() == pytest.approx(spread, rel=0.05), name
        assert values.mean().item() == pytest.approx(0, abs=4 * spread / 4000**0.5), name
    assert torch.equal(drawn.turns.unique(), torch.arange(4.0))


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_ada_changes_each_image_by_itself(batch, height, width, seed):
    torch.manual_seed(seed)
    augment = AdaptiveAugment(probability=0.8)
    images = torch.rand(batch, 3, height, width)
    drawn = augment.draw(images)
    together = apply_changes(images, drawn)
    assert together.shape == images.shape
    for i in range(batch):
        alone = apply_changes(images[i : i + 1], Changes(*(values[i : i + 1] for values in drawn)))
        torch.testing.assert_close(together[i : i + 1], alone)


def test_ada_is_differentiable_twice_and_runs_on_meta():
    augment = AdaptiveAugment(probability=1.0)
    images = torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    drawn = augment.draw(images)
    assert torch.autograd.gradcheck(lambda x: apply_changes(x, drawn), (images,))
    assert torch.autograd.gradgradcheck(lambda x: apply_changes(x, drawn).square(), (images,))
    judge = torch.nn.Conv2d(3, 1, 3).double()
    penalty = image_gradients(torch.nn.Sequential(augment, judge), images).square().sum()  # R1 before augmentation
    (gradient,) = torch.autograd.grad(penalty, judge.weight)
    assert gradient.any()
    augment.to("meta")
    assert augment(torch.zeros(2, 3, 8, 8, device="meta")).shape == (2, 3, 8, 8)
    augment.observe(torch.zeros(2, 1, 4, 4, device="meta"))


def test_ada_is_the_same_by_deterministic_means():
    augment = AdaptiveAugment(probability=1.0)
    images = torch.rand(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    drawn = augment.draw(images)
    expected = apply_changes(images, drawn)
    torch.use_deterministic_algorithms(True)
    try:
        same = apply_changes(images, drawn)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(same, expected)
    assert "Gather" in str(_functions(expected))
    assert "Gather" not in str(_functions(same))


def test_ada_takes_half_precision_and_refuses_other_channels():
    augment = AdaptiveAugment(probability=1.0)
    images = torch.rand(2, 3, 8, 8).bfloat16()
    assert augment(images).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"1 or 3 channels, but these have 4: take DiffAugment"):
        augment(torch.zeros(1, 4, 8, 8))


def test_ada_follows_the_signs_of_real_logits():
    augment = AdaptiveAugment(interval=2, images_to_full=100)
    probability = augment.probability
    sure, unsure = torch.ones(5, 2, 3, 3), -torch.ones(5, 2, 3, 3)
    sure[:, 1], unsure[:, 1] = -1, 1  # the first objective counts
    expected = [0, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0, 0, 0]
    for step, p in enumerate(expected):
        augment.observe(sure if step < 4 else unsure)
        assert probability.item() == pytest.approx(p, abs=1e-6)
    assert augment.probability is probability
    assert augment.calls == 10
    # 0.75 of all logits of two scales say "real": the mean sign is 0.5, below the target
    augment = AdaptiveAugment(interval=1, images_to_full=10, probability=0.5)
    logits = torch.tensor([1.0, 1.0, 1.0, -1.0]).view(1, 1, 2, 2)
    augment.observe((logits, logits))
    assert augment.probability.item() == pytest.approx(0.4)
    # least squares: the middle of 0 and 1
    augment = AdaptiveAugment(interval=1, images_to_full=10, probability=0.5, threshold=0.5)
    augment.observe(0.4 * logits.abs())
    assert augment.probability.item() == pytest.approx(0.4)
    augment.observe(logits.abs())
    assert augment.probability.item() == pytest.approx(0.5)


def test_ada_counts_images_and_the_first_objective_in_a_step():
    model = build_cyclegan(
        generator=partial(ResNetGenerator, width=2, blocks=1),
        discriminator=partial(PatchGAN, width=2, objectives=2),
        adversarial="two_objective",
        augment=(None, AdaptiveAugment(interval=2, images_to_full=8)),
    )
    critic = model.critics_b[0]
    with torch.no_grad():  # the first objective says "real" of everything, the second does not
        last = [layer for layer in critic.discriminator.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
        last.weight.zero_()
        assert last.bias is not None
        last.bias.copy_(torch.tensor([1.0, -1.0]))
    optimizers = make_optimizers(model, learning_rate=0.0)
    for step in range(2):
        train_step(model, Pair(torch.zeros(3, 3, 32, 32), torch.zeros(3, 3, 32, 32)), optimizers, step=step)
    assert critic.augment.calls == 2
    assert critic.augment.probability.item() == pytest.approx(6 / 8)  # two calls with three real images each


def test_a_policy_of_one_text_is_refused():
    with pytest.raises(ValueError, match=r"^policy='color,cutout' is one text: give a tuple"):
        DiffAugment("color,cutout")  # pyright: ignore[reportArgumentType]


def test_ada_survives_logits_that_are_not_finite_and_is_saved():
    augment = AdaptiveAugment(interval=1, images_to_full=4)
    augment.observe(torch.full((1, 1, 2, 2), torch.nan))
    assert augment.probability == 0
    for _ in range(9):
        augment.observe(torch.full((1, 1, 2, 2), torch.inf))
    assert augment.probability == 1
    other = AdaptiveAugment()
    other.load_state_dict(augment.state_dict())
    assert other.probability == 1
    assert other.calls == 10


def test_ada_refuses_what_cannot_be():
    for options, message in (
        ({"target": 1}, "target=1 is not between -1 and 1"),
        ({"interval": 0}, "interval=0 must be at least 1"),
        ({"images_to_full": 0}, "images_to_full=0 must be at least 1"),
        ({"probability": 2}, "probability=2 is not from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            AdaptiveAugment(**options)


def _functions(tensor: torch.Tensor) -> set[str]:
    """Names of the operations that a tensor came from."""
    found, left = set(), [tensor.grad_fn]
    while left:
        function = left.pop()
        if function is not None:
            found.add(type(function).__name__)
            left += [before for before, _ in function.next_functions]
    return found
