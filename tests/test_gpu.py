"""What only a CUDA device shows; skipped where there is none."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch

from ganparts import CycleGAN, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.augment import DiffAugment
from ganparts.blocks import instance_norm
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator
from ganparts.training import load_checkpoint, pick_device, save_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def small(**options) -> CycleGAN:
    return build_cyclegan(
        generator=partial(ResNetGenerator, width=4, blocks=2), discriminator=partial(PatchGAN, width=4), **options
    )


def pair(step: int, device: str = "cuda") -> Pair:
    images = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return Pair(*(images * 2 - 1).to(device))


def test_the_device_has_kernels():
    assert pick_device("auto").type == "cuda"


def test_a_step_is_the_cpus():
    on_cpu = small(replay="none").double()
    on_cuda = deepcopy(on_cpu).cuda()
    optimizers = make_optimizers(on_cpu), make_optimizers(on_cuda)
    assert optimizers[1].generators.param_groups[0]["fused"]
    assert optimizers[1].generators.param_groups[0]["lr"].is_cuda
    for step in range(3):
        for o in optimizers:
            o.set_learning_rate(2e-4 / (step + 1))
        expected = train_step(on_cpu, pair(step, "cpu"), optimizers[0])
        losses = train_step(on_cuda, pair(step), optimizers[1])
        for name, loss in losses.items():
            torch.testing.assert_close(loss.cpu(), expected[name], rtol=1e-6, atol=1e-9, msg=name)


def test_a_step_never_waits_for_the_device():
    model = small(augment=DiffAugment()).double().cuda()
    optimizers = make_optimizers(model)
    train_step(model, pair(0), optimizers)
    batch = pair(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(model, batch, optimizers)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_channels_last_instance_norm_keeps_its_layout():
    images = torch.randn(2, 8, 6, 5, device="cuda")
    last = images.contiguous(memory_format=torch.channels_last)
    result = instance_norm(last, None, None, 1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, instance_norm(images, None, None, 1e-5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("there", ["cuda", "cpu"])
def test_a_checkpoint_crosses_devices(tmp_path: Path, there: str):
    model = small().double().cuda()
    optimizers = make_optimizers(model)
    for step in range(3):
        train_step(model, pair(step), optimizers)
    save_checkpoint(tmp_path / "c.pt", step=3, config={}, model=model, optimizers=optimizers)
    other = small().double().to(there)
    others = make_optimizers(other)
    load_checkpoint(tmp_path / "c.pt", model=other, optimizers=others)
    assert bool(others.generators.param_groups[0]["fused"]) == (there == "cuda")
    train_step(other, pair(3, there), others)
    assert torch.isfinite(torch.stack([p.sum() for p in other.parameters()])).all()
