"""Every registered part in an assembly with a fixed, tiny partner: parts meet only through their protocols."""

from __future__ import annotations

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
    Pair,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import memory_need
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator

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
    return max(smallest_image(model.generator_ab), smallest_image(model.discriminator_a))


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


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_part_works_without_data(kind: str, name: str):
    """On the device "meta", so nothing is asked of the device; and its memory can be estimated."""
    with torch.device("meta"):
        model = assembly(kind, name)
    size = size_for(model)
    need = memory_need(model, lambda pairs: Pair(*torch.empty(2, pairs, 3, size, size)))
    assert need.fixed > 0
    assert need.per_pair > 2 * 3 * 4 * size**2
    losses = train_step(model, Pair(*torch.rand(2, 2, 3, size, size, device="meta")), make_optimizers(model), step=0)
    assert {loss.device.type for loss in losses.values()} == {"meta"}
