"""Every registered part in an assembly with a fixed, tiny partner: parts meet only through their protocols.

What a part must do by itself is checked in test_testing.py.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
import torch
from tiny_parts import smallest_image, tiny
from torch import nn

from ganparts import (
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    REPLAY_BUFFERS,
    CycleGAN,
    LossWeights,
    Pair,
    build_cut,
    build_cyclegan,
    build_pix2pix,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import Averages, MemoryNeed, memory_need
from ganparts.augment import DiffAugment
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator
from ganparts.registry import Registry
from ganparts.replay import QueueBuffer

TABLES = {
    "generator": GENERATORS,
    "discriminator": DISCRIMINATORS,
    "adversarial": ADVERSARIAL_LOSSES,
    "cycle": CONSISTENCY_LOSSES,
    "replay": REPLAY_BUFFERS,
    "penalty": PENALTIES,
}
PARTS = [(kind, name) for kind, table in TABLES.items() for name in table]


def assembly(kind: str, name: str) -> CycleGAN:
    """A CycleGAN with one part chosen, and the same small one of every other kind."""
    part = tiny(TABLES[kind], name)
    objectives = len(getattr(part(), "losses", [None])) if kind == "adversarial" else 1
    partners: dict[str, Any] = {
        "generator": partial(ResNetGenerator, width=2, blocks=1),
        "discriminator": partial(PatchGAN, width=2, layers=2, objectives=objectives),
        "replay": "none",
    }
    chosen: dict[str, Any] = {kind: part}
    if kind == "cycle":
        chosen["identity"] = part
    return build_cyclegan(**(partners | chosen))


def size_for(model: CycleGAN) -> int:
    return smallest_image(model.generator_ab, model.discriminator_a, model.cycle_a)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_part_trains(kind: str, name: str):
    model = assembly(kind, name)
    size, optimizers = size_for(model), make_optimizers(model)
    before = {name: parameter.detach().clone() for name, parameter in trained(model).items()}
    pair = Pair(*(torch.rand(2, 2, 3, size, size) * 2 - 1))
    for step in range(2):
        losses = train_step(model, pair, optimizers, step=step)
        assert all(torch.isfinite(loss) and loss.shape == () for loss in losses.values()), losses
    starved = [name for name, parameter in trained(model).items() if parameter.grad is None]
    assert starved == []
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    for network in (network for each in model.networks().values() for network in each.values()):
        moved = [name for name, p in trained(model).items() if not torch.equal(p, before[name])]
        assert any(model.get_parameter(name) is p for name in moved for p in network.parameters())
    # what was learned and remembered goes into another assembly
    state = {key: value.clone() for key, value in model.state_dict().items()}
    other = assembly(kind, name)
    other.load_state_dict(state)
    torch.testing.assert_close(other.state_dict(), state, rtol=0, atol=0)
    for one, same in zip(model.stages().values(), other.stages().values(), strict=True):
        with torch.no_grad():
            assert torch.equal(one.eval()(pair.a), same.eval()(pair.a))


NETWORKS = [(kind, name) for kind, name in PARTS if kind in ("generator", "discriminator")]


def need_of(model: Any, size: int) -> MemoryNeed:
    return memory_need(model, lambda pairs: Pair(*torch.empty(2, pairs, 3, size, size)))


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_every_network_trains_without_data(kind: str, name: str):
    """On the device "meta", so nothing is asked of the device; and its memory can be estimated."""
    partners: dict[str, Any] = {
        "generator": partial(ResNetGenerator, width=2, blocks=1),
        "discriminator": partial(PatchGAN, width=2, layers=2),
    }
    partners[kind] = (tiny(TABLES[kind], name), partners[kind])  # in one of the two places: half the time
    with torch.device("meta"):
        model = build_cyclegan(**partners, replay="none", weights=LossWeights(identity=0.0))
    size = size_for(model)
    need = need_of(model, size)
    assert need.fixed > 0
    assert need.per_pair > 2 * 3 * 4 * size**2
    losses = train_step(model, Pair(*torch.rand(2, 2, 3, size, size, device="meta")), make_optimizers(model), step=0)
    assert {loss.device.type for loss in losses.values()} == {"meta"}


LOSSES = CONSISTENCY_LOSSES.names()


@pytest.mark.parametrize("losses", [LOSSES[place::2] for place in range(2)], ids=" ".join)
def test_all_losses_train_without_data(losses: list[str]):
    """Several at once; penalties and replay buffers do so below."""
    adversarial = ADVERSARIAL_LOSSES.names()[LOSSES.index(losses[0]) :: 2]
    objectives = [2 if name == "two_objective" else 1 for name in adversarial]
    cycle_a, cycle_b, identity_a, identity_b = (tiny(CONSISTENCY_LOSSES, name) for name in (losses * 2)[:4])
    with torch.device("meta"):
        model = build_cyclegan(
            generator=partial(ResNetGenerator, width=2, blocks=1),
            discriminator=(
                [partial(PatchGAN, width=2, layers=2, objectives=count) for count in objectives],
                partial(PatchGAN, width=2, layers=2),
            ),
            adversarial=(adversarial, "lsgan"),
            cycle=(cycle_a, cycle_b),
            identity=(identity_a, identity_b),
            replay="none",
        )
    size = smallest_image(model.cycle_a, model.cycle_b, model.identity_a, model.identity_b)
    need = need_of(model, size)
    assert need.per_pair > 2 * 3 * 4 * size**2
    losses_of_a_step = train_step(model, Pair(*torch.rand(2, 2, 3, size, size, device="meta")), make_optimizers(model))
    assert {loss.device.type for loss in losses_of_a_step.values()} == {"meta"}


# --- every assembly with several critics, each with its own penalty, replay buffer and augmentation


def critics_of(penalties: list[str], **options: Any) -> dict[str, list[Any]]:
    """One critic for each penalty, the replay buffers and augmentations in turn."""
    replays = [REPLAY_BUFFERS.names()[place % len(REPLAY_BUFFERS)] for place in range(len(penalties))]
    return {
        "discriminator": [partial(PatchGAN, width=2, layers=2, **options) for _ in penalties],
        "adversarial": [["lsgan", "rahinge"][place % 2] for place in range(len(penalties))],
        "replay": [tiny(REPLAY_BUFFERS, replay) for replay in replays],
        "augment": [[None, DiffAugment()][place % 2] for place in range(len(penalties))],
        "penalty": [PENALTIES.create(penalty) for penalty in penalties],
    }


def everything(method: str) -> Any:
    """An assembly of each method, with a critic for every kind of penalty, each due every second step."""
    penalties = PENALTIES.names()
    if method == "pix2pix":
        return build_pix2pix(
            generator=partial(ResNetGenerator, width=2, blocks=1),
            penalty_every=2,
            **critics_of(penalties, in_channels=6),
        )
    if method == "cyclegan":
        domains = critics_of(penalties[:3]), critics_of(penalties[3:])
        return build_cyclegan(
            generator=partial(ResNetGenerator, width=2, blocks=1),
            penalty_every=2,
            **{name: (domains[0][name], domains[1][name]) for name in domains[0]},
        )
    return build_cut(
        method,
        generator=tiny(GENERATORS, "resnet6_antialias"),
        layers=(0, 4, 8),
        patches=4,
        projector_width=4,
        penalty_every=2,
        **critics_of(penalties),
    )


METHODS = ["cyclegan", "cut", "fastcut", "pix2pix"]


def check_names(model: Any) -> None:
    networks, parts = model.networks(), model.parts()
    assert list(networks["generators"].items()) == list(model.stages().items())
    for part in (name for each in networks.values() for name in each):
        assert parts[part] is next(each[part] for each in networks.values() if part in each)
    assert len(networks["discriminators"]) == len(PENALTIES)
    owned = [id(p) for each in networks.values() for network in each.values() for p in network.parameters()]
    assert len(owned) == len(set(owned))
    assert {id(p) for p in model.parameters() if p.requires_grad} <= set(owned)


def options_of(names: set[str], *tables: Registry[Any]) -> list[tuple[Registry[Any], str, str]]:
    """Of the tables' parts, those of their options that have one of these names."""
    return [
        (table, part, option)
        for table in tables
        for part, builder in table.items()
        for option in inspect.signature(builder).parameters
        if option in names
    ]


COUNTS = {"width", "in_channels", "out_channels", "projection_width", "objectives", "group"}
FACTORS = {"weight", "constant", "sigma"}


@pytest.mark.parametrize(("table", "part", "option"), options_of(COUNTS, GENERATORS, DISCRIMINATORS))
@pytest.mark.parametrize("value", [0, -1])
def test_a_network_without_channels_is_refused(table: Registry[Any], part: str, option: str, value: int):
    with torch.device("meta"), pytest.raises(ValueError, match=f"{option}={value}: "):
        table.create(part, **{option: value})


@pytest.mark.parametrize(("table", "part", "option"), options_of({"blocks"}, GENERATORS))
def test_a_generator_may_have_no_blocks(table: Registry[Any], part: str, option: str):
    with torch.device("meta"):
        assert table.create(part, blocks=0)(torch.empty(1, 3, 256, 256)).shape == (1, 3, 256, 256)
        with pytest.raises(ValueError, match="blocks=-1: give a whole number, at least 0"):
            table.create(part, blocks=-1)


@pytest.mark.parametrize(
    ("table", "part", "option"), options_of(FACTORS, ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES, PENALTIES)
)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_loss_with_an_impossible_factor_is_refused(table: Registry[Any], part: str, option: str, value: float):
    with pytest.raises(ValueError, match=f"{option}={value}: "):
        table.create(part, **{option: value})


@pytest.mark.parametrize("method", METHODS)
def test_every_assembly_trains_with_everything_at_once(method: str):
    model = everything(method)
    check_names(model)
    phases = [model.phase(step) for step in range(4)]
    assert phases[0] == phases[2] == (2,) * len(PENALTIES)
    assert phases[1] == phases[3] != phases[0]
    optimizers = make_optimizers(model)
    assert list(optimizers) == list(model.networks())
    before = {name: parameter.detach().clone() for name, parameter in trained(model).items()}
    pair = Pair(*(torch.rand(2, 2, 3, 32, 32) * 2 - 1))
    for step in range(2):
        losses = train_step(model, pair, optimizers, step=step)
        assert all(torch.isfinite(loss) and loss.shape == () for loss in losses.values()), losses
        penalties = [name for name in losses if name.startswith("penalty")]
        assert len([name for name in penalties if name[-1].isdigit()]) == (0 if step else len(PENALTIES))
    assert [name for name, parameter in trained(model).items() if parameter.grad is None] == []
    for each in model.networks().values():
        for name, network in each.items():
            moved = [key for key, p in trained(model).items() if not torch.equal(p, before[key])]
            assert any(model.get_parameter(key) is p for key in moved for p in network.parameters()), name
    state = {key: value.clone() for key, value in model.state_dict().items()}
    other = everything(method)
    assert any(not torch.equal(value, state[key]) for key, value in other.state_dict().items())
    other.load_state_dict(state)
    torch.testing.assert_close(other.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_of_every_assembly_can_be_estimated(method: str):
    with torch.device("meta"):
        model = everything(method)
    need = need_of(model, 32)
    weights = sum(p.numel() for p in model.parameters())
    assert need.fixed > 4 * 3 * weights  # the weights and Adam's two averages
    assert need.per_pair > 2 * 3 * 4 * 32**2


@pytest.mark.parametrize(
    ("part", "defaults"),
    [
        (REPLAY_BUFFERS["history"], {"size": 50}),  # arXiv 1703.10593
        (REPLAY_BUFFERS["queue"], {"size": 50}),
        (QueueBuffer, {"size": 50}),
        (PENALTIES["gradient_penalty"], {"weight": 10.0, "constant": 1.0}),  # arXiv 1704.00028
        (CONSISTENCY_LOSSES["charbonnier"], {"eps": 1e-3}),
        (Averages, {"decay": 0.999}),
    ],
)
def test_a_part_has_its_papers_numbers_unless_told_otherwise(part: Any, defaults: dict[str, float]):
    given = {name: parameter.default for name, parameter in inspect.signature(part).parameters.items()}
    assert {name: given[name] for name in defaults} == defaults
