"""Checks that generators and discriminators share."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.testing.contracts import Subject, contract, host_draws, maps_of, require

__all__ = ["NETWORK_CHECKS", "randomized"]


def _flat(outputs: Any) -> Tensor:
    return torch.cat([each.flatten(1) for each in maps_of(outputs)], 1)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether all values are the same; nan is the same as nan, which a check of its own finds."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _seeded(network: nn.Module, images: Tensor) -> Tensor:
    """The output where what training draws is the same each time."""
    torch.manual_seed(0)
    return _flat(network(images))


def _trained(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def randomized(network: nn.Module) -> nn.Module:
    """The same network with large random weights, as training may make them."""
    with torch.no_grad():
        for parameter in _trained(network).values():
            parameter.normal_()
    return network


def _states_differ(state: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [
        name
        for name in state.keys() | other.keys()
        if name not in state or name not in other or not torch.equal(state[name], other[name])
    ]


def _copy_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


@contract(
    "A builder makes a new torch.nn.Module at each call.",
    remedy="derive the network from torch.nn.Module, and build it inside the builder.",
)
def is_built_anew(part: Subject) -> None:
    first, second = part.build(), part.build()
    require(isinstance(first, nn.Module), f"the builder made a {type(first).__name__}.")
    shared = {id(p) for p in _trained(first).values()} & {id(p) for p in _trained(second).values()}
    require(first is not second and not shared, "two calls of the builder gave networks with the same weights.")


@contract(
    "Images of another number of channels are refused.",
    remedy="call ganparts.blocks.check_images(images, self) at the beginning of forward.",
)
def refuses_other_channels(part: Subject) -> None:
    network = part.build()
    images = part.images(network)
    wrong = [images[:, :1]] if part.channels != 1 else []
    for given in (torch.cat([images, images[:, :1]], 1), *wrong):
        try:
            outputs = network(given)
        except Exception:
            continue
        # a generator whose weights do not depend on it may well take any number
        fits = isinstance(outputs, Tensor) and outputs.shape == given.shape
        shapes = ", ".join(str(list(each.shape)) for each in maps_of(outputs))
        require(fits, f"it is for {part.channels} channels, but took {list(given.shape)} and gave {shapes}.")


@contract("Images that a network is given stay as they are.", remedy="use no operation in place on the images.")
def leaves_its_input(part: Subject) -> None:
    network = part.build()
    images = part.images(network)
    given = images.clone()
    network(given)
    require(_equal(images, given), "forward changed the images in place.")


@contract("Outputs are finite.", remedy="look for a division, root or logarithm of values that can be 0, or below it.")
def gives_finite_values(part: Subject) -> None:
    network = part.build().train()
    require(_flat(network(part.images(network))).isfinite().all(), "the output has values that are not finite.")


@contract(
    "Each trained weight and the images themselves get a gradient, and it is finite.",
    remedy="use the weight in forward, or set requires_grad_(False) on it; detach nothing between images and output.",
)
def passes_gradients(part: Subject) -> None:
    network = part.build().train()
    images = part.images(network).requires_grad_()
    outputs = _flat(network(images))
    (outputs * torch.rand_like(outputs)).sum().backward()
    starved = [name for name, parameter in _trained(network).items() if parameter.grad is None]
    require(not starved, f"no gradient reached {', '.join(starved[:5])}.")
    broken = [name for name, p in _trained(network).items() if p.grad is not None and not p.grad.isfinite().all()]
    require(not broken, f"the gradient is not finite of {', '.join(broken[:5])}.")
    require(images.grad is not None and bool(images.grad.any()), "no gradient reached the images.")


@contract(
    "A second call may come before the backward pass of the first, as with real and generated images.",
    remedy="compute with a copy of a buffer that forward changes in place (buffer.clone()).",
)
def bears_two_calls(part: Subject) -> None:
    network = part.build().train()
    first, second = (_flat(network(part.images(network))) for _ in range(2))
    (first.square().mean() + second.square().mean()).backward()


@contract(
    "In eval mode the output depends on the input alone: nothing is drawn, and no buffer changes.",
    remedy="draw, and change buffers, only if self.training.",
)
def is_settled_in_eval(part: Subject) -> None:
    network = part.build().eval()
    images = part.images(network)
    before = _copy_of(network.state_dict())
    with torch.no_grad(), host_draws(torch_too=True) as used:
        first, second = _flat(network(images)), _flat(network(images))
    require(_equal(first, second), "two calls on the same images differ.")
    require(not used, f"it drew from {' and '.join(used)}.")
    changed = _states_differ(before, network.state_dict())
    require(not changed, f"these changed: {', '.join(changed[:5])}.")


@contract(
    "A training pass runs without data, on the device meta, and draws nothing on the host.",
    remedy="ask for no value (.item(), if tensor:), make tensors with device=images.device, keep constants in buffers, "
    "and draw with torch on the images' device.",
)
def runs_without_data(part: Subject) -> None:
    with torch.device("meta"):
        network = part.build().train()
    images = part.images(network, device="meta").requires_grad_()
    with host_draws(torch_too=True) as used:
        outputs = maps_of(network(images))
        torch.stack([each.mean() for each in outputs]).sum().backward()
    require(all(each.is_meta for each in outputs), "the output is on another device than the images.")
    require(not used, f"it drew from {' and '.join(used)}.")


@contract(
    "What training draws comes from torch, whose random states a checkpoint keeps.",
    remedy="draw with torch on the images' device, not with random or NumPy.",
)
def draws_with_torch(part: Subject) -> None:
    network = part.build().train()
    images = part.images(network)
    with host_draws(torch_too=False) as used:
        network(images)
    require(not used, f"it drew from {' and '.join(used)}.")


@contract(
    "What training changes is in state_dict, and a new network that loads it gives the same output.",
    remedy="keep weights in nn.Parameter and other state in buffers (register_buffer).",
)
def restores_its_state(part: Subject) -> None:
    network, fresh = part.build().train(), part.build()
    images = part.images(network)
    _flat(network(images)).square().mean().backward()
    with torch.no_grad():
        for parameter in _trained(network).values():
            parameter += 0.1 * torch.randn_like(parameter)
    state = _copy_of(network.state_dict())
    fresh.load_state_dict(state)
    with torch.no_grad():
        expected, restored = (_flat(each.eval()(images)) for each in (network, fresh))
    require(_equal(expected, restored), "the output of the network that loaded the state differs.")


@contract(
    "A copy (copy.deepcopy), as averages of weights need one, gives the same output.",
    remedy="keep weights and buffers registered, and no functions that hold the original's.",
)
def can_be_copied(part: Subject) -> None:
    network = part.build().eval()
    images, twin = part.images(network), copy.deepcopy(network)
    with torch.no_grad():
        expected = _flat(network(images))
        require(_equal(expected, _flat(twin(images))), "the copy's output differs.")
        randomized(twin)
        require(_equal(expected, _flat(network(images))), "the copy shares weights with the original.")
        unmoved = bool(_trained(twin)) and _equal(expected, _flat(twin(images)))
        require(not unmoved, "the copy's output does not depend on its own weights.")


@contract(
    "The network can be moved as a whole, to another device and to float64.",
    remedy="keep constant tensors in buffers (persistent=False if they need no saving), and make new ones with "
    "device=images.device and dtype=images.dtype.",
)
def moves_as_a_whole(part: Subject) -> None:
    network = part.build().eval().double()
    images = part.images(network).double()
    with torch.no_grad():
        kinds = {each.dtype for each in maps_of(network(images))}
    require(kinds == {torch.float64}, f"float64 became {', '.join(map(str, kinds))}.")
    moved = part.build().train().to("meta")
    outputs = maps_of(moved(part.images(moved, device="meta")))
    require(all(each.is_meta for each in outputs), "a tensor of it stayed on the CPU when the network was moved.")


@contract(
    "images_are_independent is a bool, and True only if in training no image of a batch influences another and "
    "calls leave no trace.",
    remedy="set images_are_independent = False on the network, or leave it out: batch norm, spectral norm and "
    "statistics over a batch make it False.",
)
def is_honest_about_independence(part: Subject) -> None:
    network = part.build().train()
    declared = getattr(network, "images_are_independent", False)
    require(isinstance(declared, bool), f"images_are_independent is {declared!r}.")
    if not declared:
        return
    images = part.images(network).requires_grad_()
    before = _copy_of(network.state_dict())
    (gradient,) = torch.autograd.grad(_flat(network(images))[0].square().sum(), images)
    require(not gradient[1].any(), "it says True, but an image's output depends on the other image.")
    changed = _states_differ(before, network.state_dict())
    require(not changed, f"it says True, but a call in training changed {', '.join(changed[:5])}.")
    with torch.no_grad():
        outputs = [_seeded(network, images) for _ in range(3)]
    same = all(_equal(outputs[0], other) for other in outputs[1:])
    require(same, "it says True, but calls on the same images differ: it counts or remembers them.")


NETWORK_CHECKS = (
    is_built_anew,
    refuses_other_channels,
    gives_finite_values,
    leaves_its_input,
    passes_gradients,
    bears_two_calls,
    is_settled_in_eval,
    runs_without_data,
    draws_with_torch,
    restores_its_state,
    can_be_copied,
    moves_as_a_whole,
    is_honest_about_independence,
)
"""Of generators and of discriminators."""
