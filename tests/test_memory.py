"""The estimate of what a step needs against what PyTorch's allocator gives out, and the advice that follows from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ganparts import CycleGAN, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.adversarial import MEMORY_LEVELS, MemoryEstimateError, MemoryNeed, memory, memory_need, plan_memory
from ganparts.blocks import norms, recompute_blocks
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator, UNetGenerator
from ganparts.training import available_memory, device, explain_out_of_memory

NETWORKS = {
    "resnet": partial(ResNetGenerator, width=16, blocks=3),
    "unet": partial(UNetGenerator, width=16, levels=5),
}


def build(name: str, replay: str) -> CycleGAN:
    return build_cyclegan(generator=NETWORKS[name], discriminator=partial(PatchGAN, width=16), replay=replay)


def pairs(size: int) -> Callable[[int], Pair]:
    """Makes batches of a given number of pairs of this size."""
    return lambda count: Pair(*torch.rand(2, count, 3, size, size))


def allocated(model: CycleGAN, level: str, batch_size: int, size: int, layout: str = "channels_first") -> int:
    """The most bytes that PyTorch's CPU allocator gave out at once in a step, and what was there before."""
    optimizers = make_optimizers(model)
    recompute_blocks(model, level == "lowest")
    pair = pairs(size)(batch_size)
    if layout == "channels_last":
        model.to(memory_format=torch.channels_last)
        pair = Pair(*(images.contiguous(memory_format=torch.channels_last) for images in pair))
    train_step(model, pair, optimizers)
    states = chain(*(s.values() for optimizer in optimizers.values() for s in optimizer.state.values()))
    held = sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers(), states))
    optimizers.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train_step(model, pair, optimizers, low_memory=level != "fast")
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return held + peak


@pytest.mark.parametrize("level", MEMORY_LEVELS)
@pytest.mark.parametrize(("name", "size", "replay"), [("resnet", 64, "history"), ("unet", 96, "none")])
def test_the_estimate_is_what_the_allocator_gives_out(level: str, name: str, size: int, replay: str):
    need = memory_need(build(name, replay), pairs(size), level=level)
    for batch_size in (1, 4):
        assert need.at(batch_size) == pytest.approx(allocated(build(name, replay), level, batch_size, size), rel=0.05)


@pytest.mark.parametrize("level", MEMORY_LEVELS)
def test_the_estimate_knows_what_norms_keep_where_channels_come_last(level: str, monkeypatch: pytest.MonkeyPatch):
    def as_on_a_gpu(images: torch.Tensor, *rest: Any) -> torch.Tensor:
        last = images.is_contiguous(memory_format=torch.channels_last)
        return norms._pointwise_instance_norm(images, *rest) if last else whole(images, *rest)

    whole = norms.instance_norm
    monkeypatch.setattr(norms, "instance_norm", as_on_a_gpu)
    resnet = partial(build, "resnet", "none")
    first, last = (memory_need(resnet(), pairs(64), level=level, layout=f"channels_{end}") for end in ("first", "last"))
    assert last.per_pair > 1.1 * first.per_pair
    for batch_size in (1, 4):
        taken = allocated(resnet(), level, batch_size, 64, "channels_last")
        assert last.at(batch_size) == pytest.approx(taken, rel=0.05)


def test_averages_and_half_precision_are_counted():
    resnet = partial(build, "resnet", "none")
    plain, averaged = (memory_need(resnet(), pairs(64), averaged=averaged) for averaged in (False, True))
    weights = sum(p.numel() * 4 for p in chain(resnet().generator_ab.parameters(), resnet().generator_ba.parameters()))
    assert averaged.fixed - plain.fixed == pytest.approx(weights)
    half = memory_need(resnet(), pairs(64), context=partial(torch.autocast, "cpu", torch.bfloat16))
    assert half.per_pair < 0.8 * plain.per_pair


def test_the_first_level_that_fits_is_chosen_or_advice_is_given(monkeypatch: pytest.MonkeyPatch):
    needs = {"fast": MemoryNeed(10, 8), "low": MemoryNeed(10, 4), "lowest": MemoryNeed(10, 2)}
    monkeypatch.setattr(memory, "memory_need", lambda model, batch, *, level, **options: needs[level])
    plan = partial(plan_memory, build("resnet", "none"), pairs(64), batch_size=2)
    for level, need in needs.items():
        assert plan(available=need.at(2)) == (level, need)
    assert plan(available=26, level="lowest").level == "lowest"
    with pytest.raises(ValueError, match=r"a batch of 2 needs about .* 0 with --memory fast, 0 .* low, 1 .* lowest\."):
        plan(available=13)
    with pytest.raises(ValueError, match=r"The largest that fits: 1 with --memory fast\. Take a smaller batch"):
        plan(available=25, level="fast")


def small(**parts: Any) -> CycleGAN:
    return build_cyclegan(
        **{"generator": partial(ResNetGenerator, width=2, blocks=1), "discriminator": partial(PatchGAN, width=2)}
        | parts
    )


def test_an_estimate_leaves_the_model_alone_and_needs_no_weights():
    model = small()
    train_step(model, pairs(32)(1), make_optimizers(model))
    before = deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    randomness = torch.get_rng_state()
    estimates = [memory_need(model, pairs(32), level=level) for level in MEMORY_LEVELS]
    assert memory_need(model, pairs(32)) == estimates[0]
    assert estimates[0].per_pair > estimates[1].per_pair
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close([p.grad for p in model.parameters()], gradients, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert recompute_blocks(model, False) == 2
    with torch.device("meta"):
        empty = small(replay="none")
    assert memory_need(empty, pairs(32)) == memory_need(small(replay="none"), pairs(32))


class OfWeights(nn.Module):
    """A discriminator that reads its trunk, which is frozen, from a file, as a pretrained backbone does."""

    def __init__(self, file: Path):
        super().__init__()
        self.trunk, self.head = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 1, 3)
        self.trunk.load_state_dict(load_file(file))
        self.trunk.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images).relu())


def test_ready_modules_and_loaded_weights_are_estimated(tmp_path: Path):
    save_file(nn.Conv2d(3, 4, 3, 2).state_dict(), tmp_path / "trunk.safetensors")
    loaded = partial(OfWeights, tmp_path / "trunk.safetensors")
    ready = tuple(NETWORKS["resnet"]() for _ in range(2))  # wide enough for processors that pad 16 channels
    perceptual = nn.L1Loss()
    parts = {"generator": ready, "cycle": perceptual, "identity": perceptual, "replay": "none"}
    for discriminator in (loaded, (loaded(), loaded())):
        model = small(discriminator=discriminator, **parts)
        plan = plan_memory(model, pairs(32), batch_size=1, available=2**30)
        assert plan.level == "fast"
        assert plan.need.at(1) == pytest.approx(allocated(model, "fast", 1, 32), rel=0.05)


class Asks(nn.Module):
    """A discriminator that reads a value back from the device."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 1, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) if images.mean() > 2 else self.net(-images)


def test_a_part_that_cannot_be_estimated_says_so():
    model = small(discriminator=Asks)
    train_step(model, pairs(16)(1), make_optimizers(model))
    for estimate in (memory_need, partial(plan_memory, batch_size=1, available=2**30)):
        with pytest.raises(MemoryEstimateError, match=r"the memory of a step cannot be estimated \(.+\)$") as caught:
            estimate(model, pairs(16))
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("wrong", [{"level": "fasst"}, {"layout": "channels last"}])
def test_levels_and_layouts_are_those_that_there_are(wrong: dict[str, str]):
    ((option, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{option}='{value}' is not known: use one of "):
        memory_need(build_cyclegan(generator="resnet6"), lambda size: None, **wrong)  # type: ignore[arg-type]


def test_the_largest_batch_just_fits():
    need = MemoryNeed(fixed=100.0, per_pair=10.0)
    assert [need.largest_batch(bytes_) for bytes_ in (99, 109, 110, 129, 130)] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("limit", "statistics", "expected"),
    [("1000", "anon 500\ninactive_file 200\n", 500), ("1000", None, 300), ("max", None, sys.maxsize), ("300", None, 0)],
)
def test_a_container_may_drop_files_that_it_keeps_in_memory(tmp_path: Path, limit: str, statistics: Any, expected: int):
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("700\n")
    if statistics is not None:
        (tmp_path / "memory.stat").write_text(statistics)
    assert device._left_in_container(tmp_path) == expected
    (tmp_path / "memory.current").unlink()
    assert device._left_in_container(tmp_path) == sys.maxsize


def test_out_of_memory_gives_advice_and_other_errors_do_not():
    assert 0 < available_memory(torch.device("cpu")) < 2**50
    assert "--memory lowest" in (explain_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) or "")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert "--batch-size" in (explain_out_of_memory(caught.value) or "")
    assert explain_out_of_memory(RuntimeError("no")) is None
