"""Checks of adversarial losses and of consistency losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError, gradcheck

from ganparts.registry import ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES
from ganparts.testing.contracts import Subject, contract, host_draws, require, run_checks, subject

__all__ = ["ADVERSARIAL_CHECKS", "CONSISTENCY_CHECKS", "check_adversarial_loss", "check_consistency_loss"]


def _logits(part: Subject, loss: Any, *size: int) -> tuple[Tensor, Tensor]:
    """Real and fake logits, of float64, in (0, 1): between the labels of the usual losses."""
    objectives = part.objectives or len(getattr(loss, "losses", [None]))
    real, fake = torch.rand(2, 2, objectives, *(size or (3, 3)), dtype=torch.float64).unbind()
    return real.requires_grad_(), fake.requires_grad_()


@contract(
    "discriminator(real, fake) and generator(fake, real) are finite scalars, for maps of any size and logits of any "
    "value, also without data.",
    remedy="end with a mean over everything, use stable functions (softplus for log(1 + exp)), and ask for no value "
    "(.item(), if tensor:).",
)
def gives_scalars(part: Subject) -> None:
    loss = part.build()
    for size in ((1, 1), (5, 7)):
        for reach in (1, 4, 200):
            real, fake = (reach * (2 * logits - 1) for logits in _logits(part, loss, *size))
            for name, value in _both(loss, real, fake).items():
                require(isinstance(value, Tensor), f"{name}'s loss is a {type(value).__name__}, not a tensor.")
                require(value.shape == (), f"{name}'s loss has the shape {list(value.shape)}.")
                within = f"of logits from -{reach} to {reach}"
                require(value.isfinite(), f"{name}'s loss is {value.item()} {within}.")
    real, fake = (logits.detach().to("meta") for logits in (real, fake))
    require(loss.discriminator(real, fake).is_meta and loss.generator(fake, real).is_meta, "it left the device meta.")


@contract(
    "Losses are means: a map twice, side by side, gives the same loss.",
    remedy="take the mean over the map, not the sum: weights then do not depend on the size of the images.",
)
def takes_means(part: Subject) -> None:
    loss = part.build()
    real, fake = _logits(part, loss)
    twice = _both(loss, *(torch.cat([logits, logits], 3) for logits in (real, fake)))
    for name, value in _both(loss, real, fake).items():
        same = torch.allclose(value, twice[name])
        require(same, f"{name}'s loss is {value.item():.4g}, and {twice[name].item():.4g} of the map twice.")


@contract(
    "generator(fake) is enough, unless the loss says needs_real = True.",
    remedy="set needs_real = True, or do not use real logits in the generator's loss.",
)
def says_if_it_needs_real(part: Subject) -> None:
    loss = part.build()
    real, fake = _logits(part, loss)
    if getattr(loss, "needs_real", False):
        return
    same = torch.equal(loss.generator(fake), loss.generator(fake, real))
    require(same, "real logits change the generator's loss, but needs_real is not True.")


@contract(
    "Its gradients are those of its values.",
    remedy="detach nothing, and check a backward of your own; take the mean of smooth or piecewise smooth functions.",
)
def has_right_gradients(part: Subject) -> None:
    loss = part.build()
    real, fake = ((8 * logits - 4).detach().requires_grad_() for logits in _logits(part, loss))
    for name, function, inputs in (
        ("discriminator", loss.discriminator, (real, fake)),
        ("generator", loss.generator, (fake, real)),
    ):
        try:
            gradcheck(function, inputs)
        except GradcheckError as error:
            require(False, f"the gradient of {name}'s loss differs from finite differences: {_first_line(error)}")
    gradients = torch.autograd.grad(loss.discriminator(real, fake), (real, fake), allow_unused=True)
    for name, gradient in zip(("real", "fake"), gradients, strict=True):
        require(gradient is not None and bool(gradient.any()), f"the discriminator's loss ignores {name} logits.")


def _both(loss: Any, real: Tensor, fake: Tensor) -> dict[str, Any]:
    return {"discriminator": loss.discriminator(real, fake), "generator": loss.generator(fake, real)}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


@contract(
    "The two losses oppose each other: what lowers the generator's raises the discriminator's.",
    remedy="check the signs and labels: the generator's loss must fall as fake logits come to look real.",
)
def opposes(part: Subject) -> None:
    loss = part.build()
    real, fake = _logits(part, loss)
    (wanted,) = torch.autograd.grad(loss.generator(fake, real), fake)
    (opposed,) = torch.autograd.grad(loss.discriminator(real, fake), fake)
    require((wanted * opposed).sum() < 0, "both losses pull the fake logits the same way.")


@contract(
    "The same logits give the same loss, and logits stay as they are.",
    remedy="keep no state, draw nothing, and use no operation in place on the logits.",
)
def keeps_no_state(part: Subject) -> None:
    loss = part.build()
    real, fake = (logits.detach() for logits in _logits(part, loss))
    before = real.clone(), fake.clone()
    with host_draws(torch_too=True) as used:
        values = [(loss.discriminator(real, fake), loss.generator(fake, real)) for _ in range(2)]
    require(all(map(torch.equal, *values)), "two calls differ.")
    require(not used, f"it drew from {' and '.join(used)}.")
    require(torch.equal(real, before[0]) and torch.equal(fake, before[1]), "it changed the logits in place.")


@contract(
    "An option weight is a factor on the generator's loss, and on that alone.",
    remedy="multiply what generator() returns by weight, and nothing in discriminator().",
)
def weighs_the_generator(part: Subject) -> None:
    if "weight" not in part.options:
        return
    one, three = part.build(weight=1.0), part.build(weight=3.0)
    real, fake = _logits(part, one)
    thrice = torch.allclose(three.generator(fake, real), 3 * one.generator(fake, real))
    require(thrice, "weight=3 does not give 3 times the generator's loss of weight=1.")
    same = torch.allclose(three.discriminator(real, fake), one.discriminator(real, fake))
    require(same, "weight changes the discriminator's loss.")


ADVERSARIAL_CHECKS = (
    gives_scalars,
    takes_means,
    says_if_it_needs_real,
    has_right_gradients,
    opposes,
    keeps_no_state,
    weighs_the_generator,
)


def check_adversarial_loss(builder: str | Callable[[], Any], *, objectives: int | None = None) -> None:
    """Check that an adversarial loss keeps the contracts of :class:`ganparts.protocols.AdversarialLoss`.

    Args:
        builder: makes the loss, without arguments; or a registered name.
        objectives: channels of the logits that it takes; as many as it has ``losses``, or 1.

    Raises:
        ContractError: it breaks contracts; the message names each, and how to mend it.
    """
    run_checks(subject(ADVERSARIAL_LOSSES, builder, objectives=objectives), ADVERSARIAL_CHECKS)


# --- consistency losses


def _pictures(part: Subject, loss: Any) -> tuple[Tensor, Tensor]:
    """A prediction and its target, which resemble each other."""
    target, noise = part.images(loss), part.images(loss)
    return (0.7 * target + 0.3 * noise).requires_grad_(), target


@contract(
    "A module that maps (prediction, target) to a finite scalar, also without data.",
    remedy="derive from torch.nn.Module, end with a mean over everything, and ask for no value (.item(), if tensor:).",
)
def gives_a_scalar(part: Subject) -> None:
    loss = part.build()
    require(isinstance(loss, nn.Module), f"the builder made a {type(loss).__name__}.")
    value = loss(*_pictures(part, loss))
    require(isinstance(value, Tensor), f"the loss is a {type(value).__name__}, not a tensor.")
    require(value.shape == (), f"the loss has the shape {list(value.shape)}.")
    require(value.isfinite(), f"the loss is {value.item()}.")
    with torch.device("meta"):
        loss = part.build()
    prediction, target = (images.detach().to("meta") for images in _pictures(part, loss))
    require(loss(prediction, target).is_meta, "it left the device meta.")


@contract(
    "The loss is smaller the closer the prediction is to its target, and least where they are equal.",
    remedy="compare the prediction with the target, and check the sign.",
)
def is_least_where_equal(part: Subject) -> None:
    loss = part.build()
    prediction, target = _pictures(part, loss)
    values = [loss(images, target).item() for images in (prediction, (prediction + target) / 2, target)]
    told = ", ".join(f"{value:.4g}" for value in values)
    require(values[0] > values[1] > values[2], f"at a distance, halfway and at the target the loss is {told}.")


@contract(
    "Its gradient reaches the prediction, and leads downhill.",
    remedy="do not detach the prediction, and check a backward of your own.",
)
def leads_downhill(part: Subject) -> None:
    loss = part.build()
    prediction, target = _pictures(part, loss)
    value = loss(prediction, target)
    (gradient,) = torch.autograd.grad(value, prediction, allow_unused=True)
    require(gradient is not None and bool(gradient.any()), "no gradient reached the prediction.")
    assert gradient is not None
    require(gradient.isfinite().all(), "the gradient is not finite.")
    step = 1e-2 * gradient / gradient.abs().max()
    with torch.no_grad():
        moved = loss(prediction - step, target)
    require(moved < value, f"a small step against the gradient led from {value.item():.6g} to {moved.item():.6g}.")


@contract(
    "The same images give the same loss, nothing is drawn on the host, and images stay as they are.",
    remedy="keep no state, draw nothing, and use no operation in place on the images.",
)
def compares_without_a_trace(part: Subject) -> None:
    loss = part.build()
    prediction, target = (images.detach() for images in _pictures(part, loss))
    before = prediction.clone(), target.clone()
    with host_draws(torch_too=True) as used:
        values = loss(prediction, target), loss(prediction, target)
    require(torch.equal(*values), "two calls differ.")
    require(not used, f"it drew from {' and '.join(used)}.")
    same = torch.equal(prediction, before[0]) and torch.equal(target, before[1])
    require(same, "it changed the images in place.")


CONSISTENCY_CHECKS = (gives_a_scalar, is_least_where_equal, leads_downhill, compares_without_a_trace)


def check_consistency_loss(builder: str | Callable[[], Any], *, channels: int = 3, size: int | None = None) -> None:
    """Check that a consistency loss keeps the contracts of :class:`ganparts.protocols.ConsistencyLoss`.

    Args:
        builder: makes the loss, without arguments; or a registered name.
        channels: of the images that it compares.
        size: their height and width; the smallest from 32 on that the loss's ``min_size`` allows.

    Raises:
        ContractError: it breaks contracts; the message names each, and how to mend it.
    """
    run_checks(subject(CONSISTENCY_LOSSES, builder, channels=channels, size=size), CONSISTENCY_CHECKS)
