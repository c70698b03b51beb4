from __future__ import annotations

from copy import deepcopy
from dataclasses import FrozenInstanceError, replace
from functools import partial, wraps

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ganparts import (
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    CycleGAN,
    LossWeights,
    Pair,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import ConstantThenLinear, Critic, PiecewiseConstant
from ganparts.augment import AdaptiveAugment, DiffAugment
from ganparts.cyclegan import Preset
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import AttentionGANGenerator, KerasUNetGenerator, ResNetGenerator, UNetGenerator
from ganparts.losses import BCE, LSGAN, Hinge, MultiObjective
from ganparts.replay import HistoryBuffer


def critics(model: CycleGAN) -> tuple[Critic, Critic]:
    """The only critic of each domain."""
    (first,), (second,) = model.critics_a, model.critics_b
    assert isinstance(first, Critic)
    assert isinstance(second, Critic)
    return first, second


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
    for critic in critics(model):
        assert critic.loss == LSGAN()
        assert isinstance(critic.replay, HistoryBuffer)
        assert critic.replay.size == 50
        assert critic.augment is critic.penalty is None
    assert model.weights == LossWeights(cycle=10.0, identity=5.0)


def test_keras_monet():
    with torch.device("meta"):
        model = build_cyclegan("keras_monet")
    assert isinstance(model.generator_ab, KerasUNetGenerator)
    assert [(critic.loss, critic.replay) for critic in critics(model)] == [(BCE(), None)] * 2
    assert model.weights == LossWeights(10.0, 5.0)
    preset = PRESETS.create("keras_monet")
    assert (preset.eps, preset.epochs, preset.steps_per_epoch, preset.batch_size) == (1e-7, 25, 300, 1)


def test_two_objective():
    with torch.device("meta"):
        model = build_cyclegan("two_objective")
    counts = [sum(p.numel() for p in d.parameters()) for d in (model.discriminator_a, model.discriminator_b)]
    assert counts == [2_765_569, 2_773_762]
    a, b = critics(model)
    assert (a.loss, a.augment) == (Hinge(), None)
    assert b.loss == MultiObjective((Hinge(), BCE(real_label=0.0, fake_label=1.0)), weight=0.4)
    assert isinstance(b.augment, DiffAugment)
    assert b.augment.policy == ("color", "translation", "cutout")
    assert model.weights == LossWeights(9.0, 4.5)
    preset = PRESETS.create("two_objective")
    rates = [preset.learning_rate * preset.schedule(epoch, 52) for epoch in (0, 25, 26, 43, 44, 51)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 1e-4, 1e-5, 1e-5])


def test_monet():
    preset = PRESETS.create("monet")
    assert GENERATORS.named(preset.generator) == ("painter", {"width": 64, "blocks": 6})
    of_photos, of_paintings = preset.discriminator
    assert DISCRIMINATORS.named(of_photos) == ("patchgan", {"width": 48})
    assert [DISCRIMINATORS.named(choice) for choice in of_paintings] == [
        *(("projected", {"image_size": 128}), ("patchgan", {"width": 48}), ("munit", {"width": 32})),
    ]
    texture, (first, second, palette) = preset.augment
    assert texture is first is second
    assert (texture.policy, texture.cutout) == (("color", "translation", "cutout"), 0.2)
    assert palette.policy == ("translation",)
    assert (preset.adversarial, preset.replay, preset.cycle, preset.identity) == ("hinge", "none", "l1", "l1")
    assert preset.weights == LossWeights(cycle=5.0, identity=(0.0, 2.0))
    assert preset.optimizer_numbers() == {"learning_rate": 2e-4, "betas": (0.5, 0.99), "eps": 1e-8, "rates": {}}
    assert (preset.schedule, preset.epochs, preset.batch_size) == (ConstantThenLinear(17, 11), 28, 4)
    assert preset.ema_decay == 0.999
    assert preset.epochs * preset.epoch_steps(7038) == 49_280
    assert preset.framing() == {"resize": None, "crop": 128, "flip": True, "squash": False}


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
    a, b = critics(model)
    assert (a.loss, a.replay, a.augment, b.augment) == (Hinge(), None, None, torch.neg)
    assert isinstance(b.replay, HistoryBuffer)
    assert b.replay.size == 3
    assert isinstance(model.cycle_b, nn.MSELoss)
    assert model.weights.of("cycle") == (1, 2)


def test_the_issues_own_example_builds():
    with torch.device("meta"):
        model = build_cyclegan(
            generator="attention_unet256", discriminator="two_objective", adversarial="two_objective"
        )
    assert "AttentionGate" in repr(model)


def test_an_override_of_augment_by_none_is_an_override():
    with torch.device("meta"):
        assert critics(build_cyclegan("two_objective", augment=None))[1].augment is None
        assert critics(build_cyclegan("two_objective", replay="history"))[1].augment is not None


def test_a_preset_of_ones_own():
    mine = replace(PRESETS.create("paper"), adversarial="hinge", **small)
    assert [critic.loss for critic in critics(build_cyclegan(mine))] == [Hinge()] * 2
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


class Perceptual(nn.Module):
    """A consistency loss with weights."""

    def __init__(self, trained: bool):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3).requires_grad_(trained)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (self.features(prediction) - self.features(target)).square().mean()


def test_a_frozen_loss_is_shared_and_a_trained_one_is_not():
    shared = Perceptual(trained=False)
    model = build_cyclegan(cycle=shared, identity=shared, **small)
    assert all(getattr(model, f"{kind}_{domain}") is shared for kind in ("cycle", "identity") for domain in "ab")
    losses = train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), make_optimizers(model))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert shared.features.weight.grad is None
    trained = Perceptual(trained=True)
    for choice in ({"cycle": trained, "identity": "l1"}, {"cycle": (trained, "l1"), "identity": ("l1", trained)}):
        with pytest.raises(ValueError, match=r"cycle_a and \w+_b are the same Perceptual instance"):
            build_cyclegan(**small, **choice)


def test_shared_trained_weights_are_refused_and_frozen_ones_are_not():
    first, second = PatchGAN(width=2), PatchGAN(width=2)
    second.model[0] = first.model[0]
    with pytest.raises(
        ValueError, match="discriminator_a and discriminator_b are the same PatchGAN instance, or share"
    ):
        build_cyclegan(**{**small, "discriminator": (first, second)})
    first.model[0].requires_grad_(False)
    model = build_cyclegan(**{**small, "discriminator": (first, second)})
    assert len(make_optimizers(model)["discriminators"].param_groups[0]["params"]) == 10  # not the first convolution's


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("identity", [0.5, 0.0])
@pytest.mark.parametrize("frozen", [("generator_ab",), ("generator_ba",), ("generator_ab", "generator_ba")])
def test_a_frozen_generator_stays_and_changes_nothing_for_the_others(
    frozen: tuple[str, ...], identity: float, low_memory: bool
):
    torch.manual_seed(0)
    whole = build_cyclegan(**small, replay="none", weights=LossWeights(identity=identity)).double()
    model = deepcopy(whole)
    for name in frozen:
        getattr(model, name).requires_grad_(False)
    pair = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64)
    for each in (whole, model):
        train_step(each, Pair(*pair), make_optimizers(each), low_memory=low_memory)
    expected = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith(frozen):
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-9, atol=1e-12, msg=name)


def test_any_two_batches_are_a_batch_and_their_images_may_differ_in_size():
    model = build_cyclegan(**small)
    losses = train_step(model, (torch.rand(2, 3, 32, 32), torch.rand(1, 3, 48, 40)), make_optimizers(model))
    assert all(loss.isfinite() for loss in losses.values())


def test_augmentations_come_by_name_by_builder_or_ready():
    def flipped(images: Tensor) -> Tensor:
        return images.flip(-1)

    for choice in ("diffaugment", DiffAugment, partial(DiffAugment, cutout=0.2), lambda: DiffAugment(), DiffAugment()):
        for critic in critics(build_cyclegan(**small, augment=choice)):
            assert isinstance(critic.augment, DiffAugment)
    for critic in critics(build_cyclegan(**small, augment=flipped)):
        assert critic.augment is flipped


def test_a_builder_that_wraps_another_is_called_as_it_is():
    def inner(*, width: int) -> nn.Module:
        return ResNetGenerator(width=width, blocks=1)

    @wraps(inner)
    def builder() -> nn.Module:
        return inner(width=2)

    assert isinstance(build_cyclegan(**{**small, "generator": builder}).generator_ab, ResNetGenerator)


def test_parts_are_listed_by_name():
    with torch.device("meta"):
        model = build_cyclegan(
            discriminator=("patchgan", ["patchgan", "pixel"]),
            augment=(None, [torch.neg, None]),
            penalty=(None, [None, lambda discriminator, real, fake: real.mean()]),
            replay=("history", "none"),
        )
    discriminators = ["discriminator_a", "discriminator_b_0", "discriminator_b_1"]
    assert list(model.stages()) == ["generator_ab", "generator_ba"]
    assert {name: list(networks) for name, networks in model.networks().items()} == {
        "generators": ["generator_ab", "generator_ba"],
        "discriminators": discriminators,
    }
    parts = model.parts()
    assert parts["generator_ab"] is model.generator_ab
    assert parts["discriminator_a"] is model.discriminator_a
    assert list(model.discriminator_b) == [parts[name] for name in discriminators[1:]]  # pyright: ignore
    assert parts.keys() == {
        *("generator_ab", "generator_ba", *discriminators, "replay_a", "augment_b_0", "penalty_b_1"),
        *("adversarial_a", "adversarial_b_0", "adversarial_b_1", "cycle_a", "cycle_b", "identity_a", "identity_b"),
    }


def test_nonsense_is_refused_by_name():
    with pytest.raises(TypeError, match=r"generator takes a name .*resnet9.* but was given 3"):
        build_cyclegan(generator=3)
    with pytest.raises(TypeError, match="discriminator takes one choice or a pair, but was given 3"):
        build_cyclegan(discriminator=("pixel",) * 3)
    with pytest.raises(TypeError, match=r"adversarial of domain b lists 3 choices for 2 discriminator"):
        build_cyclegan(**{**small, "discriminator": ("pixel", ["pixel"] * 2)}, adversarial=("lsgan", ["lsgan"] * 3))
    wrong = (
        ({"generator": lambda: abs}, r"generator must be a torch\.nn\.Module, but is <built-in function abs>"),
        ({"discriminator": lambda: abs}, r"discriminator must be a torch\.nn\.Module, but is"),
        ({"weights": 10}, r"weights must be LossWeights\(cycle=\.\.\., identity=\.\.\.\), but is 10"),
        ({"augment": 3.0}, r"augment must be a function such as DiffAugment\(\).* 3\.0"),
        (
            {"weights": LossWeights(attention=1.0)},
            r"weights\.attention=1\.0, but a ResNetGenerator does not tell .* 'ugatit', or attention weight 0",
        ),
        (
            {"weights": LossWeights(attention=1.0), "generator": partial(AttentionGANGenerator, width=2, blocks=1)},
            "but a AttentionGANGenerator does not tell",
        ),
        (
            {"generator": partial(ResNetGenerator, widht=3)},
            r"^generator: ResNetGenerator cannot .*: it takes in_channels, ",
        ),
        ({"cycle": nn.functional.l1_loss}, r"^cycle: l1_loss cannot be called as given, .*: it takes input, ta"),
        ({"cycle": lambda: None}, r"^cycle: the builder .*<lambda> returned None, and no part$"),
        ({"adversarial": nn.BCELoss}, r"must have the methods discriminator and generator.*BCELoss\(\)"),
        ({"penalty": 3.0}, r"penalty takes a name .* but was given 3\.0"),
    )
    for argument, message in wrong:
        with pytest.raises(TypeError, match=message):
            build_cyclegan(**{**small, **argument})
    for every in (0, 2.5, "2"):
        with pytest.raises(ValueError, match=f"penalty_every={every!r}: give a whole number, at least 1"):
            build_cyclegan(**small, penalty_every=every)
    with pytest.raises(TypeError, match=r"takes one of the presets .*paper.*, or a Preset, but was given LossWeights"):
        build_cyclegan(LossWeights())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"make_optimizers takes an assembly such as .*, but was given a PatchGAN"):
        make_optimizers(PatchGAN(width=2))  # pyright: ignore[reportArgumentType]
    for weights in (
        {"cycle": -1.0},
        {"attention": -1.0},
        {"identity": (1.0, 2.0, 3.0)},
        {"cycle": float("nan")},
        {"cycle": "3"},
    ):
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


@pytest.mark.parametrize("part", ["penalty", "augment"])
def test_a_penalty_or_augmentation_that_remembers_is_not_shared(part: str):
    shared = PENALTIES.create("lecam") if part == "penalty" else AdaptiveAugment()
    with pytest.raises(ValueError, match=f"{part}_a and {part}_b are the same"):
        build_cyclegan(**small, **{part: shared})
    build_cyclegan(**small, penalty=PENALTIES.create("r1"), augment=DiffAugment())  # these do not
