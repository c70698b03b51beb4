"""The optimizers of an assembly: what they hold, rates, builders, loss scaling, saved states."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, AdamW, Optimizer

from ganparts import CycleGAN, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.adversarial import Averages, ConstantThenLinear, Optimizers, trained_parameters
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator

small: dict[str, Any] = {
    "generator": partial(ResNetGenerator, width=2, blocks=1),
    "discriminator": partial(PatchGAN, width=2),
}


def test_optimizers_hold_what_is_trained_with_the_promised_numbers():
    model = build_cyclegan(**small)
    optimizers = make_optimizers(model)
    for optimizer, networks in (
        (optimizers["generators"], (model.generator_ab, model.generator_ba)),
        (optimizers["discriminators"], (model.discriminator_a, model.discriminator_b)),
    ):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (2e-4, (0.5, 0.999), 1e-8)
        trained = [p for network in networks for p in network.parameters() if p.requires_grad]
        assert [id(p) for p in group["params"]] == [id(p) for p in trained]
    optimizers.scale_rates(5.0)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()] == pytest.approx([1e-3, 1e-3])
    other = make_optimizers(build_cyclegan(**small))
    other.load_state_dict(optimizers.state_dict())
    assert other["generators"].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_loaded_states_lie_in_memory_as_their_parameters_do():
    model = build_cyclegan(**small)
    optimizers = make_optimizers(model)
    train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), optimizers)
    other = build_cyclegan(**small).to(memory_format=torch.channels_last)
    loaded = make_optimizers(other)
    loaded.load_state_dict(optimizers.state_dict())
    moved = 0
    for mine, theirs in zip(model.generator_ab.parameters(), other.generator_ab.parameters(), strict=True):
        if mine in optimizers["generators"].state:  # a bias that a norm cancels has none
            states = loaded["generators"].state[theirs]
            assert states["exp_avg"].stride() == states["exp_avg_sq"].stride() == theirs.stride()
            assert torch.equal(states["exp_avg"], optimizers["generators"].state[mine]["exp_avg"])
            moved += theirs.stride() != mine.stride()
    assert moved > 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rate": -1.0}, "learning_rate=-1.0: "),
        ({"learning_rate": "a"}, "learning_rate='a': "),
        ({"rates": {"generators": float("nan")}}, r"rates\['generators'\]=nan: "),
        ({"betas": 0.5}, "betas=0.5: give two numbers"),
        ({"betas": (0.5, 1.0)}, r"betas=\(0.5, 1.0\): give two numbers"),
        ({"eps": -1e-8}, "eps=-1e-08: "),
    ],
)
def test_rates_and_betas_out_of_range_are_refused_by_name(given: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        make_optimizers(build_cyclegan(**small), **given)


def test_gradients_and_states_of_another_layout_train_as_those_of_the_parameters_own():
    model, twin = (build_cyclegan(**small) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    ours, theirs = make_optimizers(model), make_optimizers(twin)
    for step in range(3):
        if step == 1:
            twin.to(memory_format=torch.channels_last)  # gradients come so from here on; the states are older
        for network, other in ((model.generator_ab, twin.generator_ab), (model.discriminator_a, twin.discriminator_a)):
            for mine, copy in zip(network.parameters(), other.parameters(), strict=True):
                mine.grad = torch.randn_like(mine)
                copy.grad = mine.grad.clone(memory_format=torch.contiguous_format)
        ours.step()
        theirs.step()
    moved = 0
    for mine, copy in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, copy)
        moved += mine.stride() != copy.stride()
    assert moved > 3


def test_optimizers_keep_the_form_that_suits_their_device_when_loading():
    state = make_optimizers(build_cyclegan(**small)).state_dict()
    for part in state.values():  # as from an unfused run on CUDA
        part["param_groups"][0] |= {"fused": None, "capturable": True, "lr": torch.tensor(3e-4)}
    model = build_cyclegan(**small)
    optimizers = make_optimizers(model)
    optimizers.load_state_dict(state)
    (group,) = optimizers["discriminators"].param_groups
    assert (group["fused"], group["capturable"]) == (True, False)
    assert group["lr"] == pytest.approx(3e-4)
    assert isinstance(group["lr"], float)
    # and a rate that lies in a tensor stays there
    rate = torch.tensor(1e-4)
    builder = partial(torch.optim.Adam, lr=rate, fused=True)
    optimizers = make_optimizers(model, builders={"generators": builder})
    optimizers.scale_rates(5.0)
    assert optimizers["generators"].param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(5e-4)
    optimizers.load_state_dict(state)
    assert optimizers["generators"].param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(3e-4)


def rates(optimizers: Optimizers) -> dict[str, float]:
    return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in optimizers.items()}


def test_rates_of_their_own_keep_their_ratio():
    model = build_cyclegan(**small)
    optimizers = make_optimizers(model, learning_rate=1e-4, rates={"discriminators": 4e-4})
    assert rates(optimizers) == {"generators": 1e-4, "discriminators": 4e-4}
    for factor in (0.5, 1.0, 0.25):
        optimizers.scale_rates(factor)
        assert rates(optimizers) == pytest.approx({"generators": factor * 1e-4, "discriminators": factor * 4e-4})
    loaded = make_optimizers(build_cyclegan(**small), learning_rate=1e-4, rates={"discriminators": 4e-4})
    loaded.load_state_dict(optimizers.state_dict())
    assert rates(loaded) == pytest.approx({"generators": 0.25e-4, "discriminators": 1e-4})
    other = make_optimizers(build_cyclegan(**small), learning_rate=3e-4)
    other.load_state_dict(optimizers.state_dict())
    for each, expected in ((loaded, (1e-4, 4e-4)), (other, (3e-4, 3e-4))):
        each.scale_rates(1.0)  # of its own rates, not of those loaded
        assert tuple(rates(each).values()) == pytest.approx(expected)


def test_groups_of_one_optimizer_keep_their_ratio_too():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": first.parameters()}, {"params": second.parameters(), "lr": 0.3}]
    optimizers = Optimizers({"all": SGD(groups, lr=0.1)})
    optimizers.scale_rates(0.5)
    assert [group["lr"] for group in optimizers["all"].param_groups] == pytest.approx([0.05, 0.15])


def test_other_optimizers_are_built():
    from timm.optim import Lion

    model = build_cyclegan(**small)
    builders = {"generators": partial(AdamW, lr=3e-4, weight_decay=0.1), "discriminators": partial(Lion, lr=1e-5)}
    optimizers = make_optimizers(model, builders=builders, rates={"generators": 1.0})
    assert [type(optimizer) for optimizer in optimizers.values()] == [AdamW, Lion]
    assert rates(optimizers) == {"generators": 3e-4, "discriminators": 1e-5}
    assert optimizers["generators"].param_groups[0]["weight_decay"] == 0.1
    before = [p.detach().clone() for p in trained_parameters(model)]
    train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), optimizers)
    moved = [not torch.equal(old, new) for old, new in zip(before, trained_parameters(model), strict=True)]
    assert all(moved)
    other = make_optimizers(build_cyclegan(**small), builders=builders)
    other.load_state_dict(optimizers.state_dict())
    torch.testing.assert_close(other.state_dict(), optimizers.state_dict())
    for wrong in ({"rates": {"critics": 1.0}}, {"builders": {"critics": AdamW}}):
        with pytest.raises(ValueError, match="has no networks 'critics': it has generators, discriminators"):
            make_optimizers(model, **wrong)


@pytest.mark.parametrize("stepped", [False, True])
def test_optimizers_that_count_with_numbers_go_back_to_a_state(stepped: bool):
    from timm.optim.adabelief import AdaBelief

    def step(optimizers: Optimizers) -> dict[str, Any]:
        torch.manual_seed(0)
        for parameter in weights:
            parameter.grad = torch.randn_like(parameter)
        for each in optimizers.values():
            each.step()
        return deepcopy(optimizers.state_dict())

    weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    optimizers = Optimizers({"all": AdaBelief(weights, lr=0.1)})
    saved = step(optimizers) if stepped else deepcopy(optimizers.state_dict())
    start = deepcopy(weights)
    expected, values = step(optimizers), deepcopy(weights)
    with torch.no_grad():
        for weight, before in zip(weights, start, strict=True):
            weight.copy_(before)
    optimizers.load_state_dict(saved)
    torch.testing.assert_close(step(optimizers), expected, rtol=0, atol=0)
    torch.testing.assert_close(weights, values, rtol=0, atol=0)


class Loud(SGD):
    """Says when it steps."""

    def __init__(self, parameters: Any, said: list[str], name: str):
        super().__init__(parameters, lr=0.1)
        self.said, self.name = said, name

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.said.append(self.name)
        return super().step(closure)


class Counted(GradScaler):
    """Counts its updates."""

    updates = 0

    def update(self, new_scale: float | Tensor | None = None) -> None:
        self.updates += 1
        super().update(new_scale)


def named(said: list[str], scaler: GradScaler | None = None, **options: Any) -> tuple[Optimizers, list[nn.Linear]]:
    layers = [nn.Linear(2, 1) for _ in range(3)]
    each: dict[str, Optimizer] = {
        name: Loud(layer.parameters(), said, name) for name, layer in zip("gdf", layers, strict=True)
    }
    return Optimizers(each, scaler, **options), layers


def fill(optimizers: Optimizers, layers: list[nn.Linear]) -> None:
    for layer in layers:
        optimizers.backward(layer(torch.ones(1, 2)).sum(), layer.parameters())


def test_optimizers_step_by_name_and_the_scale_is_updated_once():
    said: list[str] = []
    scaler = Counted("cpu", init_scale=4.0, growth_interval=1)
    optimizers, layers = named(said, scaler)
    for number in (1, 2):
        fill(optimizers, layers)
        optimizers.step("d")
        optimizers.step("g", "f")
        assert said == ["d", "g", "f"] * number
        assert scaler.updates == number
        optimizers.zero_grad()
    assert scaler.get_scale() == 16.0
    fill(optimizers, layers)
    optimizers.step()
    assert said[-3:] == ["g", "d", "f"]
    assert scaler.updates == 3
    with pytest.raises(KeyError):
        optimizers.step("x")


@pytest.mark.parametrize("scaled", [False, True])
def test_functions_see_whole_gradients_just_before_a_step(scaled: bool):
    said: list[str] = []
    norms: list[float] = []

    def clip(optimizer: Optimizer) -> None:
        assert isinstance(optimizer, Loud)
        said.append(f"before {optimizer.name}")
        norms.append(float(nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.5)))

    scaler = GradScaler("cpu", init_scale=1024.0) if scaled else None
    optimizers, layers = named(said, scaler, before_step=(clip,))
    before = [layer.weight.detach().clone() for layer in layers]
    fill(optimizers, layers)
    optimizers.step()
    assert said == ["before g", "g", "before d", "d", "before f", "f"]
    assert norms == pytest.approx([3**0.5] * 3)
    for layer, old in zip(layers, before, strict=True):
        torch.testing.assert_close(old - layer.weight, torch.full((1, 2), 0.1 * 0.5 / 3**0.5))


def test_an_optimizer_that_is_skipped_leaves_the_others_stepping():
    said: list[str] = []
    optimizers, layers = named(said, GradScaler("cpu", init_scale=8.0))
    fill(optimizers, layers)
    assert layers[1].weight.grad is not None
    layers[1].weight.grad.fill_(torch.inf)
    optimizers.step()
    assert said == ["g", "f"]
    assert optimizers.loss_scale == 4.0


def test_norms_of_gradients_are_those_of_the_networks():
    model = build_cyclegan(**small, penalty_every=1)
    optimizers = make_optimizers(model, scaling=True)
    train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), optimizers)
    norms = optimizers.gradient_norms(model.networks())
    networks = {name: network for each in model.networks().values() for name, network in each.items()}
    assert norms.keys() == {f"grad_norm_{name}" for name in networks}
    for name, network in networks.items():
        gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        torch.testing.assert_close(norms[f"grad_norm_{name}"], gradients.norm())


def test_gradients_that_a_fused_optimizer_left_multiplied_have_their_own_norms(monkeypatch: pytest.MonkeyPatch):
    """A fused optimizer looks for infinity in its own kernel, and then leaves all its gradients scaled."""
    layers = {"whole": nn.Linear(2, 1), "broken": nn.Linear(2, 1)}
    fused = torch.optim.Adam([p for layer in layers.values() for p in layer.parameters()], lr=0.1, fused=True)
    optimizers = Optimizers({"generators": fused}, GradScaler("cpu", init_scale=1024.0))
    for layer in layers.values():
        optimizers.backward(layer(torch.ones(1, 2)).sum(), layer.parameters())
    assert layers["broken"].weight.grad is not None
    layers["broken"].weight.grad.fill_(torch.inf)
    optimizers.step()
    norms = optimizers.gradient_norms({"generators": layers})
    assert norms["grad_norm_whole"].item() == pytest.approx(3**0.5)
    assert norms["grad_norm_broken"].item() == torch.inf
    optimizers.zero_grad()
    for layer in layers.values():
        optimizers.backward(layer(torch.ones(1, 2)).sum(), layer.parameters())
    optimizers.step()
    norms = optimizers.gradient_norms({"generators": layers})
    assert [norm.item() for norm in norms.values()] == pytest.approx([3**0.5] * 2)


def freeze(*names: str) -> Callable[[CycleGAN], CycleGAN]:
    def frozen(model: CycleGAN) -> CycleGAN:
        for name in names:
            model.get_submodule(name).requires_grad_(False)
        return model

    return frozen


@pytest.mark.parametrize("replay", ["history", "none"])
def test_frozen_discriminators_still_judge(replay: str):
    penalty = lambda discriminator, real, fake: discriminator(real).square().mean()  # noqa: E731
    model = build_cyclegan(**small, replay=replay, penalty=penalty)
    whole = build_cyclegan(**small, replay=replay, penalty=penalty)
    whole.load_state_dict(model.state_dict())
    freeze("critics_a.0.discriminator", "critics_b.0.discriminator")(model)
    optimizers = make_optimizers(model, scaling=True)
    assert list(optimizers) == ["generators"]
    before = {name: value.clone() for name, value in model.critics_a.state_dict().items() if "discriminator" in name}
    pair = Pair(*torch.rand(2, 1, 3, 32, 32))
    torch.testing.assert_close(train_step(model, pair, optimizers), train_step(whole, pair, make_optimizers(whole)))
    for name, value in before.items():
        assert torch.equal(model.critics_a.state_dict()[name], value)
    mine, theirs = ([p.grad for p in trained_parameters(m.generator_ab)] for m in (model, whole))
    torch.testing.assert_close(mine, theirs)
    norms = optimizers.gradient_norms(model.networks())
    assert norms["grad_norm_discriminator_a"] == 0
    assert norms["grad_norm_generator_ab"] > 0


def test_the_norm_of_a_frozen_network_lies_on_its_device():
    with torch.device("meta"):
        model = freeze("critics_a.0.discriminator")(build_cyclegan(**small))
    optimizers = make_optimizers(model)
    train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32, device="meta")), optimizers)
    assert {norm.device.type for norm in optimizers.gradient_norms(model.networks()).values()} == {"meta"}


def test_one_frozen_discriminator_leaves_the_other_to_be_trained():
    model = freeze("critics_a.0.discriminator")(build_cyclegan(**small))
    optimizers = make_optimizers(model)
    train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), optimizers)
    assert all(p.grad is None for p in model.critics_a.parameters())
    assert all(p.grad is not None for p in trained_parameters(model.critics_b))
    freeze("generator_ab", "generator_ba", "critics_b")(model)
    with pytest.raises(ValueError, match="no network of this CycleGAN has parameters that are trained"):
        make_optimizers(model)


def test_a_loss_that_no_trained_weight_made_is_an_error():
    model = build_cyclegan(**small)
    with pytest.raises(RuntimeError, match="does not require grad"):
        make_optimizers(model).backward(torch.ones(()), trained_parameters(model.generator_ab))


def test_averages_begin_with_the_weights_and_follow_them_by_the_decay():
    layer = torch.nn.Linear(1, 1, bias=False).double()
    averages = Averages({"layer": layer}, decay=0.9)
    expected = layer.weight.item()
    for step in range(1, 200):
        layer.weight.data.fill_(step % 7)
        averages.update()
        expected += (step % 7 - expected) * max(9 / (step + 9), 0.1)
        assert averages.networks["layer"].weight.item() == pytest.approx(expected, abs=1e-12)
    for decay in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"decay={decay}"):
            Averages({"layer": layer}, decay=decay)


def test_tied_weights_are_averaged_once_a_step():
    tied, other = nn.Linear(2, 2), nn.Linear(2, 2)
    network = nn.ModuleDict({"first": tied, "again": tied, "other": other})
    averages = Averages({"network": network}, decay=0.5)
    for value in range(30):
        for parameter in network.parameters():
            nn.init.constant_(parameter, value)
        averages.update()
    average = averages.networks["network"].state_dict()
    torch.testing.assert_close(average["first.weight"], average["other.weight"])
    assert torch.equal(average["first.weight"], average["again.weight"])


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 200))
def test_a_decay_begins_with_the_first_step_whose_rate_is_lower(constant: int, decay: int, steps: int):
    schedule = ConstantThenLinear(constant, decay)
    lower = [step for step in range(steps) if schedule(step, steps) < 1]
    assert schedule.decay_begins(steps) == (lower[0] if lower else steps)
