"""The estimate of what a step needs against what PyTorch's allocator gives out, and the advice that follows from it."""

from __future__ import annotations

from functools import partial
from itertools import chain

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ganparts import GENERATORS, CycleGAN, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.blocks import recompute_blocks
from ganparts.cyclegan import MEMORY_LEVELS, MemoryNeed, memory_need, plan_memory
from ganparts.discriminators import PatchGAN
from ganparts.training import available_memory, explain_out_of_memory


def build(name: str, replay: str) -> CycleGAN:
    generator = partial(GENERATORS.create, name, width=16)
    return build_cyclegan(generator=generator, discriminator=partial(PatchGAN, width=16), replay=replay)


def allocated(model: CycleGAN, level: str, batch_size: int, size: int) -> int:
    """The most bytes that PyTorch's CPU allocator gave out at once in a step, and what was there before."""
    optimizers = make_optimizers(model)
    recompute_blocks(model, level == "lowest")
    pair = Pair(*torch.rand(2, batch_size, 3, size, size))
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
@pytest.mark.parametrize(("name", "size", "replay"), [("resnet9", 128, "history"), ("unet128", 128, "none")])
def test_the_estimate_is_what_the_allocator_gives_out(level: str, name: str, size: int, replay: str):
    need = memory_need(partial(build, name, replay), size=size, level=level)
    for batch_size in (1, 4):
        assert need.at(batch_size) == pytest.approx(allocated(build(name, replay), level, batch_size, size), rel=0.05)


def test_averages_and_half_precision_are_counted():
    resnet = partial(build, "resnet9", "none")
    plain, averaged = (memory_need(resnet, size=64, averaged=averaged) for averaged in (False, True))
    weights = sum(p.numel() * 4 for p in chain(resnet().generator_ab.parameters(), resnet().generator_ba.parameters()))
    assert averaged.fixed - plain.fixed == pytest.approx(weights)
    half = memory_need(resnet, size=64, context=partial(torch.autocast, "cpu", torch.bfloat16))
    assert half.per_pair < 0.8 * plain.per_pair


def test_the_first_level_that_fits_is_chosen_or_advice_is_given():
    resnet = partial(build, "resnet9", "none")
    needs = {level: memory_need(resnet, size=64, level=level) for level in MEMORY_LEVELS}
    assert needs["fast"].at(2) > needs["low"].at(2) > needs["lowest"].at(2)
    for level, need in needs.items():
        assert plan_memory(resnet, batch_size=2, available=need.at(2) + 1, size=64).level == level
    available = needs["lowest"].at(2) - 1
    advice = "a batch of 2 needs about .* GiB, but there are .*: 0 with --memory fast, 0 with --memory low, 1 with"
    with pytest.raises(ValueError, match=advice):
        plan_memory(resnet, batch_size=2, available=available, size=64)
    with pytest.raises(ValueError, match=r"The largest that fits: 0 with --memory fast\. Take a smaller batch"):
        plan_memory(resnet, batch_size=2, available=available, size=64, level="fast")


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
