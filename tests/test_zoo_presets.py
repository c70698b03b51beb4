"""The presets of UVCGAN2, U-GAT-IT and GANILLA, number by number, and that they train."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganparts import (
    DISCRIMINATORS,
    GENERATORS,
    PRESETS,
    CycleGAN,
    LossWeights,
    Pair,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import ConstantThenLinear, memory_need
from ganparts.adversarial.adam import AdamBuilder
from ganparts.cyclegan.penalties import QueuedZeroCentered
from ganparts.discriminators import BatchHeadDiscriminator, PatchGAN, UGATITDiscriminator
from ganparts.generators import GANILLAGenerator, UGATITGenerator, UNetViTGenerator
from ganparts.losses import LSGAN, ZeroCentered
from ganparts.replay import HistoryBuffer

TINY: dict[str, dict[str, Any]] = {
    "uvcgan2": {
        "generator": partial(GENERATORS.create, "unet_vit", width=2, blocks=1),
        "discriminator": partial(DISCRIMINATORS.create, "batch_head", width=2),
    },
    "ugatit": {
        "generator": partial(GENERATORS.create, "ugatit", width=2, blocks=1, light=False, img_size=96),
        "discriminator": [partial(DISCRIMINATORS.create, name, width=2) for name in ("ugatit_local", "ugatit_global")],
    },
    "ganilla": {
        "generator": partial(GENERATORS.create, "ganilla", width=2, dropout=0.0),
        "discriminator": partial(DISCRIMINATORS.create, "patchgan", width=2),
    },
}


SIDE = {"uvcgan2": 32, "ugatit": 96, "ganilla": 32}


def pairs(name: str, batch: int, device: str = "cpu") -> Pair:
    return Pair(*(torch.rand(2, batch, 3, SIDE[name], SIDE[name], device=device) * 2 - 1))


def whole(name: str) -> CycleGAN:
    with torch.device("meta"):
        return build_cyclegan(name)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_uvcgan2_number_by_number():
    preset, model = PRESETS.create("uvcgan2"), whole("uvcgan2")
    for generator in model.stages().values():
        assert isinstance(generator, UNetViTGenerator)
        assert parameters(generator) == 32_192_231
    for critic in (*model.critics_a, *model.critics_b):
        assert isinstance(critic.discriminator, BatchHeadDiscriminator)
        assert parameters(critic.discriminator) == 5_125_569
        assert critic.discriminator.queue_real.size == critic.discriminator.queue_fake.size == 3
        assert (critic.loss, critic.replay, critic.augment) == (LSGAN(), None, None)
        # published for images in [0, 1]: weight 1 on squared gradients that are twice as large there
        assert critic.penalty == QueuedZeroCentered(ZeroCentered(weight=4 * 1.0, reduction="mean"))
        assert critic.penalty_every == 1
    # published for images in [0, 1], where differences are half as large
    assert model.weights == LossWeights(cycle=5 / 2, identity=0.5 * 5 / 2, attention=0.0)
    assert (preset.cycle, preset.identity) == ("l1", "l1")
    assert preset.optimizer_numbers() == {"learning_rate": 1e-4, "betas": (0.5, 0.99), "eps": 1e-8, "rates": {}}
    assert preset.ema_decay == 0.9999
    assert {preset.schedule(step, 1_000_000) for step in (0, 499_999, 999_999)} == {1.0}
    assert (preset.epochs, preset.epoch_steps(7038), preset.batch_size) == (500, 2000, 1)
    assert preset.framing() == {"resize": 256, "crop": 256, "flip": True, "squash": False}


def test_ugatit_number_by_number():
    preset, model = PRESETS.create("ugatit"), whole("ugatit")
    for generator in model.stages().values():
        assert isinstance(generator, UGATITGenerator)
        assert parameters(generator) == 278_959_808
    for critics in (model.critics_a, model.critics_b):
        assert [parameters(critic.discriminator) for critic in critics] == [3_290_560, 53_130_176]
        for critic in critics:
            assert isinstance(critic.discriminator, UGATITDiscriminator)
            assert (critic.loss, critic.replay, critic.augment, critic.penalty) == (LSGAN(weight=2.0), None, None, None)
    assert model.weights == LossWeights(cycle=10.0, identity=10.0, attention=1000.0)
    assert (preset.cycle, preset.identity) == ("l1", "l1")
    assert (preset.learning_rate, preset.betas, preset.eps, preset.ema_decay) == (1e-4, (0.5, 0.999), 1e-8, None)
    steps = preset.epochs * preset.epoch_steps(7038)
    assert steps == 1_000_000
    assert [preset.schedule(step, steps) for step in (0, 499_999)] == [1.0, 1.0]
    for step in (500_000, 600_000, 750_000, 999_999):  # linearly to 0
        assert preset.schedule(step, steps) == pytest.approx(1 - (step - 500_000) / 500_000, abs=0.003)
    assert preset.batch_size == 1
    assert preset.framing() == {"resize": 286, "crop": 256, "flip": True, "squash": False}


def test_ugatit_decays_its_weights():
    preset = PRESETS.create("ugatit")
    optimizers = make_optimizers(build_cyclegan("ugatit", **TINY["ugatit"]), **preset.optimizer_numbers())
    for name, decay in (("generators", 1e-4), ("discriminators", 1e-4 / 4)):  # their loss is 1/4 of the source's
        (group,) = optimizers[name].param_groups
        assert type(optimizers[name]) is torch.optim.Adam
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-4, (0.5, 0.999), 1e-8, decay)
    assert preset.numbers()["weight_decay_generators"] == 1e-4
    assert "weight_decay_generators" not in PRESETS.create("paper").numbers()


def test_a_quarter_of_loss_and_decay_is_the_same_step_of_adam():
    weights = torch.randn(100, dtype=torch.float64)
    made = []
    for factor in (1.0, 4.0):
        parameter = nn.Parameter(weights.clone())
        optimizer = AdamBuilder(1e-2, weight_decay=0.1 / factor)([parameter])
        for step in range(3):
            parameter.grad = (weights.roll(step) + 0.5) / factor
            optimizer.step()
        made.append(parameter.detach())
    torch.testing.assert_close(made[0], made[1], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(made[0], weights, atol=1e-3)


def test_ganilla_number_by_number():
    preset, model = PRESETS.create("ganilla"), whole("ganilla")
    for generator in model.stages().values():
        assert isinstance(generator, GANILLAGenerator)
        assert parameters(generator) == 7_228_419
        assert {layer.p for layer in generator.modules() if isinstance(layer, nn.Dropout)} == {0.0}
    for critic in (*model.critics_a, *model.critics_b):
        assert isinstance(critic.discriminator, PatchGAN)
        assert parameters(critic.discriminator) == 2_764_737
        assert (critic.loss, critic.augment, critic.penalty) == (LSGAN(), None, None)
        assert isinstance(critic.replay, HistoryBuffer)
        assert critic.replay.size == 50
    assert model.weights == LossWeights(cycle=10.0, identity=5.0, attention=0.0)
    assert preset.optimizer_numbers() == {"learning_rate": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8, "rates": {}}
    assert (preset.schedule, preset.epochs, preset.batch_size) == (ConstantThenLinear(100, 100), 200, 1)
    assert preset.framing() == {"resize": 286, "crop": 256, "flip": True, "squash": False}


@pytest.mark.parametrize("name", TINY)
def test_two_steps_train_every_network(name: str):
    model, preset = build_cyclegan(name, **TINY[name]), PRESETS.create(name)
    optimizers = make_optimizers(model, **preset.optimizer_numbers())
    before = {label: parameter.detach().clone() for label, parameter in model.named_parameters()}
    for step in range(2):
        losses = train_step(model, pairs(name, preset.batch_size), optimizers, step=step)
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert ("attention_ab" in losses) == ("attention_ba" in losses) == (name == "ugatit")
        assert ("penalty_a" in losses) == (name == "uvcgan2")
    for label, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), label
        assert not parameter.requires_grad or parameter.grad is not None, label
    moved = {id(p) for label, p in model.named_parameters() if not torch.equal(p, before[label])}
    for networks in model.networks().values():
        for label, network in networks.items():
            assert moved & {id(parameter) for parameter in network.parameters()}, label


@pytest.mark.parametrize("name", TINY)
def test_a_step_never_asks_the_device_for_a_value(name: str):
    with torch.device("meta"):
        model = build_cyclegan(name, **TINY[name])
    optimizers = make_optimizers(model, **PRESETS.create(name).optimizer_numbers())
    for step in range(2):
        losses = train_step(model, pairs(name, 1, "meta"), optimizers, step=step, low_memory=bool(step))
    assert all(loss.device.type == "meta" for loss in losses.values())


@pytest.mark.parametrize("name", ["uvcgan2", "ugatit"])
def test_the_memory_of_a_step_is_estimated(name: str):
    need = memory_need(build_cyclegan(name, **TINY[name]), partial(pairs, name))
    assert need.fixed > 0
    assert need.per_pair > 3 * 4 * SIDE[name] ** 2


# --- the penalty of a discriminator with queues


def mixed_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, share: Tensor, weight: float) -> Tensor:
    """4 * mean over images of the squared gradient of the mean logit, written out, the queues mixed too."""
    images = (share * real + (1 - share) * fake).requires_grad_()
    logits = discriminator(images, queue="mixed", alpha=share)
    (gradient,) = torch.autograd.grad(logits.flatten(1).mean(1).sum(), images)
    return weight * gradient.square().sum((1, 2, 3)).mean()


def test_the_penalty_mixes_the_queues_as_it_mixes_the_images():
    discriminator = BatchHeadDiscriminator(width=2).double().eval()  # its spectral norms stay as they are
    real, fake, older, other = torch.rand(4, 1, 3, 32, 32, dtype=torch.float64) * 2 - 1
    for kind, images in (("real", older), ("fake", other)):
        discriminator(images, queue=kind, push=True)  # pyright: ignore[reportArgumentType]
    penalty = QueuedZeroCentered(ZeroCentered(weight=4.0))
    torch.manual_seed(1)
    share = penalty.penalty.draw(real)
    torch.manual_seed(1)
    got = penalty(discriminator, real, fake)
    torch.testing.assert_close(got, mixed_penalty(discriminator, real, fake, share, 4.0), rtol=1e-9, atol=1e-14)
    torch.manual_seed(1)
    assert not torch.isclose(got, penalty.penalty(discriminator, real, fake), rtol=1e-3)
    assert int(discriminator.queue_real.pushed) == 1  # it stores nothing
    plain = PatchGAN(width=2).double()
    torch.manual_seed(1)
    got = penalty(plain, real, fake)
    torch.manual_seed(1)
    assert torch.equal(got, penalty.penalty(plain, real, fake))
