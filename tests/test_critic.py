"""Critics against textbooks: several in a domain, penalties, relativistic losses, networks that mix a batch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any

import pytest
import torch
from test_step import assert_same_training, fixed_history
from torch import Tensor, nn

from ganparts import CycleGAN, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.adversarial import Critic, Optimizers, apply_to_each, trained_parameters
from ganparts.augment import DiffAugment
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import ResNetGenerator
from ganparts.losses import LSGAN, Hinge
from ganparts.replay import HistoryBuffer

small: dict[str, Any] = {
    "generator": partial(ResNetGenerator, width=2, blocks=1),
    "discriminator": partial(PatchGAN, width=2),
}


def pair(batch: int = 2, size: int = 32, dtype: torch.dtype = torch.float64) -> Pair:
    return Pair(*(torch.rand(2, batch, 3, size, size, dtype=dtype) * 2 - 1))


def r1(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Zero-centered gradient penalty at real images (Mescheder et al. 2018, arXiv 1801.04406)."""
    assert not real.requires_grad
    assert not fake.requires_grad
    real = real.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return 5.0 * gradient.square().sum((1, 2, 3)).mean()


def test_a_domain_without_discriminators_is_refused():
    with pytest.raises(ValueError, match=r"^no discriminators were given for domain a: give at least one$"):
        build_cyclegan(**small | {"discriminator": ([], "pixel")})


class Relativistic(LSGAN):
    """A loss that needs the real logits."""

    needs_real = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * ((real - fake.mean() - 1).square().mean() + (fake - real.mean() + 1).square().mean())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None
        return (fake - real.mean() - 1).square().mean()


class MinibatchDeviation(nn.Module):
    """A discriminator that sees how much the images of a batch differ, as StyleGAN's."""

    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 4, 4, 2), nn.Conv2d(5, 1, 4, 2)
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        features = nn.functional.leaky_relu(self.before(images), 0.2)
        deviation = (features.var(0, correction=0) + 1e-8).sqrt().mean()
        return self.after(torch.cat([features, deviation.expand_as(features[:, :1])], 1))


def test_a_critic_has_nothing_but_a_discriminator_and_a_loss_unless_told_so():
    critic, (real, fake) = Critic(PatchGAN(width=2).double(), LSGAN()), pair()
    optimizers = Optimizers({"discriminators": torch.optim.SGD(critic.parameters(), lr=0.0)})
    loss, penalty = critic.discriminate(real, fake, optimizers)
    torch.testing.assert_close(
        loss, LSGAN().discriminator(critic.discriminator(real), critic.discriminator(fake)).detach()
    )
    assert penalty is None


# --- several critics


@pytest.mark.parametrize("replay", [True, False])
def test_several_critics_train_as_in_the_textbook(replay: bool):
    """Their gradients at the images add up, and each is trained by its own loss, replay and augmentation."""
    histories = [fixed_history(2, 2, 3) if replay else ("none", None) for _ in range(2)]
    model = build_cyclegan(
        generator=small["generator"],
        discriminator=(small["discriminator"], [small["discriminator"], PixelDiscriminator, MinibatchDeviation]),
        adversarial=("bce", ["lsgan", "hinge", Relativistic]),
        replay=("none", [histories[0][0], histories[1][0], "none"]),
        penalty=(None, [None, r1, None]),
    )
    assert_same_training(model, 32, 2, steps=3, replay=(None, [histories[0][1], histories[1][1], None]))


def test_losses_of_several_critics_are_named_and_add_up():
    model = build_cyclegan(
        generator=small["generator"],
        discriminator=([small["discriminator"]], [small["discriminator"], "pixel"]),
        adversarial=("bce", ["lsgan", "hinge"]),
        penalty=(None, [None, r1]),
    ).double()
    losses = train_step(model, pair(), make_optimizers(model))
    assert list(losses) == [
        *("gan_ab", "gan_ab_0", "gan_ab_1", "gan_ba", "cycle_a", "cycle_b", "identity_a", "identity_b"),
        *("disc_a", "disc_b", "disc_b_0", "disc_b_1", "penalty_b", "penalty_b_1"),
    ]
    for name in ("gan_ab", "disc_b"):
        torch.testing.assert_close(losses[name], losses[f"{name}_0"] + losses[f"{name}_1"])
    assert losses["penalty_b"] == losses["penalty_b_1"]


def test_gradients_of_several_critics_are_the_textbooks_sum():
    """The generator's gradient is that of the sum of its losses, whatever Adam makes of its scale."""
    model = build_cyclegan(
        generator=small["generator"],
        discriminator=[small["discriminator"], MinibatchDeviation],
        adversarial=["lsgan", Hinge(weight=3.0).__class__],
        replay="none",
    ).double()
    oracle, images = deepcopy(model), pair()
    train_step(model, images, make_optimizers(model))
    fake_a, fake_b = oracle.generator_ba(images.b), oracle.generator_ab(images.a)
    total = 10 * (oracle.generator_ba(fake_b) - images.a).abs().mean()
    total = total + 10 * (oracle.generator_ab(fake_a) - images.b).abs().mean()
    total = total + 5 * (oracle.generator_ab(images.b) - images.b).abs().mean()
    total = total + 5 * (oracle.generator_ba(images.a) - images.a).abs().mean()
    for critics, fake in ((oracle.critics_a, fake_a), (oracle.critics_b, fake_b)):
        for critic in critics:
            total = total + critic.loss.generator(critic.discriminator(fake))
    expected = torch.autograd.grad(total, trained_parameters(oracle.generator_ab, oracle.generator_ba))
    got = [p.grad for p in trained_parameters(model.generator_ab, model.generator_ba)]
    torch.testing.assert_close(got, list(expected), rtol=1e-9, atol=1e-12)


# --- penalties


def penalized(every: int, **parts: Any) -> CycleGAN:
    return build_cyclegan(**{**small, "penalty": (None, r1), "penalty_every": every, **parts})


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("replay", ["history", "none"])
def test_a_lazy_penalty_trains_as_in_the_textbook(numbered: bool, replay: str):
    histories = [fixed_history(2, 2, 5) if replay == "history" else ("none", None) for _ in range(2)]
    model = penalized(2, replay=(histories[0][0], histories[1][0]))
    assert_same_training(model, 32, 2, steps=5, numbered=numbered, replay=(histories[0][1], histories[1][1]))


def test_a_lazy_penalty_comes_when_it_is_due_and_counts_as_often_as_it_is_left_out():
    model = penalized(3)
    images = pair(dtype=torch.float32)

    def penalty(step: int | None) -> float | None:
        once = deepcopy(model)
        losses = train_step(once, images, make_optimizers(once), step=step)
        assert "penalty_a" not in losses
        return losses["penalty_b"].item() if "penalty_b" in losses else None

    plain = penalty(None)
    assert plain is not None
    given = [penalty(step) for step in range(7)]
    assert [value is not None for value in given] == [True, False, False, True, False, False, True]
    assert given[::3] == pytest.approx([3 * plain] * 3)
    assert [model.phase(step) for step in range(4)] == [(0.0, 3.0), (0.0, 0.0), (0.0, 0.0), (0.0, 3.0)]
    assert len({penalized(1).phase(step) for step in range(4)}) == 1


@pytest.mark.parametrize("replay", ["history", "none"])
def test_a_penalty_sees_images_before_augmentation(replay: str):
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        seen.append((real, fake, discriminator(real)))
        return r1(discriminator, real, fake)

    model = penalized(1, penalty=(None, penalty), augment=(None, torch.neg), replay=replay).double()
    images, oracle = pair(), deepcopy(model)
    train_step(model, images, make_optimizers(model))
    ((real, fake, logits),) = seen
    assert torch.equal(real, images.b)
    torch.testing.assert_close(fake, oracle.generator_ab(images.a).detach())
    torch.testing.assert_close(logits, oracle.discriminator_b(-images.b))  # what judges them augments them


def test_an_augmented_penalty_trains_as_in_the_textbook():
    model = penalized(2, augment=(None, torch.neg), replay="none")
    negated: Callable[..., Tensor] = lambda domain, role, images: -images if domain == "b" else images  # noqa: E731
    assert_same_training(model, 32, 2, steps=3, numbered=True, augment=negated)


# --- relativistic losses


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("discriminator", [small["discriminator"], MinibatchDeviation])
def test_a_relativistic_loss_trains_as_in_the_textbook(replay: bool, discriminator: Any):
    histories = [fixed_history(2, 2, 4) if replay else ("none", None) for _ in range(2)]
    model = build_cyclegan(
        generator=small["generator"],
        discriminator=discriminator,
        adversarial=("lsgan", Relativistic),
        replay=(histories[0][0], histories[1][0]),
        penalty=(None, r1),
    )
    assert_same_training(model, 32, 2, steps=4, replay=(histories[0][1], histories[1][1]))


# --- networks that mix a batch


@pytest.mark.parametrize("replay", [True, False])
def test_a_discriminator_that_mixes_a_batch_trains_as_in_the_textbook(replay: bool):
    histories = [fixed_history(2, 3, 3) if replay else ("none", None) for _ in range(2)]
    model = build_cyclegan(
        generator=small["generator"],
        discriminator=MinibatchDeviation,
        replay=(histories[0][0], histories[1][0]),
    )
    assert_same_training(model, 32, 3, steps=3, replay=(histories[0][1], histories[1][1]))


def test_only_networks_that_say_so_get_two_batches_in_one_call():
    first, second = torch.rand(2, 2, 3, 16, 16).unbind()
    mixing = MinibatchDeviation()
    outputs = apply_to_each(mixing, first, second)
    assert mixing.batches == [2, 2]
    torch.testing.assert_close(outputs, [mixing(first), mixing(second)])
    mixing.images_are_independent = True  # pyright: ignore[reportAttributeAccessIssue]
    apply_to_each(mixing, first, second[:1])
    assert mixing.batches[-1] == 3
    mixing.batches.clear()
    apply_to_each(mixing, first, second.repeat(1, 1, 1, 2))  # of another size
    assert mixing.batches == [2, 2]
    silent = MinibatchDeviation().eval()  # which mixes them all the same
    apply_to_each(silent, first, second)
    assert silent.batches == [2, 2]

    class TwoScales(nn.Module):
        images_are_independent = True

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, nn.functional.avg_pool2d(images, 2)

    (fine, coarse), (other, _) = apply_to_each(TwoScales(), first, second[:1])
    assert torch.equal(fine, first)
    assert torch.equal(other, second[:1])
    assert coarse.shape == (2, 3, 8, 8)


class Queued(nn.Module):
    """A discriminator that remembers what it was shown, as UVCGAN2's."""

    has_queues = True

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 1, 4, 2)
        self.calls: list[tuple[str, bool]] = []

    def forward(self, images: Tensor, *, queue: str, push: bool = False) -> Tensor:
        self.calls.append((queue, push))
        return self.net(images)


@pytest.mark.parametrize("loss", [LSGAN(), Relativistic()])
@pytest.mark.parametrize("replay", [HistoryBuffer(3), None])
@pytest.mark.parametrize("side", ["judge", "discriminate"])
def test_a_discriminator_with_queues_is_told_what_it_sees(loss: LSGAN, replay: nn.Module | None, side: str):
    """Judging generated images stores nothing; training stores the real and the generated ones, once."""
    critic = Critic(Queued(), loss, replay=deepcopy(replay))
    optimizers = Optimizers({"discriminators": torch.optim.Adam(critic.parameters())})
    getattr(critic, side)(*torch.rand(2, 2, 3, 16, 16), optimizers)
    assert isinstance(critic.discriminator, Queued)
    judged = [("fake", False)] if side == "judge" else []
    assert critic.discriminator.calls == [*judged, ("real", True), ("fake", True)]


# --- first the discriminator, then the generator


class Alternating:
    """A method that updates the discriminator before the generator is judged, as CUT's, written out and by a critic."""

    def __init__(self, loss: LSGAN, *, augment: Any = None, replay: bool = False):
        torch.manual_seed(0)
        self.loss, self.augment = loss, augment
        self.history, self.list = fixed_history(2, 2, 3) if replay else (None, None)
        self.generator = ResNetGenerator(width=2, blocks=1).double()
        self.discriminator = PatchGAN(width=2).double()

    def optimizers(self) -> Optimizers:
        networks = {"g": self.generator, "d": self.discriminator}
        return Optimizers(
            {name: torch.optim.Adam(trained_parameters(network), 1e-3) for name, network in networks.items()}
        )

    def shown(self, images: Tensor) -> Tensor:
        return images if self.augment is None else self.augment(images)

    def by_critic(self, batches: list[Pair]) -> list[Tensor]:
        optimizers, losses = self.optimizers(), []
        critic = Critic(
            self.discriminator, self.loss, replay=self.history, augment=self.augment, penalty=r1, penalty_every=2
        )
        for step, (source, target) in enumerate(batches):
            optimizers.zero_grad()
            fake = self.generator(source)
            disc, penalty = critic.discriminate(target, fake, optimizers, step=step)
            assert (penalty is None) == (step % 2 == 1)
            assert all(p.grad is None for p in self.generator.parameters())
            optimizers.step("d")
            before = [p.grad.clone() for p in trained_parameters(self.discriminator)]
            judgement = critic.gradient(fake, optimizers, real=target)
            assert judgement.penalty is None
            after = [p.grad for p in trained_parameters(self.discriminator)]
            torch.testing.assert_close(after, before, rtol=0, atol=0)  # judging trains nothing
            optimizers.backward((fake - source).abs().mean(), trained_parameters(self.generator), onward=(
                fake, judgement.gradient
            ))  # fmt: skip
            optimizers.step("g")
            losses += [disc, judgement.generator, *([] if penalty is None else [penalty])]
        return losses

    def by_the_book(self, batches: list[Pair]) -> list[Tensor]:
        optimizers, losses = self.optimizers(), []
        for step, (source, target) in enumerate(batches):
            fake = self.generator(source)
            optimizers["d"].zero_grad()
            seen = fake.detach() if self.list is None else self.list(fake.detach())
            logits = [self.discriminator(self.shown(images)) for images in (target, seen)]
            disc = self.loss.discriminator(*logits)
            total, penalties = disc, []
            if step % 2 == 0:
                judged = nn.Sequential(Function(self.shown), self.discriminator)
                penalties = [2 * r1(judged, target, fake.detach())]
                total = total + penalties[0]
            total.backward()
            optimizers["d"].step()
            optimizers["g"].zero_grad()
            real = self.discriminator(self.shown(target)) if getattr(self.loss, "needs_real", False) else None
            gan = self.loss.generator(self.discriminator(self.shown(fake)), real)
            (gan + (fake - source).abs().mean()).backward()
            optimizers["g"].step()
            losses += [disc, gan, *penalties]
        return [loss.detach() for loss in losses]


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


@pytest.mark.parametrize("loss", [Hinge(), Relativistic()])
@pytest.mark.parametrize("augment", [None, torch.neg])
@pytest.mark.parametrize("replay", [True, False])
def test_the_discriminator_first_and_then_the_generator_is_the_textbooks(loss: Any, augment: Any, replay: bool):
    ours = Alternating(loss, augment=augment, replay=replay)
    book = deepcopy(ours)
    batches = [pair() for _ in range(3)]
    torch.testing.assert_close(ours.by_critic(batches), book.by_the_book(batches), rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(
        chain(ours.generator.parameters(), ours.discriminator.parameters()),
        chain(book.generator.parameters(), book.discriminator.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-10)


def test_a_relativistic_critic_asks_for_real_images():
    critic = Critic(PixelDiscriminator(width=2), Relativistic())
    with pytest.raises(ValueError, match=r"Relativistic.* compares with real images: give real="):
        critic.gradient(torch.rand(1, 3, 8, 8), Optimizers({"d": torch.optim.Adam(critic.parameters())}))


def test_real_and_generated_images_are_augmented_alike_where_both_networks_look():
    """One set of draws serves the generator's and the discriminator's loss."""
    shown: list[Tensor] = []

    def augment(images: Tensor) -> Tensor:
        shown.append(images)
        return DiffAugment()(images)

    model = build_cyclegan(**small, augment=(None, augment), replay="history")
    train_step(model, pair(dtype=torch.float32), make_optimizers(model))
    assert [len(images) for images in shown] == [6]
