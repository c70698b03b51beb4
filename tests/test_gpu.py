"""What only a CUDA device shows; skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch

from ganparts import CycleGAN, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.adversarial import MEMORY_LEVELS, Averages, memory_need
from ganparts.augment import DiffAugment
from ganparts.blocks import instance_norm, recompute_blocks
from ganparts.data import PairDataset, load_pairs, open_images, sample
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator
from ganparts.training import (
    CapturedStep,
    PolicyOptions,
    choose_policy,
    load_checkpoint,
    pick_device,
    save_checkpoint,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # debug modes and compilers call themselves prototypes
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
    assert optimizers[1]["generators"].param_groups[0]["fused"]
    assert optimizers[1]["generators"].param_groups[0]["lr"].is_cuda
    for step in range(3):
        for o in optimizers:
            o.scale_rates(1 / (step + 1))
        expected = train_step(on_cpu, pair(step, "cpu"), optimizers[0])
        losses = train_step(on_cuda, pair(step), optimizers[1])
        for name, loss in losses.items():
            torch.testing.assert_close(loss.cpu(), expected[name], rtol=1e-6, atol=1e-9, msg=name)


def test_a_step_never_waits_for_the_device():
    model = small(augment=DiffAugment()).double().cuda()
    optimizers = make_optimizers(model)
    train_step(model, pair(0), optimizers)
    batch = pair(1)
    try:
        torch.cuda.set_sync_debug_mode("error")
        train_step(model, batch, optimizers)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def everything() -> dict:
    torch.manual_seed(7)
    model = small(augment=DiffAugment()).double().cuda()
    return {
        "model": model,
        "optimizers": make_optimizers(model),
        "averages": Averages(model.stages(), decay=0.9),
    }


def stepper(things: dict, **options):
    def step(pair: Pair, number: int) -> dict[str, torch.Tensor]:
        losses = train_step(things["model"], pair, things["optimizers"], step=number, **options)
        things["averages"].update()
        return losses

    return step


def run(things: dict, step, first: int, last: int) -> torch.Tensor:
    losses = []
    for number in range(first, last):
        things["optimizers"].scale_rates(1.0 if number < 60 else 0.5)
        losses.append(torch.stack(list(step(pair(number), number).values())))
    return torch.stack(losses).cpu()


def assert_same_states(things: dict, others: dict) -> None:
    for name, thing in things.items():
        torch.testing.assert_close(thing.state_dict(), others[name].state_dict(), rtol=1e-6, atol=1e-8, msg=name)


def test_a_captured_step_is_the_uncaptured_one_across_a_change_of_rate_and_a_resume():
    plain, captured = everything(), everything()
    replayed = CapturedStep(stepper(captured), **captured)
    torch.manual_seed(1)
    expected = run(plain, stepper(plain), 0, 100)
    torch.manual_seed(1)
    torch.testing.assert_close(run(captured, replayed, 0, 50), expected[:50], rtol=1e-6, atol=1e-8)
    saved = {name: deepcopy(thing.state_dict()) for name, thing in captured.items()}
    randomness = torch.cuda.get_rng_state()
    torch.testing.assert_close(run(captured, replayed, 50, 100), expected[50:], rtol=1e-6, atol=1e-8)
    assert_same_states(captured, plain)
    fresh = everything()
    for things, step in ((captured, replayed), (fresh, CapturedStep(stepper(fresh), **fresh))):
        for name, thing in things.items():
            thing.load_state_dict(saved[name])
        torch.cuda.set_rng_state(randomness)
        torch.testing.assert_close(run(things, step, 50, 100), expected[50:], rtol=1e-6, atol=1e-8)
        assert_same_states(things, plain)


def test_two_streams_change_no_number():
    one, two = everything(), everything()
    torch.manual_seed(1)
    expected = run(one, stepper(one), 0, 20)
    torch.manual_seed(1)
    losses = run(
        two,
        stepper(two, side_stream=choose_policy(torch.device("cuda"), PolicyOptions(streams="2")).side_stream()),
        0,
        20,
    )
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-8)
    assert_same_states(two, one)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_every_policy_trains(precision: str, compiled: str):
    try:
        policy = choose_policy(torch.device("cuda"), PolicyOptions(precision=precision, compile=compiled))
    except ValueError as error:
        pytest.skip(str(error))  # this card cannot
    torch.manual_seed(0)
    model = small().cuda()
    policy.prepare(model)
    optimizers = make_optimizers(model, scaling=policy.scaling)
    step = policy.wrap(
        lambda pair, number: train_step(model, pair, optimizers, step=number),
        networks=(model.generator_ab, model.generator_ba),
        model=model,
        optimizers=optimizers,
    )
    batch = Pair(*(images.float() for images in pair(0)))
    losses = [step(batch, number) for number in range(30)]
    assert all(torch.isfinite(loss) for loss in losses[-1].values())
    assert losses[-1]["cycle_a"] < losses[0]["cycle_a"]


@pytest.mark.parametrize("level", MEMORY_LEVELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_estimate_is_what_the_device_gives_out(level: str, precision: str):
    try:
        options = PolicyOptions(precision=precision, compile="off", capture="off")
        policy = choose_policy(torch.device("cuda"), options)
    except ValueError as error:
        pytest.skip(str(error))
    ways = {"context": policy.autocast, "layout": policy.memory_layout}
    with torch.device("meta"):
        empty = build_cyclegan()
    need = memory_need(
        empty, lambda count: Pair(*torch.empty(2, count, 3, 256, 256)), level=level, device_type="cuda", **ways
    )
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = build_cyclegan().cuda()
    policy.prepare(model)
    recompute_blocks(model, level == "lowest")
    optimizers = make_optimizers(model)
    step = policy.wrap(lambda pair, number: train_step(model, pair, optimizers, low_memory=level != "fast"))
    for batch_size in (1, 4):
        images = Pair(*torch.rand(2, batch_size, 3, 256, 256, device="cuda"))
        for _ in range(3):
            step(images, 0)
        torch.cuda.reset_peak_memory_stats()
        step(images, 0)
        assert need.at(batch_size) == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=0.15)


def test_images_held_on_the_device_give_the_same_pairs(tmp_path: Path):
    dataset = PairDataset(open_images(sample() / "testA"), open_images(sample() / "testA"), resize=72, crop=64)
    held = dataset.on_device("cuda")
    assert held.a.is_cuda
    batches = (load_pairs(d, batch_size=3, steps=4, device="cuda") for d in (dataset, held))
    for expected, got in zip(*batches, strict=True):
        assert torch.equal(expected.a, got.a)
        assert torch.equal(expected.b, got.b)


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
    assert bool(others["generators"].param_groups[0]["fused"]) == (there == "cuda")
    train_step(other, pair(3, there), others)
    assert torch.isfinite(torch.stack([p.sum() for p in other.parameters()])).all()


RECIPE = Path(__file__).parent.parent / "recipes" / "cyclegan_monet.py"


def test_a_resumed_deterministic_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path: Path):
    def run(*arguments: object) -> None:
        command = [sys.executable, str(RECIPE), *map(str, arguments), "--paint", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    small = ("--preset", "paper", "--generator", "resnet6", "--width", 8, "--resize", 64, "--augment", "diffaugment")
    options = (*small, "--deterministic", "--compile", "off", "--checkpoint-every", 5, "--device", "cuda")
    run(*options, "--steps", 20, "--out", tmp_path / "whole")
    run(*options, "--steps", 20, "--time-limit", 0.001, "--out", tmp_path / "parted")
    assert torch.load(tmp_path / "parted" / "checkpoint.pt", weights_only=True)["step"] < 20
    run("--resume", tmp_path / "parted", "--time-limit", 60)
    states = [torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["states"] for n in ("whole", "parted")]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
