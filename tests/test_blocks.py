from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ganparts.blocks import (
    InstanceNorm2d,
    Padding,
    ReflectionPad2d,
    init_weights,
    instance_norm,
    keras_instance_norm,
    padded_conv,
)
from ganparts.blocks.norms import _pointwise_instance_norm


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(2, 6), st.booleans(), st.integers(0, 2**31))
def test_instance_norm_is_pytorchs_and_keeps_the_layout(batch, channels, height, width, channels_last, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, channels, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.instance_norm(images, weight=weight, bias=bias, eps=1e-3)
    for form in (instance_norm, _pointwise_instance_norm):
        result = form(images, weight, bias, 1e-3)
        torch.testing.assert_close(result, expected)
        assert result.stride() == images.stride()


def test_instance_norm_gradients():
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, 3, dtype=torch.float64)
    for form in (instance_norm, _pointwise_instance_norm):
        assert torch.autograd.gradcheck(
            lambda x, w, b, form=form: form(x, w, b, 1e-5), (images, weight.requires_grad_(), bias.requires_grad_())
        )


@pytest.mark.parametrize("batch", [1, 2])
def test_a_1x1_map_becomes_the_shift_alone(batch):
    norm = keras_instance_norm(4)
    with torch.no_grad():
        norm.bias.copy_(torch.arange(4.0))
    result = norm(torch.randn(batch, 4, 1, 1))
    torch.testing.assert_close(result[:, :, 0, 0], norm.bias.expand(batch, 4), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
        torch.nn.InstanceNorm2d(4)(torch.randn(batch, 4, 1, 1))


def test_instance_norm_has_no_state_unless_affine():
    assert InstanceNorm2d(3).state_dict() == {}
    assert InstanceNorm2d(3, affine=True).state_dict().keys() == {"weight", "bias"}


def test_keras_instance_norm_draws_its_scale_around_zero():
    scales = torch.cat([keras_instance_norm(1000).weight for _ in range(10)])
    assert abs(scales.mean()) < 0.001
    assert scales.std().item() == pytest.approx(0.02, rel=0.05)
    assert keras_instance_norm(3).eps == 1e-3


@pytest.mark.parametrize("margin", [1, 3])
def test_padding_of_mirrored_slices_is_reflection(margin: int, monkeypatch: pytest.MonkeyPatch):
    images = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    pad, weights = ReflectionPad2d(margin), torch.randn(2, 3, 5 + 2 * margin, 7 + 2 * margin, dtype=torch.float64)
    expected = pad(images)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), images)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(nn.functional, "pad", None)
    result = pad(images)
    (got,) = torch.autograd.grad((result * weights).sum(), images)
    assert torch.equal(result, expected)
    torch.testing.assert_close(got, wanted)


def test_padding_of_mirrored_slices_takes_each_margin(monkeypatch: pytest.MonkeyPatch):
    images = torch.randn(2, 3, 5, 7)
    pads = [ReflectionPad2d(margins) for margins in ((1, 2, 3, 4), (0, 1, 0, 0), (2, 0, 0, 3))]
    expected = [pad(images) for pad in pads]
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(nn.functional, "pad", None)
    assert all(torch.equal(pad(images), whole) for pad, whole in zip(pads, expected, strict=True))


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_padding_keeps_bf16_under_autocast(padding: Padding):
    pad, _ = padded_conv(3, 4, 3, padding)
    images = torch.randn(2, 3, 5, 7, dtype=torch.bfloat16, requires_grad=True)
    expected = pad(images.float()).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        padded = pad(images)
    assert padded.dtype == torch.bfloat16
    assert torch.equal(padded, expected)
    (gradient,) = torch.autograd.grad(padded.float().sum(), images)
    assert gradient.sum().item() == padded.numel()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_instance_norms_gradient_is_right_whatever_the_layout_of_what_comes_back(batch: int, affine: bool):
    """PyTorch's own is wrong on the CPU for one image whose gradient is laid out channels last."""
    images = torch.randn(batch, 3, 4, 5, dtype=torch.float64)
    norm = InstanceNorm2d(3, affine=affine).double()
    upstream = torch.randn(batch, 4, 5, 3, dtype=torch.float64)  # of what permute(0, 2, 3, 1) gives
    for layout in (torch.contiguous_format, torch.channels_last):
        x = images.contiguous(memory_format=layout).detach().requires_grad_()
        (norm(x).permute(0, 2, 3, 1) * upstream).sum().backward()
        mean, variance = images.mean((2, 3), keepdim=True), images.var((2, 3), correction=0, keepdim=True)
        normalised = (images - mean) / (variance + 1e-5).sqrt()
        g = upstream.permute(0, 3, 1, 2)
        along = (g * normalised).mean((2, 3), keepdim=True)
        expected = (g - g.mean((2, 3), keepdim=True) - normalised * along) / (variance + 1e-5).sqrt()
        torch.testing.assert_close(x.grad, expected)


def test_initialising_leaves_what_is_no_convolution_alone():
    class Scaled(nn.Module):
        weight = 0.5

    network = nn.Sequential(Scaled(), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)).apply(init_weights)
    assert network[1].weight.std() < 0.03
    with torch.device("meta"):
        nn.Conv2d(3, 4, 3).apply(init_weights)
