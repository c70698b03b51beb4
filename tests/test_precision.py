"""Which processors compute in bf16, and what keeps fp32."""

import platform

import pytest
import torch
from torch import nn

from ganparts.backbones import Backbone
from ganparts.precision import native_bf16


@pytest.mark.parametrize(
    ("machine", "tiles", "avx512", "arm", "expected"),
    [
        ("x86_64", False, False, True, None),
        ("x86_64", False, True, False, "AVX512-BF16"),
        ("x86_64", True, True, False, "AMX"),
        ("aarch64", False, False, True, "Arm BF16"),
        ("arm64", True, True, False, None),
    ],
)
def test_the_instructions_for_bf16_are_found(monkeypatch, machine, tiles, avx512, arm, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: arm)
    assert native_bf16() == expected


def test_this_machine_can_be_asked():
    assert native_bf16() in (None, "AMX", "AVX512-BF16", "Arm BF16")


class Maps(nn.Sequential):
    def forward(self, images):
        return (super().forward(images),)


@pytest.mark.parametrize(("groups", "dtype"), [(1, torch.bfloat16), (3, torch.float32)])
def test_a_frozen_network_with_depthwise_convolutions_stays_in_fp32_on_a_cpu(groups, dtype):
    backbone = Backbone(Maps(nn.Conv2d(3, 6, 3, padding=1, groups=groups)), channels=[6], strides=[1])
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (features,) = backbone(images)
        assert features.dtype == dtype
        assert backbone.pooled(images).dtype == dtype
    features.sum().backward()
    assert images.grad is not None
    assert images.grad.dtype == torch.float32
