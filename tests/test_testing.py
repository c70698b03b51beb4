"""The conformance kit: every registered part passes, and a part that breaks a contract is told which."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tiny_parts import tiny
from wrong_parts import WRONG, Judge, Paint

from ganparts import (
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
)
from ganparts.registry import Registry
from ganparts.testing import (
    ContractError,
    check_adversarial_loss,
    check_consistency_loss,
    check_discriminator,
    check_generator,
    check_penalty,
    check_replay_buffer,
    checks_of,
    parametrize_with_checks,
)

CHECKS: dict[str, tuple[Registry[Any], Callable[..., None]]] = {
    "generator": (GENERATORS, check_generator),
    "discriminator": (DISCRIMINATORS, check_discriminator),
    "adversarial loss": (ADVERSARIAL_LOSSES, check_adversarial_loss),
    "consistency loss": (CONSISTENCY_LOSSES, check_consistency_loss),
    "penalty": (PENALTIES, check_penalty),
    "replay buffer": (REPLAY_BUFFERS, check_replay_buffer),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, (table, _) in CHECKS.items() for name in table])
def test_every_part_keeps_its_contracts(kind: str, name: str):
    table, check = CHECKS[kind]
    check(tiny(table, name))


@pytest.mark.parametrize(("kind", "contract", "builder", "found"), [pytest.param(*row, id=row[1]) for row in WRONG])
def test_a_part_that_breaks_a_contract_is_told_which(kind: str, contract: str, builder: Any, found: str):
    table, check = CHECKS[kind]
    asks, remedy = {each.name: (each.asks, each.remedy) for each in checks_of(table)}[contract]
    with pytest.raises(ContractError) as caught:
        check(builder)
    said = str(caught.value)
    assert said.startswith(f"the {kind} {getattr(builder, '__name__', '')}")
    lines = re.search(rf"^  {contract}: (.*)\n    Found: (.*)\n    Remedy: (.*)$", said, re.MULTILINE)
    assert lines is not None, said
    assert (lines[1], lines[3]) == (asks, remedy)
    assert re.search(found, lines[2]), said


def test_each_contract_has_a_part_that_breaks_it():
    for kind, (table, _) in CHECKS.items():
        assert {each.name for each in checks_of(table)} == {contract for k, contract, *_ in WRONG if k == kind}


def test_right_parts_of_ones_own_pass_whatever_they_are_built_by():
    check_generator(Paint)
    check_generator(lambda: Paint())
    check_generator(partial(Paint, 1), channels=1)
    check_discriminator(Judge)
    check_discriminator(partial(Judge, 6), channels=6, size=48)
    check_generator("resnet6_antialias")
    check_adversarial_loss("two_objective")
    check_adversarial_loss(ADVERSARIAL_LOSSES["lsgan"], objectives=3)
    check_penalty(PENALTIES["r1"])
    with pytest.raises(TypeError, match="one that is built, a Paint: pass its class"):
        check_generator(Paint())  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="did you mean 'resnet9'"):
        check_generator("resnet8")


def test_every_broken_contract_is_told_at_once():
    with pytest.raises(ContractError, match=r"the generator Broken breaks \d+ of 19 contracts") as caught:
        check_generator(type("Broken", (Paint,), {"forward": lambda self, images: 1 / 0}))
    assert str(caught.value).count("Found: it raised ZeroDivisionError: division by zero") == 1
    assert "keeps_size, takes_wide_pictures, keeps_every_size, stays_in_range" in str(caught.value)
    assert "The first asks: Float images [B, C, H, W] become float images" in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_checking_leaves_random_states_alone():
    before = torch.get_rng_state(), random.getstate()
    for kind, contract, builder, _ in WRONG:
        if contract in ("draws_with_torch", "runs_without_data", "is_settled_in_eval"):
            with pytest.raises(ContractError):
                CHECKS[kind][1](builder)
    check_replay_buffer("history")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


@parametrize_with_checks(GENERATORS, ["resnet6", partial(GENERATORS.create, "unet128", width=2)])
def test_each_check_is_a_test_of_its_own(check: Callable[[], None], request: pytest.FixtureRequest):
    check()
    name, contract = request.node.callspec.id.split("-")
    assert name in ("resnet6", "unet128")
    assert contract in {each.name for each in checks_of(GENERATORS)}


def test_each_check_of_a_wrong_part_fails_alone():
    decorate = parametrize_with_checks(GENERATORS, {"loud": partial(Paint, gain=9.0), "right": Paint}, channels=3)
    failed = []
    for param in decorate.args[1]:
        try:
            param.values[0]()
        except ContractError as error:
            assert "breaks a contract" in str(error)
            failed.append(param.id)
    assert failed == ["loud-stays_in_range"]
    with pytest.raises(ValueError, match="there are no checks of a preset: there are of generator, discriminator"):
        checks_of(PRESETS)


def test_the_kit_needs_no_pytest():
    code = "import sys, ganparts, ganparts.testing as t; t.check_penalty('r2'); print('pytest' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
