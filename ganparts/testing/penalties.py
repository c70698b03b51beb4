"""Checks of penalties."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.registry import PENALTIES
from ganparts.testing.contracts import Subject, contract, host_draws, require, run_checks, subject

__all__ = ["PENALTY_CHECKS", "check_penalty"]


class _Judge(nn.Module):
    """A smooth discriminator of one map, or of two."""

    def __init__(self, *, maps: int = 1):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 4, 3, 2, 1), nn.Softplus())
        self.heads = nn.ModuleList(nn.Conv2d(4, 1, 1) for _ in range(maps))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        features = self.body(images)
        first, *others = (head(features) for head in self.heads)
        return (first, *others) if others else first


def _images(device: str = "cpu") -> tuple[Tensor, Tensor]:
    real, fake = (torch.rand(2, 2, 3, 16, 16, device=device) * 2 - 1).unbind()
    return real, fake


def _value(penalty: Any, judge: nn.Module, real: Tensor, fake: Tensor, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return penalty(judge, real, fake)


@contract(
    "penalty(discriminator, real, fake) is a finite scalar, for a discriminator of one map and of several.",
    remedy="go over ganparts.losses.logit_maps(discriminator, images), and end with a mean.",
)
def gives_a_scalar(part: Subject) -> None:
    for maps in (1, 2):
        value = part.build()(_Judge(maps=maps), *_images())
        require(isinstance(value, Tensor), f"the penalty is a {type(value).__name__}, not a tensor.")
        require(value.shape == (), f"the penalty has the shape {list(value.shape)}.")
        require(value.isfinite(), f"the penalty is {value.item()}.")


@contract(
    "Its gradient reaches the discriminator's weights, and is finite.",
    remedy="detach nothing that the discriminator gives; a gradient at the images needs create_graph=True.",
)
def reaches_the_discriminator(part: Subject) -> None:
    judge = _Judge()
    value = part.build()(judge, *_images())
    require(value.requires_grad, "the penalty has no gradient at all.")
    gradients = torch.autograd.grad(value, list(judge.body.parameters()), allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None and bool(gradient.any())]
    require(len(reached) > 0, "no gradient reached the discriminator's weights.")
    require(all(bool(gradient.isfinite().all()) for gradient in reached), "the gradient is not finite.")


@contract(
    "The discriminator and the images stay as they are, and no gradient is added to the weights.",
    remedy="use torch.autograd.grad instead of backward, images.detach().requires_grad_() for gradients at images, and "
    "no operation in place.",
)
def leaves_the_rest(part: Subject) -> None:
    judge, (real, fake) = _Judge(), _images()
    before = copy.deepcopy(judge.state_dict()), real.clone(), fake.clone()
    part.build()(judge, real, fake)
    same = all(torch.equal(value, before[0][name]) for name, value in judge.state_dict().items())
    require(same, "it changed the discriminator's weights.")
    require(judge.training, "it left the discriminator in eval mode.")
    require(all(p.requires_grad for p in judge.parameters()), "it froze weights of the discriminator.")
    require(all(p.grad is None for p in judge.parameters()), "it added gradients to the discriminator's weights.")
    require(torch.equal(real, before[1]) and torch.equal(fake, before[2]), "it changed the images in place.")
    clean = not (real.requires_grad or fake.requires_grad) and real.grad is None and fake.grad is None
    require(clean, "it changed requires_grad or the gradient of the images.")


@contract(
    "It runs without data, on the device meta, and draws nothing on the host.",
    remedy="ask for no value (.item(), if tensor:), and draw with torch on the images' device.",
)
def runs_without_data(part: Subject) -> None:
    judge, penalty = _Judge().to("meta"), part.build()
    real, fake = _images("meta")
    with host_draws(torch_too=True) as used:
        value = penalty(judge, real, fake)
    require(value.is_meta, "the penalty left the device meta.")
    require(not used, f"it drew from {' and '.join(used)}.")
    real, fake = _images()
    with host_draws(torch_too=False) as used:
        part.build()(_Judge(), real, fake)
    require(not used, f"it drew from {' and '.join(used)}.")


@contract(
    "A penalty that remembers is a module, and its state is in state_dict.",
    remedy="derive from torch.nn.Module, keep the state in buffers (register_buffer), and change them in place.",
)
def restores_its_state(part: Subject) -> None:
    judge, penalty = _Judge(), part.build()
    first, second = (_value(penalty, judge, *images).detach() for images in [_images()] * 2)
    images = _images()
    if not isinstance(penalty, nn.Module):
        require(torch.equal(first, second), "two calls on the same images differ, and it is not a module.")
        return
    fresh = part.build()
    fresh.load_state_dict({name: value.clone() for name, value in penalty.state_dict().items()})
    expected, restored = (_value(each, judge, *images) for each in (penalty, fresh))
    require(torch.equal(expected, restored), "a new one that loaded its state gives another value.")


@contract("An option weight is a factor on the penalty.", remedy="multiply what is returned by weight.")
def weighs_itself(part: Subject) -> None:
    if "weight" not in part.options:
        return
    judge, images = _Judge(), _images()
    one, three = (_value(part.build(weight=weight), judge, *images) for weight in (1.0, 3.0))
    require(torch.allclose(three, 3 * one), f"weight=1 gives {one.item():.6g}, and weight=3 {three.item():.6g}.")


PENALTY_CHECKS = (
    gives_a_scalar,
    reaches_the_discriminator,
    leaves_the_rest,
    runs_without_data,
    restores_its_state,
    weighs_itself,
)


def check_penalty(builder: str | Callable[[], Any]) -> None:
    """Check that a penalty keeps the contracts of :class:`ganparts.protocols.Penalty`.

    Args:
        builder: makes the penalty, without arguments; or a registered name.

    Raises:
        ContractError: it breaks contracts; the message names each, and how to mend it.
    """
    run_checks(subject(PENALTIES, builder), PENALTY_CHECKS)
