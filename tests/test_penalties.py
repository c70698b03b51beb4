from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from golden_files import about, golden_names, part_of, read
from torch import Tensor, nn
from torch.func import functional_call

from ganparts import ADVERSARIAL_LOSSES, PENALTIES
from ganparts.losses import (
    BalancedConsistency,
    GradientNorm,
    GradientPenalty,
    LeCam,
    Moves,
    ZeroCentered,
    image_gradients,
)


class Scales(nn.Module):
    """A smooth discriminator of 4 x 4 images that gives two maps of two objectives each."""

    def __init__(self, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Softplus(), nn.Conv2d(2, 2, 2)).to(dtype)
        self.coarse = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 2, 2), nn.Softplus()).to(dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.fine(images), self.coarse(images)


def images(batch: int = 2, channels: int = 1, size: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(2, batch, channels, size, size, dtype=torch.float64).unbind()


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_positive_and_take_logits_without_a_map(name: str):
    network = Scales()
    real, fake = images()
    value = PENALTIES.create(name)(network, real, fake)
    assert value > 0
    value.backward()
    assert all(parameter.grad is not None for parameter in network.fine[0].parameters())
    assert PENALTIES.create(name)(network.fine, real, fake).isfinite()  # one map of two objectives
    flat = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 16)), nn.Linear(16, 1), nn.Flatten(0)).double()
    assert PENALTIES.create(name)(flat, real, fake).isfinite()  # logits [B]


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_gradients_are_those_of_finite_differences(name: str):
    network, (real, fake) = Scales(), images()
    names = [name for name, _ in network.named_parameters()]
    part = PENALTIES.create(name)
    if isinstance(part, nn.Module):  # its state is a constant to gradients, so it must stay the same
        part(network, *images())
        part.eval()

    def penalty(*parameters: Tensor) -> Tensor:
        class Given(nn.Module):
            def forward(self, images: Tensor) -> tuple[Tensor, ...]:
                return functional_call(network, dict(zip(names, parameters, strict=True)), images)

        torch.manual_seed(1)
        return part(Given(), real, fake)

    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in network.parameters())
    assert torch.autograd.gradcheck(penalty, parameters)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_at_least_fp32_under_autocast(name: str):
    network = Scales(torch.float32)
    real, fake = (batch.bfloat16() for batch in images())
    torch.manual_seed(1)
    expected = PENALTIES.create(name)(network, real.float(), fake.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        value = PENALTIES.create(name)(network, real, fake)
    assert value.dtype == torch.float32
    if name in ("lecam", "consistency"):  # they run the discriminator in the precision around them
        torch.testing.assert_close(value, expected, rtol=0.1, atol=0.01)
    else:
        assert value == expected


def test_r1_is_exactly_half_the_weight_times_the_mean_squared_gradient_of_the_sum():
    network, (real, fake) = Scales(), images(3)
    for name, at, other in (("r1", real, fake), ("r2", fake, real)):
        at = at.clone().requires_grad_()
        total = sum(logits.sum() for logits in network(at))
        (gradient,) = torch.autograd.grad(total, at)
        expected = 7.0 / 2 * gradient.square().sum((1, 2, 3)).mean()
        pair = (at, other) if name == "r1" else (other, at)
        torch.testing.assert_close(PENALTIES.create(name, weight=7.0)(network, *pair), expected)
        means = torch.stack([logits.mean((1, 2, 3)).sum() for logits in network(at)]).mean()
        (gradient,) = torch.autograd.grad(means, at)
        expected = 7.0 / 2 * gradient.square().sum((1, 2, 3)).mean()
        found = PENALTIES.create(name, weight=7.0, reduction="mean")(network, *pair)
        torch.testing.assert_close(found, expected)
    both = PENALTIES.create("r1_r2")(network, real, fake)
    apart = PENALTIES.create("r1")(network, real, fake) + PENALTIES.create("r2")(network, real, fake)
    torch.testing.assert_close(both, apart)


def critic(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """The critic of the golden files, its sizes read from its weights."""
    layers: list[nn.Module] = [
        *(_conv(weights, "0", 2), nn.LeakyReLU(0.2)),
        *(_conv(weights, "2", 2), nn.InstanceNorm2d(len(weights["2.weight"])), nn.LeakyReLU(0.2)),
        _conv(weights, "5", 1),
    ]
    if "7.weight" in weights:
        layers += [nn.Flatten(), nn.Linear(weights["7.weight"].shape[1], 1)]
    network = nn.Sequential(*layers).double()
    network.load_state_dict(dict(weights))
    return network


def _conv(weights: Mapping[str, Tensor], key: str, stride: int) -> nn.Conv2d:
    outputs, inputs, kernel, _ = weights[f"{key}.weight"].shape
    return nn.Conv2d(inputs, outputs, kernel, stride, 1)


@pytest.mark.parametrize("kind", ["map", "scalar"])
@pytest.mark.parametrize("file", golden_names("penalties*"))
def test_penalties_are_golden(file: str, kind: str):
    golden = read(file)
    gamma = float(about(file)["args"].split("gamma ")[1].split(";")[0])
    network = critic(part_of(golden, f"weights_{kind}."))
    real, fake = golden["real"], golden["fake"]
    norm, mixed, zero = GradientNorm, GradientPenalty, ZeroCentered
    penalties: dict[str, tuple[Any, Tensor | None]] = {
        "r1": (norm(gamma), None),
        "r2": (norm(gamma, "fake"), None),
        "wgan_gp": (mixed(), golden["alpha"]),
        "gp_real": (mixed(where="real"), golden["alpha"]),
        "gp_fake": (mixed(where="fake"), golden["alpha"]),
        "uvcgan1_paper": (mixed(0.1 / 100**2, 100), golden["alpha"]),
        "uvcgan2_zero_mean": (zero(), golden["uv_alpha"]),
        "uvcgan2_zero_sum": (zero(reduction="sum"), golden["uv_alpha"]),
    }
    compared = 0
    for name, (penalty, shares) in penalties.items():
        if (expected := golden.get(f"{kind}.{name}")) is None:
            continue
        draws = () if shares is None else (shares,)
        value = (penalty if shares is None else penalty.apply_draws)(network, real, fake, *draws)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
        assert_gradients(network, value, part_of(golden, f"{kind}.{name}.grad."))
        compared += 1
    assert compared >= 7
    for name, batch in (("r1", real), ("r2", fake)):
        squares = image_gradients(network, batch).square().sum(1)
        torch.testing.assert_close(squares, golden[f"{kind}.{name}.per_sample"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("file", golden_names("penalties*"))
def test_r3gan_is_golden(file: str):
    golden = read(file)
    gamma = float(about(file)["args"].split("gamma ")[1].split(";")[0])
    network = critic(part_of(golden, "weights_scalar."))
    real, fake = golden["real"], golden["fake"].requires_grad_()
    loss, penalty = ADVERSARIAL_LOSSES.create("rsgan"), PENALTIES.create("r1_r2", weight=gamma)
    value = loss.discriminator(network(real), network(fake.detach())) + penalty(network, real, fake)
    torch.testing.assert_close(value, golden["r3gan.D"], rtol=1e-9, atol=0)
    assert_gradients(network, value, part_of(golden, "r3gan.D.grad."))
    value = loss.generator(network(fake), network(real))
    torch.testing.assert_close(value, golden["r3gan.G"], rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(value, fake)
    sums = torch.stack([gradient.sum(), gradient.abs().sum()])
    torch.testing.assert_close(sums, golden["r3gan.G.grad_fake"], rtol=1e-9, atol=1e-12)


def assert_gradients(network: nn.Module, value: Tensor, expected: Mapping[str, Tensor]) -> None:
    """The gradients agree with (sum, sum of absolute values), 1e-9 relative to the latter."""
    parameters = dict(network.named_parameters())
    assert expected.keys() == parameters.keys()
    gradients = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        sums, absolute = torch.stack([gradient.sum(), gradient.abs().sum()]), expected[name][1].item()
        torch.testing.assert_close(sums, expected[name], rtol=0, atol=max(1e-9 * absolute, 1e-12), msg=name)


@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "lecam"])
def test_a_penalty_without_a_state_stays_as_it_was_made(name: str):
    penalty: Any = PENALTIES.create(name, weight=2.0)
    with pytest.raises(FrozenInstanceError):
        penalty.weight = 3.0
    assert hash(penalty) == hash(PENALTIES.create(name, weight=2.0))


def test_draws_are_one_an_image_or_one_a_batch():
    real, _ = images(5)
    assert GradientPenalty().draw(real).shape == (5,)
    assert ZeroCentered().draw(real).shape == (1,)
    assert BalancedConsistency().draw(real).flip.shape == (5,)
    network, (real, fake) = Scales(), images(1)
    torch.manual_seed(1)
    shares = GradientPenalty().draw(real)
    torch.manual_seed(1)
    assert GradientPenalty()(network, real, fake) == GradientPenalty().apply_draws(network, real, fake, shares)


def test_lecam_is_the_papers_formula_with_running_averages():
    network, penalty = nn.Identity(), PENALTIES.create("lecam", weight=2.0, decay=0.75)
    averages = None
    for _ in range(4):
        real, fake = images()
        means = torch.stack([real.mean(), fake.mean()])
        averages = means if averages is None else 0.75 * averages + 0.25 * means
        expected = (real - averages[1]).relu().square().mean() + (averages[0] - fake).relu().square().mean()
        torch.testing.assert_close(penalty(network, real, fake), 2 * expected)


def test_lecam_averages_each_objective_of_each_map_in_place():
    network, (real, fake), penalty = Scales(), images(), LeCam()
    value = penalty(network, real, fake)
    stored = penalty.averages
    assert stored is not None
    expected = [torch.cat([logits.mean((0, 2, 3)) for logits in network(batch)]) for batch in (real, fake)]
    torch.testing.assert_close(stored, torch.stack(expected))
    terms = []
    for number, (r, f) in enumerate(zip(network(real), network(fake), strict=True)):
        means = stored[:, 2 * number : 2 * number + 2, None, None]
        terms.append((r - means[1]).relu().square().mean() + (means[0] - f).relu().square().mean())
    torch.testing.assert_close(value, 0.3 * torch.stack(terms).mean())
    penalty(network, fake, real)
    assert penalty.averages is stored
    value.backward()  # what a call needed is not changed by the next
    with pytest.raises(ValueError, match=r"averages 4 objective\(s\), but the discriminator gives 2"):
        penalty(network.fine, real, fake)


def test_lecam_leaves_out_what_is_not_finite():
    penalty, (real, fake) = LeCam(), images()
    assert penalty(nn.Identity(), real * torch.nan, fake).isnan()
    assert not penalty.started
    penalty(nn.Identity(), real, fake)
    before = penalty.averages.clone()
    penalty(nn.Identity(), real, fake / 0)
    assert torch.equal(penalty.averages, before)
    torch.testing.assert_close(before[:, 0], torch.stack([real.mean(), fake.mean()]))


def test_lecam_stays_the_same_in_eval_mode():
    penalty, (real, fake) = LeCam(), images()
    penalty(nn.Identity(), real, fake)
    before = penalty.averages.clone()
    penalty.eval()(nn.Identity(), fake, real)
    assert torch.equal(penalty.averages, before)


def test_lecam_is_saved_and_loaded():
    network, penalty = Scales(), LeCam()
    penalty(network, *images())
    for other in (LeCam(), LeCam()):
        if other.averages is None:
            other(network.fine, *images())
        other.load_state_dict(penalty.state_dict())
        assert torch.equal(other.averages, penalty.averages)
        assert other.started
    other.load_state_dict(LeCam().state_dict())  # saved before its first use
    assert not other.started


def test_moves_mirror_and_shift_with_reflection():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    penalty = BalancedConsistency()
    still, last = torch.tensor([0.5]), torch.tensor([0.999])
    assert torch.equal(penalty.move(image, Moves(still, still, still)), image)
    assert torch.equal(penalty.move(image, Moves(still * 0, still, still)), image.flip(3))
    moved = penalty.move(image, Moves(still, last, still * 0))  # one row down, one column to the left
    padded = nn.functional.pad(image, (1, 1, 1, 1), mode="reflect")
    assert torch.equal(moved, padded[..., :8, 2:])
    each = torch.tensor([0.5, 0.0])
    both = penalty.move(torch.cat([image, image]), Moves(each, each, each))
    assert torch.equal(both[:1], image)
    assert torch.equal(both[1:], nn.functional.pad(image.flip(3), (1, 1, 1, 1), mode="reflect")[..., 2:, 2:])


def test_consistency_compares_logits_before_and_after_moving():
    network, (real, fake) = Scales(), images()
    for compare in ("image", "place"):
        penalty = PENALTIES.create("consistency", weight=3.0, compare=compare, translation=0.25)
        moves = [penalty.draw(batch) for batch in (real, fake)]
        expected = []
        for batch, moved in ((real, penalty.move(real, moves[0])), (fake, penalty.move(fake, moves[1]))):
            for still, other in zip(network(batch), network(moved), strict=True):
                difference = still - other
                if compare == "image":
                    difference = difference.mean((2, 3))
                expected.append(3.0 * difference.square().mean() / 2)  # the mean over two maps
        found = penalty.apply_draws(network, real, fake, *moves)
        torch.testing.assert_close(found, torch.stack(expected).sum())


def test_what_cannot_be_is_refused():
    network, (real, _), (fewer, _) = Scales(), images(2), images(1)
    for name in ("gradient_penalty", "zero_centered"):
        with pytest.raises(ValueError, match=r"shapes \[2, 1, 4, 4\] and \[1, 1, 4, 4\]: .* or take 'r1'"):
            PENALTIES.create(name)(network, real, fewer)
    for name in ("r1", "gradient_penalty", "zero_centered"):
        with pytest.raises(ValueError, match=r"^reduction='max' is not known: use one of 'sum', 'mean'"):
            PENALTIES.create(name, reduction="max")
    with pytest.raises(ValueError, match=r"^where='both' is not known: use one of 'mixed'"):
        PENALTIES.create("gradient_penalty", where="both")
    with pytest.raises(ValueError, match=r"^where='mixed' is not known: use one of 'real', 'fake', 'both'"):
        GradientNorm(where="mixed")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^decay=1 keeps no average"):
        LeCam(decay=1)
    with pytest.raises(ValueError, match=r"^translation=8 is not a fraction"):
        BalancedConsistency(translation=8)
    with pytest.raises(ValueError, match=r"^compare='logit' is not known"):
        BalancedConsistency(compare="logit")  # pyright: ignore[reportArgumentType]
