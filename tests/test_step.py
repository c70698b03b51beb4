"""The training step against the textbook's, and what it promises beyond the numbers."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any

import pytest
import torch
from kept import Kept
from tiny_parts import smallest_image, tiny
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.textbook import HistoryList, textbook_step
from ganparts import (
    ADVERSARIAL_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    CycleGAN,
    LossWeights,
    Pair,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import Optimizers
from ganparts.augment import DiffAugment, Draws
from ganparts.blocks import recompute_blocks
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator, UNetGenerator
from ganparts.losses import LSGAN
from ganparts.replay import HistoryBuffer


def without_dropout(model: CycleGAN) -> CycleGAN:
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


def fixed_history(size: int, batch: int, steps: int) -> tuple[HistoryBuffer, HistoryList]:
    """A buffer and the textbook's list that will make the same draws."""
    history = HistoryBuffer(size)
    draws = [history.draw(batch, torch.device("cpu")) for _ in range(steps)]
    flat = iter([(bool(s), int(p)) for swaps, places in draws for s, p in zip(swaps, places, strict=True)])
    remaining = iter(draws)
    history.draw = lambda batch, device: next(remaining)
    return history, HistoryList(size, flat)


def textbook_optimizers(model: CycleGAN, eps: float = 1e-8) -> Optimizers:
    """The paper's two Adams over all parameters, as the reference implementation has them."""
    critics = [critic.discriminator for critic in chain(model.critics_a, model.critics_b)]
    networks = {"generators": (model.generator_ab, model.generator_ba), "discriminators": critics}
    return Optimizers(
        {
            name: torch.optim.Adam(chain(*(network.parameters() for network in several)), 2e-4, (0.5, 0.999), eps)
            for name, several in networks.items()
        }
    )


def assert_same_training(
    model: CycleGAN,
    size: int,
    batch: int,
    *,
    steps: int = 2,
    numbered: bool = False,
    replay=(None, None),
    augment=None,
    eps: float = 1e-8,
):
    """Train a model and a copy of it, by our step and the textbook's, in float64; compare losses and weights."""
    model = without_dropout(model).double()
    oracle = deepcopy(model).requires_grad_()  # biases that a norm cancels are trained too, on rounding noise
    ours, theirs = make_optimizers(model, eps=eps), textbook_optimizers(oracle, eps)
    for step in range(steps):
        pair = Pair(*(torch.rand(2, batch, 3, size, size, dtype=torch.float64) * 2 - 1))
        extra: dict[str, Any] = {} if augment is None else {"augment": augment}
        number = step if numbered else None
        expected = textbook_step(oracle, pair, theirs, replay_a=replay[0], replay_b=replay[1], step=number, **extra)
        for name, parameter in oracle.named_parameters():
            if name.endswith(".rho"):  # U-GAT-IT clips the shares of its norms after each step
                parameter.data.clamp_(0, 1)
        losses = train_step(model, pair, ours, step=number)
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            # atol: of a hinge's last bias the gradient is rounding noise at first, 1e-17, of which Adam (eps 1e-8)
            # makes steps of 1e-12; a hinge loss of the generator is the mean logit and begins near 0
            torch.testing.assert_close(loss, expected[name], rtol=1e-9, atol=1e-11, msg=f"step {step}: {name}")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter, oracle.get_parameter(name), rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize(("batch", "identity"), [(1, 5.0), (2, 0.0), (3, (0.0, 2.0))])
def test_every_generator_trains_as_in_the_textbook(name, batch, identity):
    model = build_cyclegan(
        generator=tiny(GENERATORS, name),
        discriminator=partial(PatchGAN, width=2),
        replay="none",
        weights=LossWeights(identity=identity),
    )
    # batch norms cancel biases of the encoder of timm: their gradients are rounding noise of 1e-13, of which Adam's
    # usual eps would make steps. At 64 pixels its last maps have 2x2 places, and norms over 4 numbers magnify rounding
    eps, least = (1e-4, 128) if name == "timm_unet" else (1e-8, 32)
    assert_same_training(model, smallest_image(model.generator_ab, least=least), batch, eps=eps)


STATELESS = [  # those whose buffers count their calls are not comparable with a step that calls them more often
    name for name in DISCRIMINATORS if getattr(tiny(DISCRIMINATORS, name)(), "images_are_independent", False)
]


@pytest.mark.parametrize(
    ("discriminator", "adversarial"),
    [*((name, "lsgan") for name in STATELESS), *(("patchgan", name) for name in ADVERSARIAL_LOSSES)],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_discriminator_and_loss_trains_as_in_the_textbook(discriminator, adversarial, batch):
    options = {"objectives": 2} if adversarial == "two_objective" else {}
    histories = [fixed_history(2, batch, 4) for _ in range(2)]
    model = build_cyclegan(
        generator=partial(ResNetGenerator, width=2, blocks=1),
        discriminator=tiny(DISCRIMINATORS, discriminator, **options),
        adversarial=adversarial,
        replay=(histories[0][0], histories[1][0]),
        weights=LossWeights(cycle=(3.0, 7.0), identity=(1.0, 2.0)),
    )
    size = smallest_image(model.discriminator_a)
    assert_same_training(model, size, batch, steps=4, replay=(histories[0][1], histories[1][1]))


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("replay", [True, False])
def test_other_norms_train_as_in_the_textbook(norm, replay):
    histories = [fixed_history(2, 2, 2) for _ in range(2)] if replay else [("none", None)] * 2
    model = build_cyclegan(
        generator=partial(UNetGenerator, width=2, levels=4, norm=norm),
        discriminator=partial(PatchGAN, width=2, norm=norm),
        replay=(histories[0][0], histories[1][0]),
    )
    assert_same_training(model, 32, 2, replay=(histories[0][1], histories[1][1]))


@pytest.mark.parametrize("replay", [True, False])
def test_augmented_training_is_the_textbooks_given_the_draws(replay):
    batch, roles = 2, ("real", "fake", "replayed")[: 3 if replay else 2]
    histories = [fixed_history(2, batch, 2) for _ in range(2)] if replay else [("none", None)] * 2

    class GivenDraws(DiffAugment):
        def draw(self, images: Tensor) -> Draws:
            return Draws(*torch.rand(7, len(roles) * batch, generator=torch.Generator().manual_seed(7)).to(images))

    def augment(domain: str, role: str, images: Tensor) -> Tensor:
        if domain == "a":
            return images
        place = roles.index(role) * batch
        drawn = GivenDraws().draw(images)
        return DiffAugment().apply_draws(images, Draws(*(draw[place : place + batch] for draw in drawn)))

    model = build_cyclegan(
        "two_objective",
        generator=partial(ResNetGenerator, width=2, blocks=1),
        discriminator=tuple(partial(DISCRIMINATORS.create, n, width=2) for n in ("keras_patchgan", "two_objective")),
        replay=(histories[0][0], histories[1][0]),
        augment=(None, GivenDraws()),
    )
    assert_same_training(model, 32, batch, replay=(histories[0][1], histories[1][1]), augment=augment)


def test_losses_have_their_names_and_are_detached_scalars():
    small = {"generator": partial(ResNetGenerator, width=2, blocks=1), "discriminator": partial(PatchGAN, width=2)}
    names = {"gan_ab", "gan_ba", "cycle_a", "cycle_b", "disc_a", "disc_b"}
    pair = Pair(*torch.rand(2, 1, 3, 32, 32))
    for weights, extra in (
        (LossWeights(), {"identity_a", "identity_b"}),
        (LossWeights(identity=0), set()),
        (LossWeights(identity=(1, 0)), {"identity_a"}),
    ):
        model = build_cyclegan(weights=weights, **small)
        losses = train_step(model, pair, make_optimizers(model))
        assert losses.keys() == names | extra
        assert all(loss.shape == () and not loss.requires_grad for loss in losses.values())


@pytest.mark.parametrize("preset", ["paper", "keras_monet", "two_objective"])
def test_a_step_never_asks_the_device_for_a_value(preset):
    with torch.device("meta"):
        model = build_cyclegan(preset)
    optimizers = make_optimizers(model)
    for _ in range(2):
        losses = train_step(model, Pair(*torch.rand(2, 1, 3, 256, 256, device="meta")), optimizers)
    assert all(loss.device.type == "meta" for loss in losses.values())


def test_gradients_go_where_they_belong_and_stay_to_be_looked_at():
    model = build_cyclegan(generator=partial(ResNetGenerator, width=2, blocks=1), discriminator="pixel")
    pair = Pair(*torch.rand(2, 1, 3, 32, 32))
    optimizers = make_optimizers(model)
    train_step(model, pair, optimizers)
    first = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    for parameter in model.parameters():
        assert parameter.requires_grad == (parameter.grad is not None)
    oracle = deepcopy(model)  # gradients of the step before are not added to
    train_step(model, pair, optimizers)
    train_step(oracle, pair, make_optimizers(oracle))
    second = [p.grad for p in model.parameters() if p.requires_grad]
    again = [p.grad for p in oracle.parameters() if p.requires_grad]
    assert all(torch.equal(x, y) for x, y in zip(second, again, strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(first, second, strict=True))


class TwoScales(nn.Module):
    """A discriminator that judges at two scales."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = PatchGAN(width=2, layers=2), PatchGAN(width=2, layers=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.fine(images), self.coarse(nn.functional.avg_pool2d(images, 2))


@pytest.mark.parametrize("replay", ["history", "none"])
def test_a_discriminator_may_judge_at_several_scales(replay):
    model = build_cyclegan(
        generator=partial(ResNetGenerator, width=2, blocks=1), discriminator=TwoScales, replay=replay
    )
    pair = Pair(*torch.rand(2, 2, 3, 32, 32))
    with torch.no_grad():
        maps = model.discriminator_b(model.generator_ab(pair.a))
        expected = sum(LSGAN().generator(scale) for scale in maps) / 2
    losses = train_step(model, pair, make_optimizers(model))
    torch.testing.assert_close(losses["gan_ab"], expected)


TFLOP = {  # of one step at 256x256, batch 1: (generator, identity, replay) -> the least that the maths needs
    ("resnet9", 5.0, "history"): 1.8793,
    ("resnet9", 0.0, "history"): 1.2871,
    ("unet256", 5.0, "history"): 0.3177,
    ("unet256", 0.0, "history"): 0.2453,
    ("resnet9", 5.0, "none"): 1.8666,
    ("resnet9", 0.0, "none"): 1.2745,
    ("unet256", 5.0, "none"): 0.3050,
    ("unet256", 0.0, "none"): 0.2327,
}


@pytest.mark.parametrize(("generator", "identity", "replay"), TFLOP)
def test_a_step_does_no_more_operations_than_the_maths_needs(generator, identity, replay):
    with torch.device("meta"):
        model = build_cyclegan(generator=generator, replay=replay, weights=LossWeights(identity=identity))
    optimizers = make_optimizers(model)
    pair = Pair(*torch.rand(2, 1, 3, 256, 256, device="meta"))
    with FlopCounterMode(display=False) as counter:
        train_step(model, pair, optimizers)
    assert counter.get_total_flops() / 1e12 <= 1.003 * TFLOP[generator, identity, replay]


LEVELS = {"fast": 1040, "low": 690, "lowest": 320}  # MiB kept of the paper's step, at most


@pytest.mark.parametrize(("level", "mebibytes"), LEVELS.items())
@pytest.mark.parametrize("replay", ["history", "none"])
def test_a_step_keeps_no_more_than_one_direction(level, mebibytes, replay):
    low_memory = level != "fast"
    with torch.device("meta"):
        model = build_cyclegan(replay=replay)
    if level == "lowest":
        assert recompute_blocks(model) == 18
    optimizers = make_optimizers(model)
    pair = Pair(*torch.rand(2, 1, 3, 256, 256, device="meta"))
    kept = Kept(model.parameters())
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        train_step(model, pair, optimizers, low_memory=low_memory)
    assert 0.9 * mebibytes < kept.peak / 2**20 <= mebibytes, kept.peak / 2**20


@pytest.mark.parametrize("identity", [5.0, (0.0, 2.0), 0.0])
@pytest.mark.parametrize(("level", "dropout"), [("low", 0.0), ("lowest", 0.0), ("lowest", 0.5)])
def test_saving_memory_changes_nothing_but_the_memory(identity, level, dropout):
    models = [
        build_cyclegan(
            generator=partial(ResNetGenerator, width=2, blocks=2, dropout=dropout),
            discriminator=partial(PatchGAN, width=2),
            weights=LossWeights(identity=identity),
        ).double()
    ]
    models.append(deepcopy(models[0]))
    recompute_blocks(models[1], level == "lowest")
    pair = Pair(*torch.rand(2, 2, 3, 32, 32, dtype=torch.float64))
    losses = []
    low = (False, level == "low")  # where dropout draws, an identity call of its own would draw other numbers
    for model, low_memory in zip(models, low, strict=True):
        torch.manual_seed(0)
        losses.append(train_step(model, pair, make_optimizers(model), low_memory=low_memory))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=1e-12)
    gradients = [[p.grad for p in model.parameters() if p.requires_grad] for model in models]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_blocks_are_computed_again_only_for_backward():
    model = build_cyclegan(generator=partial(ResNetGenerator, width=2, blocks=2), discriminator="pixel")
    pair, calls = Pair(*torch.rand(2, 1, 3, 16, 16)), []
    model.generator_ab.model[10].conv_block.register_forward_pre_hook(lambda *_: calls.append(1))
    for recompute, expected in ((True, 4), (False, 2)):  # there and back
        assert recompute_blocks(model, recompute) == 4
        train_step(model, pair, make_optimizers(model))
        assert len(calls) == expected
        with torch.no_grad():
            model.generator_ab(pair.a)
        assert len(calls) == expected + 1
        calls.clear()
    assert recompute_blocks(build_cyclegan(generator="unet128", discriminator="pixel")) == 0
