from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganparts.augment import DiffAugment, Draws


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


def _functions(tensor: torch.Tensor) -> set[str]:
    """Names of the operations that a tensor came from."""
    found, left = set(), [tensor.grad_fn]
    while left:
        function = left.pop()
        if function is not None:
            found.add(type(function).__name__)
            left += [before for before, _ in function.next_functions]
    return found
