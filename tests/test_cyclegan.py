from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ganparts import PRESETS, CycleGAN, LossWeights, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.augment import DiffAugment
from ganparts.cyclegan import ConstantThenLinear, PiecewiseConstant, Preset
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import KerasUNetGenerator, ResNetGenerator, UNetGenerator
from ganparts.losses import BCE, LSGAN, Hinge, MultiObjective
from ganparts.replay import HistoryBuffer

small = {"generator": partial(ResNetGenerator, width=2, blocks=1), "discriminator": partial(PatchGAN, width=2)}


def test_the_default_is_the_papers_cyclegan():
    with torch.device("meta"):
        model = build_cyclegan()
    assert isinstance(model, CycleGAN)
    for generator in (model.generator_ab, model.generator_ba):
        assert isinstance(generator, ResNetGenerator)
        assert sum(p.numel() for p in generator.parameters()) == 11_378_179
    for discriminator in (model.discriminator_a, model.discriminator_b):
        assert isinstance(discriminator, PatchGAN)
        assert sum(p.numel() for p in discriminator.parameters()) == 2_764_737
    assert model.adversarial_a == model.adversarial_b == LSGAN()
    assert isinstance(model.replay_a, HistoryBuffer)
    assert model.replay_a.size == 50
    assert model.augment_a is model.augment_b is None
    assert model.weights == LossWeights(cycle=10.0, identity=5.0)


def test_keras_monet():
    with torch.device("meta"):
        model = build_cyclegan("keras_monet")
    assert isinstance(model.generator_ab, KerasUNetGenerator)
    assert model.adversarial_a == model.adversarial_b == BCE()
    assert isinstance(model.replay_b, nn.Identity)
    assert model.weights == LossWeights(10.0, 5.0)
    preset = PRESETS.create("keras_monet")
    assert (preset.eps, preset.epochs, preset.steps_per_epoch, preset.batch_size) == (1e-7, 25, 300, 1)


def test_two_objective():
    with torch.device("meta"):
        model = build_cyclegan("two_objective")
    counts = [sum(p.numel() for p in d.parameters()) for d in (model.discriminator_a, model.discriminator_b)]
    assert counts == [2_765_569, 2_773_762]
    assert model.adversarial_a == Hinge()
    assert model.adversarial_b == MultiObjective((Hinge(), BCE(real_label=0.0, fake_label=1.0)), weight=0.4)
    assert model.augment_a is None
    assert isinstance(model.augment_b, DiffAugment)
    assert model.augment_b.policy == ("color", "translation", "cutout")
    assert model.weights == LossWeights(9.0, 4.5)
    preset = PRESETS.create("two_objective")
    rates = [preset.learning_rate * preset.schedule(epoch, 52) for epoch in (0, 25, 26, 43, 44, 51)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 1e-4, 1e-5, 1e-5])


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("paper", ("resnet9", "patchgan", "lsgan", "history", 1e-8, 200, None, 1, 286, 256, True)),
        ("keras_monet", ("keras_unet256", "keras_patchgan", "bce", "none", 1e-7, 25, 300, 1, 256, 256, False)),
        (
            "two_objective",
            (
                *("keras_unet256", ("keras_patchgan", "two_objective"), ("hinge", "two_objective"), "none"),
                *(1e-7, 52, 1407, 5, 256, 256, False),
            ),
        ),
    ],
)
def test_presets_number_by_number(name, numbers):
    preset = PRESETS.create(name)
    fields = "generator discriminator adversarial replay eps epochs steps_per_epoch batch_size resize crop flip"
    assert tuple(getattr(preset, field) for field in fields.split()) == numbers
    assert (preset.cycle, preset.identity, preset.learning_rate, preset.betas) == ("l1", "l1", 2e-4, (0.5, 0.999))
    assert preset.schedule.epochs == preset.epochs
    assert preset.epoch_steps(7038) == {"paper": 7038, "keras_monet": 300, "two_objective": 1407}[name]
    assert replace(preset, steps_per_epoch=None, batch_size=4).epoch_steps(7038) == 1760
    assert not preset.numbers().keys() & {"generator", "discriminator", "adversarial", "replay", "cycle", "identity"}


def test_every_part_can_be_chosen_per_domain():
    model = build_cyclegan(
        generator=(partial(ResNetGenerator, width=2), partial(UNetGenerator, width=2)),
        discriminator=("pixel", partial(PatchGAN, width=2, objectives=2)),
        adversarial=("hinge", "two_objective"),
        replay=("none", partial(HistoryBuffer, 3)),
        augment=(None, torch.neg),
        cycle=(nn.L1Loss, nn.MSELoss),
        weights=LossWeights(cycle=(1, 2), identity=0),
    )
    assert isinstance(model.generator_ab, ResNetGenerator)
    assert isinstance(model.generator_ba, UNetGenerator)
    assert isinstance(model.discriminator_a, PixelDiscriminator)
    assert isinstance(model.discriminator_b, PatchGAN)
    assert model.adversarial_a == Hinge()
    assert isinstance(model.replay_a, nn.Identity)
    assert model.replay_b.size == 3
    assert (model.augment_a, model.augment_b) == (None, torch.neg)
    assert isinstance(model.cycle_b, nn.MSELoss)
    assert model.weights.pair("cycle") == (1, 2)


def test_the_issues_own_example_builds():
    with torch.device("meta"):
        model = build_cyclegan(
            generator="attention_unet256", discriminator="two_objective", adversarial="two_objective"
        )
    assert "AttentionGate" in repr(model)


def test_an_override_of_augment_by_none_is_an_override():
    with torch.device("meta"):
        assert build_cyclegan("two_objective", augment=None).augment_b is None
        assert build_cyclegan("two_objective", replay="history").augment_b is not None


def test_a_preset_of_ones_own():
    mine = replace(PRESETS.create("paper"), adversarial="hinge", **small)
    assert build_cyclegan(mine).adversarial_a == Hinge()
    with pytest.raises(FrozenInstanceError):
        mine.epochs = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert Preset() == PRESETS.create("paper")


def test_ready_modules_are_taken_as_they_are_and_weights_are_not_touched():
    ab, ba = ResNetGenerator(width=2, blocks=1), ResNetGenerator(width=2, blocks=1)
    before = {name: value.clone() for name, value in ab.state_dict().items()}
    model = build_cyclegan(generator=(ab, ba), discriminator="pixel")
    assert model.generator_ab is ab
    assert model.generator_ba is ba
    assert all(torch.equal(before[name], value) for name, value in ab.state_dict().items())


@pytest.mark.parametrize("argument", ["generator", "discriminator", "replay"])
def test_the_same_instance_in_two_places_raises(argument: str):
    part = {
        "generator": lambda: ResNetGenerator(width=2, blocks=1),
        "discriminator": lambda: PatchGAN(width=2),
        "replay": HistoryBuffer,
    }[argument]()
    for choice in (part, (part, part), lambda: part):
        with pytest.raises(ValueError, match=rf"{argument}_\w+ and {argument}_\w+ are the same \w+ instance"):
            build_cyclegan(**{**small, argument: choice})


def test_nonsense_is_refused_by_name():
    with pytest.raises(TypeError, match=r"generator takes a name .*resnet9.* but was given 3"):
        build_cyclegan(generator=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="discriminator takes one choice or a pair, but was given 3"):
        build_cyclegan(discriminator=("pixel",) * 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"generator takes torch\.nn\.Modules"):
        build_cyclegan(generator=(lambda: abs))  # pyright: ignore[reportArgumentType]
    wrong = (
        ({"weights": 10}, r"weights takes LossWeights\(cycle=\.\.\., identity=\.\.\.\), but was given 10"),
        ({"augment": "diffaugment"}, r"augment takes a function of images such as DiffAugment\(\).* 'diffaugment'"),
        ({"augment": DiffAugment}, "augment takes a function of images"),
        (
            {"adversarial": nn.BCELoss},
            r"adversarial takes losses with methods discriminator and generator.*BCELoss\(\)",
        ),
    )
    for argument, message in wrong:
        with pytest.raises(TypeError, match=message):
            build_cyclegan(**small, **argument)
    with pytest.raises(TypeError, match="make_optimizers takes a CycleGAN, but was given a PatchGAN"):
        make_optimizers(PatchGAN(width=2))  # pyright: ignore[reportArgumentType]
    for weights in ({"cycle": -1.0}, {"identity": (1.0, 2.0, 3.0)}, {"cycle": float("nan")}, {"cycle": "3"}):
        with pytest.raises(ValueError, match="a weight is a number from 0 on"):
            LossWeights(**weights)


def test_forward_makes_every_image_of_a_step():
    model = build_cyclegan(**small)
    pair = Pair(*torch.rand(2, 2, 3, 32, 32))
    with torch.no_grad():
        made = model(pair)
        torch.testing.assert_close(made.fake_b, model.generator_ab(pair.a))
        torch.testing.assert_close(made.cycled_a, model.generator_ba(made.fake_b))
        torch.testing.assert_close(made.fake_a, model.generator_ba(pair.b))
        torch.testing.assert_close(made.cycled_b, model.generator_ab(made.fake_a))
        torch.testing.assert_close(made.identity_b, model.generator_ab(pair.b))
        torch.testing.assert_close(made.identity_a, model.generator_ba(pair.a))
    made = build_cyclegan(weights=LossWeights(identity=(0, 1)), **small)(pair)
    assert made.identity_a is None
    assert made.identity_b is not None


def test_optimizers_hold_what_is_trained_with_the_promised_numbers():
    model = build_cyclegan(**small)
    optimizers = make_optimizers(model)
    for optimizer, networks in (
        (optimizers.generators, (model.generator_ab, model.generator_ba)),
        (optimizers.discriminators, (model.discriminator_a, model.discriminator_b)),
    ):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (2e-4, (0.5, 0.999), 1e-8)
        trained = [p for network in networks for p in network.parameters() if p.requires_grad]
        assert [id(p) for p in group["params"]] == [id(p) for p in trained]
    optimizers.set_learning_rate(1e-3)
    assert {o.param_groups[0]["lr"] for o in (optimizers.generators, optimizers.discriminators)} == {1e-3}
    other = make_optimizers(build_cyclegan(**small))
    other.load_state_dict(optimizers.state_dict())
    assert other.generators.param_groups[0]["lr"] == 1e-3


def test_loaded_states_lie_in_memory_as_their_parameters_do():
    model = build_cyclegan(**small)
    optimizers = make_optimizers(model)
    train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), optimizers)
    other = build_cyclegan(**small).to(memory_format=torch.channels_last)
    loaded = make_optimizers(other)
    loaded.load_state_dict(optimizers.state_dict())
    moved = 0
    for mine, theirs in zip(model.generator_ab.parameters(), other.generator_ab.parameters(), strict=True):
        if mine in optimizers.generators.state:  # a bias that a norm cancels has none
            states = loaded.generators.state[theirs]
            assert states["exp_avg"].stride() == states["exp_avg_sq"].stride() == theirs.stride()
            assert torch.equal(states["exp_avg"], optimizers.generators.state[mine]["exp_avg"])
            moved += theirs.stride() != mine.stride()
    assert moved > 3


def test_optimizers_keep_the_form_that_suits_their_device_when_loading():
    state = make_optimizers(build_cyclegan(**small)).state_dict()
    for part in state.values():  # as from a run on CUDA
        part["param_groups"][0] |= {"fused": True, "capturable": True, "lr": torch.tensor(3e-4)}
    model = build_cyclegan(**small)
    optimizers = make_optimizers(model)
    optimizers.load_state_dict(state)
    (group,) = optimizers.discriminators.param_groups
    assert (group["fused"], group["capturable"]) == (None, False)
    assert group["lr"] == pytest.approx(3e-4)
    assert isinstance(group["lr"], float)
    # and a rate that lies in a tensor stays there
    rate = torch.tensor(1e-4)
    optimizers.generators = torch.optim.Adam(model.generator_ab.parameters(), lr=rate, fused=True)
    optimizers.set_learning_rate(5e-4)
    assert optimizers.generators.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(5e-4)


def test_the_papers_schedule_epoch_by_epoch():
    schedule, per_epoch = ConstantThenLinear(), 7
    for step in range(200 * per_epoch):
        epoch = 1 + step // per_epoch
        assert schedule(step, 200 * per_epoch) == pytest.approx(1 - max(0, epoch - 100) / 101, abs=1e-15)


@given(st.integers(1, 10**7), st.data())
def test_schedules_of_any_length_begin_at_1_fall_and_end_where_they_should(total, data):
    step = data.draw(st.integers(0, total - 1))
    for schedule, last in ((ConstantThenLinear(), 1 / 101), (PiecewiseConstant(((2, 1.0), (3, 0.25))), 0.25)):
        assert schedule(0, total) == 1.0
        assert 0 < schedule(step, total) <= 1.0
        assert schedule(min(step + 1, total - 1), total) <= schedule(step, total)
        if total >= schedule.epochs:
            assert schedule(total - 1, total) == pytest.approx(last)


def test_a_step_outside_the_run_is_refused():
    for schedule in (ConstantThenLinear(), PiecewiseConstant(((1, 1.0),))):
        for step in (-1, 10):
            with pytest.raises(ValueError, match=f"step {step} is not in a run of 10 steps"):
                schedule(step, 10)
