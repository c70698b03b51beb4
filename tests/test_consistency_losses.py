from __future__ import annotations

import pytest
import torch
from golden_files import golden_names, read
from hypothesis import given, settings
from hypothesis import strategies as st

from ganparts import CONSISTENCY_LOSSES
from ganparts.losses import (
    MSSSIM,
    SSIM,
    Charbonnier,
    gaussian_window,
    multi_scale_similarity,
    structural_similarity,
    total_variation,
)

OF_PIXELS = [name for name in CONSISTENCY_LOSSES if name not in ("features", "lpips")]
"""Those of a network's features are tested in test_perceptual.py."""

SIZE = (162, 165)  # the least that all take, and odd, so that halving pads


def images(*size: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches that resemble each other."""
    first, noise = torch.rand(2, batch, 3, *size, dtype=torch.float64).mul(2).sub(1).unbind()
    return first, (0.7 * first + 0.3 * noise).clamp(-1, 1)


@pytest.mark.parametrize("name", OF_PIXELS)
def test_consistency_is_the_mean_over_images_and_0_where_they_are_equal(name: str):
    loss = CONSISTENCY_LOSSES.create(name)
    first, second = images(*SIZE, batch=2)
    value = loss(first, second)
    assert loss(first, first).item() == pytest.approx(0, abs=2e-3)
    torch.testing.assert_close(torch.stack([loss(f[None], s[None]) for f, s in zip(first, second)]).mean(), value)  # noqa: B905
    torch.testing.assert_close(loss(first.float(), second.float()).double(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OF_PIXELS)
def test_consistency_gradients_are_those_of_finite_differences(name: str):
    first, second = images(*SIZE)
    loss = CONSISTENCY_LOSSES.create(name)
    inputs = first.requires_grad_(), second.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: 1e4 * loss(*given), inputs, fast_mode=True)


@given(st.integers(0, 2**31), st.sampled_from(OF_PIXELS))
@settings(max_examples=15)
def test_consistency_losses_are_symmetric(seed: int, name: str):
    torch.manual_seed(seed)
    first, second = images(*SIZE)
    loss = CONSISTENCY_LOSSES.create(name)
    torch.testing.assert_close(loss(first, second), loss(second, first))


@pytest.mark.parametrize("file", golden_names("charbonnier*"))
def test_charbonnier_and_others_are_golden(file: str):
    golden = read(file)
    x, y = golden["x"].requires_grad_(), golden["y"]
    losses = {
        "eps_squared": CONSISTENCY_LOSSES.create("charbonnier"),
        "eps_plain": CONSISTENCY_LOSSES.create("charbonnier", squared=False),
        "l1": CONSISTENCY_LOSSES.create("l1"),
        "l2": CONSISTENCY_LOSSES.create("l2"),
    }
    for name, loss in losses.items():
        value = loss(x, y)
        torch.testing.assert_close(value, golden[name], rtol=1e-9, atol=0)
        if (expected := golden.get(f"{name}.grad.x")) is not None:
            agrees_in_sums(torch.autograd.grad(value, x)[0], expected)
    torch.testing.assert_close(total_variation(x), golden["tv.x"] + golden["tv.y"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("file", golden_names("ssim*"))
def test_ssim_and_ms_ssim_are_golden(file: str):
    golden = read(file)
    x, y = golden["x"], golden["y"]
    torch.testing.assert_close(gaussian_window(11, 1.5, x), golden["window.float64"], rtol=1e-9, atol=0)
    for suffix, window in (("", golden["window.source"]), ("64", gaussian_window(11, 1.5, x))):
        for name, function, pair in (
            ("ssim", structural_similarity, (x, y)),
            ("ms_ssim", multi_scale_similarity, (golden["ms_x"], golden["ms_y"])),
        ):
            first = pair[0].clone().requires_grad_()
            values = function(first, pair[1], window)
            torch.testing.assert_close(values, golden[name + suffix], rtol=1e-9, atol=0)
            mean = golden[f"{name}{suffix}.mean"]
            torch.testing.assert_close(values.mean(), mean, rtol=1e-9, atol=0)
            (gradient,) = torch.autograd.grad(values.mean(), first)
            agrees_in_sums(gradient, golden[f"{name}{suffix}.grad.x"])
            if suffix == "64":  # the loss takes images in [-1, 1]
                loss = CONSISTENCY_LOSSES.create(name)(2 * pair[0] - 1, 2 * pair[1] - 1)
                torch.testing.assert_close(1 - loss, mean, rtol=1e-9, atol=0)
    doubled = structural_similarity(2 * x - 1, 2 * y - 1, gaussian_window(11, 1.5, x), data_range=2.0)
    torch.testing.assert_close(doubled, golden["ssim.range2"], rtol=1e-9, atol=0)


def agrees_in_sums(gradient: torch.Tensor, expected: torch.Tensor) -> None:
    """With (sum, sum of absolute values), 1e-9 relative to the latter."""
    found = torch.stack([gradient.sum(), gradient.abs().sum()])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * expected[1].item())


def test_ssim_of_one_window_is_the_papers_formula():
    first, second = images(11, 11)
    x, y = (first + 1) / 2, (second + 1) / 2
    line = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    weights = torch.outer(line, line) / line.sum() ** 2
    similar = []
    for a, b in zip(x[0], y[0], strict=True):
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        variance_a, variance_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
        covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
        luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        similar.append(luminance * (2 * covariance + 0.03**2) / (variance_a + variance_b + 0.03**2))
    torch.testing.assert_close(SSIM()(first, second), 1 - torch.stack(similar).mean())


def test_ms_ssim_of_opposite_images_has_a_finite_gradient():
    first, _ = images(*SIZE)
    first.requires_grad_()
    value = MSSSIM()(first, -first.detach())
    (gradient,) = torch.autograd.grad(value, first)
    assert value == 1
    assert gradient.isfinite().all()


def test_similarity_is_computed_in_fp32_under_autocast():
    first, second = (batch.bfloat16() for batch in images(*SIZE))
    for loss in (SSIM(), MSSSIM()):
        expected = loss(first.float(), second.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(first, second)
        assert value.dtype == torch.float32
        assert value == expected


def test_what_cannot_be_compared_is_refused():
    small = torch.zeros(1, 3, 10, 160)
    with pytest.raises(ValueError, match=r"10x160, but this SSIM needs at least 11x11: use larger images, or a window"):
        SSIM()(small, small)
    small = torch.zeros(1, 3, 200, 160)
    with pytest.raises(ValueError, match=r"200x160, but this MS-SSIM needs at least 161x161: .* or 'ssim'"):
        MSSSIM()(small, small)
    assert MSSSIM(window=5, weights=(0.5, 0.5))(small[..., :9], small[..., :9]) == 0
    for loss in (SSIM, MSSSIM):
        with pytest.raises(ValueError, match="window=8 has no middle"):
            loss(window=8)
    with pytest.raises(ValueError, match=r"weights=\(\) gives no scale"):
        MSSSIM(weights=())
    with pytest.raises(ValueError, match=r"weights\[1\]=-1.0: "):
        MSSSIM(weights=(1.0, -1.0))
    with pytest.raises(ValueError, match="eps=0 leaves no gradient where images agree"):
        Charbonnier(0)
