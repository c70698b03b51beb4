"""How a step is computed: precision, layout, compilation, capture. What only a GPU shows is in test_gpu.py."""

from __future__ import annotations

import importlib
import random
import shutil
import sysconfig
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from fake_graph import fake_record
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from ganparts import CycleGAN, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.adversarial import Averages, Optimizers
from ganparts.augment import DiffAugment
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator
from ganparts.training import CapturedStep, CaptureError, CompileError, PolicyOptions, capture, choose_policy

policy_module = importlib.import_module("ganparts.training.policy")
CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 0), ("fp32", "channels_first", 1, True, False)),
        ((6, 1), ("fp32", "channels_first", 1, True, False)),
        ((7, 0), ("fp16", "channels_last", 1, True, True)),
        ((7, 5), ("fp16", "channels_last", 1, True, True)),
        ((8, 0), ("bf16", "channels_last", 1, True, True)),
        ((9, 0), ("bf16", "channels_last", 1, True, True)),
    ],
)
def test_auto_is_decided_by_the_device(monkeypatch, capability, expected):
    monkeypatch.setattr(policy_module, "_compiler_lacks", lambda: None)
    policy = choose_policy(CUDA, capability=capability)
    assert (policy.precision, policy.layout, policy.streams, policy.capture, policy.compile) == expected
    assert policy.scaling == (policy.precision == "fp16")


@pytest.mark.parametrize(("native", "precision"), [(None, "fp32"), ("AVX512-BF16", "bf16"), ("AMX", "bf16")])
def test_a_cpu_compiles_and_captures_nothing_and_takes_bf16_where_it_has_it(monkeypatch, native, precision):
    monkeypatch.setattr(policy_module, "native_bf16", lambda: native)
    policy = choose_policy(CPU)
    assert (policy.precision, policy.layout, policy.streams, policy.capture, policy.compile) == (
        *(precision, "channels_first", 1, False, False),
    )
    assert (native or "no instructions") in policy.reasons["precision"]


def test_without_triton_or_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    policy = choose_policy(CUDA, capability=(9, 0))
    assert (policy.compile, policy.reasons["compile"]) == (False, "Triton needs a C compiler, and there is none")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nowhere")
    assert choose_policy(CUDA, capability=(9, 0)).reasons["compile"].startswith("Triton needs Python's headers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_policy(CUDA, capability=(9, 0)).reasons["compile"] == "Triton is not installed"
    with pytest.raises(ValueError, match=r"--compile on is not possible on a card of capability 9\.0"):
        choose_policy(CUDA, PolicyOptions(compile="on"), capability=(9, 0))


def test_a_network_that_cannot_be_compiled_says_so():
    model = small()
    step = choose_policy(CPU, PolicyOptions(compile="on")).wrap(lambda *_: fail(), networks=(model.generator_ab,))

    def fail():
        raise TorchDynamoException("no compiler\nmore")

    with pytest.raises(CompileError, match=r"cannot be compiled \(.*\): train with --compile off"):
        step(pairs(1)[0], 0)
    assert "forward" not in vars(model.generator_ab)


def test_every_choice_can_be_forced_and_says_why():
    wishes = PolicyOptions(precision="tf32", layout="channels_first", streams="2", capture="off", compile="off")
    policy = choose_policy(CUDA, wishes, capability=(8, 0))
    assert (policy.precision, policy.layout, policy.streams, policy.capture, policy.compile) == (
        *("tf32", "channels_first", 2, False, False),
    )
    assert policy.describe() == [
        ("precision", "tf32", "as asked"),
        ("layout", "channels_first", "as asked"),
        ("streams", "2", "as asked"),
        ("capture", "off", "as asked"),
        ("compile", "off", "as asked"),
    ]
    described = {name: (choice, reason) for name, choice, reason in choose_policy(CUDA, capability=(6, 0)).describe()}
    assert described["compile"] == ("off", "capability 6.0: Triton needs 7.0")
    assert all(reason for _, reason in described.values())


@pytest.mark.parametrize(
    ("options", "capability", "message"),
    [
        ({"precision": "bf16"}, (7, 5), "--precision bf16 is not possible on a card of capability 7.5"),
        ({"precision": "tf32"}, (6, 0), "--precision tf32 is not possible on a card of capability 6.0"),
        ({"compile": "on"}, (6, 0), "--compile on is not possible on a card of capability 6.0"),
        ({"precision": "tf32"}, None, "--precision tf32 is not possible on a CPU"),
        ({"capture": "on"}, None, "--capture on is not possible on a CPU"),
        ({"streams": "2"}, None, "--streams 2 is not possible on a CPU"),
    ],
)
def test_what_a_device_cannot_do_is_refused(options, capability, message):
    with pytest.raises(ValueError, match=message):
        choose_policy(CPU if capability is None else CUDA, PolicyOptions(**options), capability=capability)


def small(**options) -> CycleGAN:
    return build_cyclegan(
        generator=partial(ResNetGenerator, width=4, blocks=1),
        discriminator=partial(PatchGAN, width=4, layers=1),
        **options,
    )


def pairs(count: int, dtype: torch.dtype = torch.float32) -> list[Pair]:
    images = torch.rand(count, 2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1
    return [Pair(*both) for both in images]


def stepper(model: CycleGAN, optimizers: Optimizers, averages: Averages | None = None):
    """Trains once, as the loop does."""

    def step(pair: Pair, number: int) -> dict[str, torch.Tensor]:
        losses = train_step(model, pair, optimizers, step=number)
        if averages is not None:
            averages.update()
        return losses

    return step


class Seen(nn.Module):
    """A loss that notes the types it is given."""

    def __init__(self, types: set[torch.dtype]):
        super().__init__()
        self.types = types

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.types |= {prediction.dtype, target.dtype}
        return (prediction - target).abs().mean()

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return self(real, fake)

    def generator(self, fake: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        return self(fake, torch.ones_like(fake))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("replay", ["history", "none"])
def test_networks_work_in_half_precision_and_losses_do_not(precision, replay):
    types: set[torch.dtype] = set()
    model = small(
        replay=replay, cycle=lambda: Seen(types), identity=lambda: Seen(types), adversarial=lambda: Seen(types)
    )
    inside = []
    model.generator_ab.register_forward_hook(lambda module, given, output: inside.append(output.dtype))
    policy = choose_policy(CPU, PolicyOptions(precision=precision))
    optimizers = make_optimizers(model, scaling=policy.scaling)
    step = policy.wrap(stepper(model, optimizers))
    losses = [step(pair, number) for number, pair in enumerate(pairs(2))]
    assert types == {torch.float32}
    assert set(inside) == {getattr(torch, {"bf16": "bfloat16", "fp16": "float16"}[precision])}
    assert all(torch.isfinite(loss) for loss in losses[-1].values())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def train(model: CycleGAN, optimizers: Optimizers, steps: int, *, seed: int = 0) -> None:
    torch.manual_seed(seed)
    for pair in pairs(steps, torch.float64):
        train_step(model, pair, optimizers)


@pytest.mark.parametrize("replay", ["history", "none"])
def test_scaling_changes_nothing_but_the_gradients_scale(replay):
    plain = small(replay=replay).double()
    scaled = deepcopy(plain)
    both = make_optimizers(plain), make_optimizers(scaled, scaling=True)
    assert both[1].scaler is not None
    for model, optimizers in zip((plain, scaled), both, strict=True):
        train(model, optimizers, 5)
    torch.testing.assert_close(plain.state_dict(), scaled.state_dict(), rtol=1e-9, atol=1e-12)


def test_a_step_that_overflows_is_left_out_and_lowers_the_scale():
    model = small().double()
    optimizers = make_optimizers(model, scaling=True)
    train(model, optimizers, 1)
    before = deepcopy(model.state_dict())
    train_step(model, Pair(*(images * float("inf") for images in pairs(1, torch.float64)[0])), optimizers)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert optimizers.scaler is not None
    assert optimizers.scaler.get_scale() == 2.0**15
    again = make_optimizers(small().double(), scaling=True)
    again.load_state_dict(optimizers.state_dict())
    assert again.scaler is not None
    assert again.scaler.get_scale() == 2.0**15


def test_steps_that_are_not_finite_can_be_left_out_without_a_scale():
    plain = small().double()
    guarded = deepcopy(plain)
    optimizers = make_optimizers(guarded, skip_nonfinite=True)
    assert optimizers.scaler is not None
    train(guarded, optimizers, 1)
    before = deepcopy(guarded.state_dict())
    for _ in range(200):
        train_step(guarded, Pair(*(images * float("nan") for images in pairs(1, torch.float64)[0])), optimizers)
    assert optimizers.scaler.get_scale() == 1.0
    assert all(torch.equal(parameter, before[name]) for name, parameter in guarded.named_parameters())


def test_channels_last_changes_only_the_layout():
    model = small().double()
    other = deepcopy(model)
    policy = choose_policy(CPU, PolicyOptions(layout="channels_last"))
    policy.prepare(other)
    assert next(other.parameters()).is_contiguous(memory_format=torch.channels_last)
    layouts = []
    other.generator_ab.register_forward_hook(
        lambda module, given, output: layouts.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    torch.manual_seed(0)
    step = policy.wrap(stepper(other, make_optimizers(other)))
    for number, pair in enumerate(pairs(3, torch.float64)):
        step(pair, number)
    assert layouts
    assert layouts[0]
    train(model, make_optimizers(model), 3)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of PyTorch's own compiler
def test_a_compiled_step_is_the_same_and_compiles_only_the_step(monkeypatch: pytest.MonkeyPatch):
    # the whole of torch.compile but its last stage, which would need a minute and a C++ compiler
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model = small().double()
    other = deepcopy(model)
    policy = choose_policy(CPU, PolicyOptions(compile="on"))
    compiled = []
    step = policy.wrap(
        lambda pair, number: (compiled.append(other.generator_ab.forward), train_step(other, pair, optimizers))[1],
        networks=(other.generator_ab, other.generator_ba),
    )
    optimizers = make_optimizers(other)
    torch.manual_seed(0)
    for pair in pairs(3, torch.float64):
        step(pair, 0)
    assert "forward" not in vars(other.generator_ab)
    assert all(forward != other.generator_ab.forward for forward in compiled)
    train(model, make_optimizers(model), 3)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=1e-7, atol=1e-9)


def everything(scaling: bool) -> dict:
    """A small run whose optimizers work as on CUDA: step counts and rates are tensors that a kernel reads."""
    torch.manual_seed(7)
    model = small(augment=DiffAugment())
    builder = partial(torch.optim.Adam, betas=(0.5, 0.999), fused=True)
    builders = {name: lambda parameters: builder(parameters, lr=torch.tensor(2e-4)) for name in model.networks()}
    optimizers = make_optimizers(model, builders=builders, scaling=scaling)
    return {"model": model, "optimizers": optimizers, "averages": Averages(model.stages(), decay=0.9)}


def run(things: dict, step, first: int, last: int) -> list[dict[str, float]]:
    losses = []
    for number, pair in enumerate(pairs(last)[first:], first):
        things["optimizers"].scale_rates(1.0 if number < 30 else 0.5)
        losses.append({name: float(loss) for name, loss in step(pair, number).items()})
    return losses


@pytest.mark.parametrize("scaling", [False, True])
def test_warming_up_leaves_no_trace_in_a_captured_step(monkeypatch: pytest.MonkeyPatch, scaling: bool):
    monkeypatch.setattr(capture, "_record", fake_record)
    plain, captured = everything(scaling), everything(scaling)
    replayed = CapturedStep(stepper(**captured), **captured)
    torch.manual_seed(1)
    expected = run(plain, stepper(**plain), 0, 40)
    torch.manual_seed(1)
    assert run(captured, replayed, 0, 20) == expected[:20]
    # a checkpoint is loaded: the recording goes on with it, and so does a new one
    saved = {name: deepcopy(thing.state_dict()) for name, thing in captured.items()}
    randomness = torch.get_rng_state()
    assert run(captured, replayed, 20, 40) == expected[20:]
    fresh = everything(scaling)
    for things, step in ((captured, replayed), (fresh, CapturedStep(stepper(**fresh), **fresh))):
        for name, thing in things.items():
            thing.load_state_dict(saved[name])
        torch.set_rng_state(randomness)
        assert run(things, step, 20, 40) == expected[20:]
        for name, thing in things.items():
            torch.testing.assert_close(thing.state_dict(), plain[name].state_dict(), rtol=0, atol=0)


def test_states_are_loaded_in_place():
    things = everything(scaling=False)
    optimizers = tuple(things["optimizers"].values())
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    train_step(things["model"], pairs(1)[0], things["optimizers"])
    fresh = everything(scaling=False)

    def addresses() -> dict[str, int]:
        found = {f"model.{name}": tensor.data_ptr() for name, tensor in things["model"].state_dict().items()}
        for optimizer in ("generators", "discriminators"):
            for number, state in things["optimizers"].state_dict()[optimizer]["state"].items():
                found |= {f"{optimizer}.{number}.{name}": tensor.data_ptr() for name, tensor in state.items()}
        return found

    before = addresses()
    for name, thing in things.items():
        thing.load_state_dict(fresh[name].state_dict())
    assert addresses() == before
    assert all(optimizer.param_groups[0]["lr"] is rate for optimizer, rate in zip(optimizers, rates, strict=True))
    things["optimizers"].scale_rates(0.5)
    assert [float(rate) for rate in rates] == pytest.approx([1e-4, 1e-4])
    assert things["model"].critics_a[0].replay.count == 0
    states = things["optimizers"].state_dict()["generators"]["state"].values()
    assert all(not tensor.any() for state in states for tensor in state.values())


def test_shapes_and_phases_are_recorded_once_each_and_losses_stay_their_own(monkeypatch: pytest.MonkeyPatch):
    recorded: list[int] = []
    monkeypatch.setattr(capture, "_record", lambda run: recorded.append(1) or fake_record(run))

    def step(pair: Pair, number: int) -> dict[str, torch.Tensor]:
        loss = {"gan_ab": pair.a.mean() + len(pair.b)}
        return loss | ({"penalty_a": 2 * pair.b.mean()} if number % 2 == 0 else {})

    captured = CapturedStep(step, phase=lambda number: number % 2 == 0)
    one, two = (Pair(torch.full((n, 3, 2, 2), float(n)), torch.ones(n, 3, 2, 2)) for n in (1, 2))
    given = [(one, 0), (Pair(one.a + 1, one.b * 3), 2), (one, 1), (two, 3), (Pair(one.a + 2, one.b), 5), (one, 4)]
    losses = [captured(pair, number) for pair, number in given]
    assert [{name: float(loss) for name, loss in each.items()} for each in losses] == [
        *({"gan_ab": 2.0, "penalty_a": 2.0}, {"gan_ab": 3.0, "penalty_a": 6.0}, {"gan_ab": 2.0}),
        *({"gan_ab": 4.0}, {"gan_ab": 4.0}, {"gan_ab": 2.0, "penalty_a": 2.0}),
    ]
    assert len(recorded) == 3


def test_gradients_are_those_of_the_recording_that_was_replayed_last(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture, "_record", fake_record)
    layer = nn.Linear(1, 1, bias=False)

    def step(batch: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
        layer.zero_grad()
        loss = (1 + number) * layer(batch).mean()
        loss.backward()
        return {"loss": loss.detach()}

    captured, batch = CapturedStep(step, phase=lambda number: number, layer=layer), torch.ones(1, 1)
    for number in (0, 1, 0, 0, 1):
        captured(batch * 5, number)
        assert layer.weight.grad is not None
        assert float(layer.weight.grad) == 5 * (1 + number)


@pytest.mark.parametrize(
    ("draw", "named"),
    [
        (lambda: random.random(), "Python's random"),
        (lambda: float(np.random.rand()), "NumPy's random"),
        (lambda: torch.rand(()), "PyTorch's CPU generator"),
    ],
)
def test_a_part_that_draws_on_the_host_is_not_captured(monkeypatch: pytest.MonkeyPatch, draw, named: str):
    monkeypatch.setattr(capture, "_record", partial(fake_record, device_draws=False))
    step = CapturedStep(lambda pair, number: {"gan_ab": pair.a.mean() * draw()})
    with pytest.raises(CaptureError, match=rf"the step draws from {named}, whose numbers.*--capture off"):
        step(pairs(1)[0], 0)
    monkeypatch.setattr(capture, "_record", fake_record)
    step = CapturedStep(lambda pair, number: {"gan_ab": pair.a.mean() * torch.rand(())})  # as on the device
    losses = {float(step(pairs(1)[0], 0)["gan_ab"]) for _ in range(4)}
    assert len(losses) == 4


def test_a_step_that_cannot_be_captured_says_so(monkeypatch: pytest.MonkeyPatch):
    class Graph:
        def __init__(self, *_: object, **__: object): ...
        def __enter__(self): ...
        def __exit__(self, *_: object): ...

    def refuse(pair: Pair, number: int) -> dict[str, torch.Tensor]:
        if calls.append(1) or len(calls) > 3:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return {"gan_ab": pair.a.mean()}

    calls: list[int] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    streams: list[str] = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "before")
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    with pytest.raises(CaptureError, match=r"\(operation not permitted when stream is capturing\).*--capture off"):
        CapturedStep(refuse)(pairs(1)[0], 0)
    assert streams == ["before"]


def test_averages_are_those_of_the_generators_alone():
    model = small()
    averages = Averages(model.stages(), decay=0.3)
    averaged = averages.networks["generator_ab"]
    expected = {name: p.clone() for name, p in model.generator_ab.state_dict().items()}
    optimizers = make_optimizers(model)
    decays = [0.1, 2 / 11, 3 / 12, *[0.3] * 2]  # the average of a short run forgets its first weights soon
    for pair, decay in zip(pairs(5), decays, strict=True):
        train_step(model, pair, optimizers)
        averages.update()
        for name, parameter in model.generator_ab.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * parameter
    torch.testing.assert_close(dict(averaged.state_dict()), expected)
    assert not averaged.training
    assert all(name.startswith("average.generator_") for name in averages.state_dict() if name != "steps")
    with pytest.raises(ValueError, match=r"decay=1\.0: the decay of a moving average lies between 0 and 1"):
        Averages(model.stages(), decay=1.0)


def test_where_runs_must_be_equal_nothing_is_compiled_unasked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(policy_module, "_compiler_lacks", lambda: None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    policy = choose_policy(CUDA, capability=(9, 0))
    assert (policy.compile, policy.reasons["compile"]) == (
        *(False, "compiled kernels may be chosen by timing, so not where runs must be equal"),
    )
    asked = choose_policy(CUDA, PolicyOptions(compile="on"), capability=(9, 0))
    assert (asked.compile, asked.reasons["compile"]) == (True, "as asked")
    assert choose_policy(CUDA, capability=(6, 0)).reasons["compile"] == "capability 6.0: Triton needs 7.0"


@pytest.mark.parametrize(
    ("version", "level", "dropout", "captured"),
    [
        ("2.9.1+cu126", "lowest", 0.5, False),
        ("2.10.0", "lowest", 0.5, True),
        ("2.9.1", "low", 0.5, True),
        ("2.9.1", "lowest", 0.0, True),
    ],
)
def test_old_pytorch_does_not_record_dropout_that_is_recomputed(
    monkeypatch: pytest.MonkeyPatch, version: str, level: str, dropout: float, captured: bool
):
    monkeypatch.setattr(torch, "__version__", version)
    network = ResNetGenerator(width=2, blocks=1, dropout=dropout)
    policy = choose_policy(CUDA, PolicyOptions(compile="off"), capability=(9, 0)).at_level(level, network)
    assert policy.capture == captured
    assert ("before 2.10 cannot record" in policy.reasons["capture"]) != captured
    plain = choose_policy(CPU).at_level(level, network)
    assert plain.reasons["capture"] == "CUDA only"


def test_statistics_survive_a_step_that_is_skipped():
    model = build_cyclegan(
        generator=partial(ResNetGenerator, width=2, blocks=1, norm="batch"),
        discriminator=partial(PatchGAN, width=2, layers=1, norm="batch"),
    )
    optimizers = make_optimizers(model, skip_nonfinite=True)
    step = choose_policy(CPU).wrap(stepper(model, optimizers), guarded=model)
    good, bad = pairs(1)[0], Pair(*(images * float("nan") for images in pairs(1)[0]))
    step(good, 0)
    statistics = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    assert any(value.any() for value in statistics.values())
    step(bad, 1)
    after = dict(model.named_buffers())
    for name, value in statistics.items():
        assert torch.equal(after[name], value), name
    step(good, 2)
    assert any(not torch.equal(dict(model.named_buffers())[name], value) for name, value in statistics.items())
    assert all(value.isfinite().all() for name, value in model.named_buffers() if "running" in name)
