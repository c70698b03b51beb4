"""The estimate of what a step needs against what PyTorch's allocator gives out, and the advice that follows from it."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ganparts import CycleGAN, Pair, blocks, build_cyclegan, make_optimizers, train_step
from ganparts.blocks import recompute_blocks
from ganparts.cyclegan import MEMORY_LEVELS, MemoryNeed, memory, memory_need, plan_memory
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator, UNetGenerator
from ganparts.training import available_memory, explain_out_of_memory

NETWORKS = {
    "resnet": partial(ResNetGenerator, width=16, blocks=3),
    "unet": partial(UNetGenerator, width=16, levels=5),
}


def build(name: str, replay: str) -> CycleGAN:
    return build_cyclegan(generator=NETWORKS[name], discriminator=partial(PatchGAN, width=16), replay=replay)


def allocated(model: CycleGAN, level: str, batch_size: int, size: int, layout: str = "channels_first") -> int:
    """The most bytes that PyTorch's CPU allocator gave out at once in a step, and what was there before."""
    optimizers = make_optimizers(model)
    recompute_blocks(model, level == "lowest")
    pair = Pair(*torch.rand(2, batch_size, 3, size, size))
    if layout == "channels_last":
        model.to(memory_format=torch.channels_last)
        pair = Pair(*(images.contiguous(memory_format=torch.channels_last) for images in pair))
    train_step(model, pair, optimizers)
    states = chain(*(s.values() for o in (optimizers.generators, optimizers.discriminators) for s in o.state.values()))
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
    need = memory_need(partial(build, name, replay), size=size, level=level)
    for batch_size in (1, 4):
        assert need.at(batch_size) == pytest.approx(allocated(build(name, replay), level, batch_size, size), rel=0.05)


@pytest.mark.parametrize("level", MEMORY_LEVELS)
def test_the_estimate_knows_what_norms_keep_where_channels_come_last(level: str, monkeypatch: pytest.MonkeyPatch):
    def as_on_a_gpu(images: torch.Tensor, *rest: Any) -> torch.Tensor:
        last = images.is_contiguous(memory_format=torch.channels_last)
        return blocks._pointwise_instance_norm(images, *rest) if last else whole(images, *rest)

    whole = blocks.instance_norm
    monkeypatch.setattr(blocks, "instance_norm", as_on_a_gpu)
    resnet = partial(build, "resnet", "none")
    first, last = (memory_need(resnet, size=64, level=level, layout=f"channels_{end}") for end in ("first", "last"))
    assert last.per_pair > 1.1 * first.per_pair
    for batch_size in (1, 4):
        taken = allocated(resnet(), level, batch_size, 64, "channels_last")
        assert last.at(batch_size) == pytest.approx(taken, rel=0.05)


def test_averages_and_half_precision_are_counted():
    resnet = partial(build, "resnet", "none")
    plain, averaged = (memory_need(resnet, size=64, averaged=averaged) for averaged in (False, True))
    weights = sum(p.numel() * 4 for p in chain(resnet().generator_ab.parameters(), resnet().generator_ba.parameters()))
    assert averaged.fixed - plain.fixed == pytest.approx(weights)
    half = memory_need(resnet, size=64, context=partial(torch.autocast, "cpu", torch.bfloat16))
    assert half.per_pair < 0.8 * plain.per_pair


def test_the_first_level_that_fits_is_chosen_or_advice_is_given(monkeypatch: pytest.MonkeyPatch):
    needs = {"fast": MemoryNeed(10, 8), "low": MemoryNeed(10, 4), "lowest": MemoryNeed(10, 2)}
    monkeypatch.setattr(memory, "memory_need", lambda build, *, level, **options: needs[level])
    plan = partial(plan_memory, lambda: build("resnet", "none"), batch_size=2, size=64)
    for level, need in needs.items():
        assert plan(available=need.at(2)) == (level, need)
    assert plan(available=26, level="lowest").level == "lowest"
    with pytest.raises(ValueError, match=r"a batch of 2 needs about .* 0 with --memory fast, 0 .* low, 1 .* lowest\."):
        plan(available=13)
    with pytest.raises(ValueError, match=r"The largest that fits: 1 with --memory fast\. Take a smaller batch"):
        plan(available=25, level="fast")


def test_the_largest_batch_just_fits():
    need = MemoryNeed(fixed=100.0, per_pair=10.0)
    assert [need.largest_batch(bytes_) for bytes_ in (99, 109, 110, 129, 130)] == [0, 0, 1, 2, 3]


def test_out_of_memory_gives_advice_and_other_errors_do_not():
    assert 0 < available_memory(torch.device("cpu")) < 2**50
    assert "--memory lowest" in (explain_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) or "")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert "--batch-size" in (explain_out_of_memory(caught.value) or "")
    assert explain_out_of_memory(RuntimeError("no")) is None
