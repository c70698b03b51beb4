"""Small parts of one's own, right and wrong: what the conformance kit must tell apart."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.generators import AntialiasedResNetGenerator
from ganparts.losses import LSGAN, image_gradients, logit_maps

__all__ = ["WRONG", "Judge", "Paint"]


class Paint(nn.Module):
    """A right generator of one convolution."""

    images_are_independent = True

    def __init__(self, channels: int = 3, *, gain: float = 1.0):
        super().__init__()
        self.conv, self.gain = nn.Conv2d(channels, channels, 3, padding=1), gain

    def forward(self, images: Tensor) -> Any:
        return self.gain * torch.tanh(self.conv(images))


class Judge(nn.Module):
    """A right discriminator of one convolution."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 4, 2, 1)

    def forward(self, images: Tensor) -> Any:
        return self.conv(images)


def after(base: type[nn.Module], change: Callable[[Any, Tensor, Any], Any], **attributes: Any) -> type[nn.Module]:
    """``base``, whose output goes through ``change(network, images, output)``."""

    def forward(self: Any, images: Tensor) -> Any:
        return change(self, images, base.forward(self, images))

    return type("Changed", (base,), {"forward": forward, **attributes})


def before(base: type[nn.Module], change: Callable[[Any, Tensor], Tensor], **attributes: Any) -> type[nn.Module]:
    """``base``, whose input goes through ``change(network, images)``."""

    def forward(self: Any, images: Tensor) -> Any:
        return base.forward(self, change(self, images))

    return type("Changed", (base,), {"forward": forward, **attributes})


def holding(base: type[nn.Module], hold: Callable[[Any], None], change: Callable[..., Any]) -> type[nn.Module]:
    """``base`` that ``hold(network)`` is done to when it is built, and whose output goes through ``change``."""

    def __init__(self: Any) -> None:  # noqa: N807
        base.__init__(self)
        hold(self)

    return type("Holding", (after(base, change),), {"__init__": __init__})


def hold_tensor(network: Any) -> None:
    network.tint = torch.rand(1)


def hold_mask(network: Any) -> None:
    network.mask = torch.ones(1, 1, 1, 1)


def hold_list(network: Any) -> None:
    network.seen = []


def remember(network: Any, images: Tensor, output: Any) -> Any:
    network.seen.append(1)
    return output / len(network.seen)


def hold_function(network: Any) -> None:
    conv = network.conv
    network.held = lambda images: torch.tanh(conv(images))  # the original's, even in a copy


def hold_layer(network: Any) -> None:
    network.spare = nn.Linear(1, 1)


def hold_count(network: Any) -> None:
    network.register_buffer("calls", torch.zeros(()))


def count(network: Any, images: Tensor, output: Any) -> Any:
    network.calls.add_(1)
    return output


def weigh(network: Any, images: Tensor, output: Any) -> Any:
    return output * (network.calls.add_(1) if network.training else 1)


def unasked(network: Any, images: Tensor, output: Any) -> Any:
    return output if output.mean().item() < 10 else -output


def drawn_on_host(network: Any, images: Tensor, output: Any) -> Any:
    return output * (1 - 0.1 * random.random() * network.training)


def changed_in_place(network: Any, images: Tensor, output: Any) -> Any:
    with torch.no_grad():
        images.copy_(images.detach().clone() * 0.5)
    return output


def half_detached(network: Any, images: Tensor, output: Any) -> Any:
    return network.conv(images.detach()).tanh()


def same(part: Any) -> Callable[[], Any]:
    return lambda: part


Row = tuple[str, str, Any, str]
"""Kind of part, the contract that it breaks, its builder, and a pattern of what is found."""


def wrong_networks(kind: str, base: type[nn.Module]) -> list[Row]:
    """What is wrong of a generator and of a discriminator alike."""
    rows = [
        ("is_built_anew", same(base()), "two calls of the builder gave networks with the same weights"),
        ("is_built_anew", same(torch.tanh), "the builder made a builtin_function"),
        (
            "refuses_other_channels",
            before(base, lambda n, i: i.mean(1, keepdim=True).expand(-1, 3, -1, -1)),
            r"it is for 3 channels, but took \[2, 4, 32, 32\] and gave \[2, \d, ",
        ),
        ("leaves_its_input", after(base, changed_in_place), "changed the images in place"),
        (
            "passes_gradients",
            holding(base, hold_layer, lambda n, i, o: o),
            "no gradient reached spare.weight, spare.bias",
        ),
        ("passes_gradients", after(base, half_detached), "no gradient reached the images"),
        ("passes_gradients", after(base, lambda n, i, o: o + (o - o.detach()).sqrt()), "the gradient is not finite of"),
        ("gives_finite_values", after(base, lambda n, i, o: o / 0), "values that are not finite"),
        (
            "bears_two_calls",
            holding(base, hold_count, weigh),
            "modified by an inplace operation",
        ),
        ("is_settled_in_eval", after(base, lambda n, i, o: o * torch.rand((), device=i.device)), "two calls .* differ"),
        ("is_settled_in_eval", after(base, lambda n, i, o: o + 0 * torch.rand(())), "it drew from PyTorch's generator"),
        ("is_settled_in_eval", holding(base, hold_count, count), "these changed: calls"),
        ("runs_without_data", after(base, unasked), "it raised RuntimeError: .*meta"),
        ("runs_without_data", after(base, lambda n, i, o: o * float(torch.rand(()))), "drew from PyTorch's generator"),
        ("draws_with_torch", after(base, drawn_on_host), "it drew from Python's module random"),
        (
            "restores_its_state",
            holding(base, hold_tensor, lambda n, i, o: o * n.tint.to(i)),
            "the network that loaded the state differs",
        ),
        ("can_be_copied", holding(base, hold_function, lambda n, i, o: n.held(i)), "not depend on its own weights"),
        ("moves_as_a_whole", after(base, lambda n, i, o: o.float()), "float64 became torch.float32"),
        ("moves_as_a_whole", holding(base, hold_mask, lambda n, i, o: o * n.mask), "cpu|CPU"),
        (
            "is_honest_about_independence",
            before(base, lambda n, i: i - i.mean(0), images_are_independent=True),
            "an image's output depends on the other image",
        ),
        (
            "is_honest_about_independence",
            type("Word", (base,), {"images_are_independent": "yes"}),
            "images_are_independent is 'yes'",
        ),
        (
            "is_honest_about_independence",
            holding(type("Word", (base,), {"images_are_independent": True}), hold_list, remember),
            "calls on the same images differ",
        ),
    ]
    return [(kind, *row) for row in rows]


class Miscounting(AntialiasedResNetGenerator):
    """Its features have other channels than it says."""

    def __init__(self):
        super().__init__(width=2, blocks=1)
        self.nce_layers = (0, 4)

    def feature_channels(self, layers: Any) -> list[int]:
        return [1 + channels for channels in super().feature_channels(layers)]


GENERATORS: list[Row] = [
    ("generator", "keeps_size", after(Paint, lambda n, i, o: o[..., 1:]), r"\[1, 3, 32, 32\] became \[1, 3, 32, 31\]"),
    ("generator", "keeps_size", after(Paint, lambda n, i, o: o.half()), "the output is torch.float16"),
    ("generator", "keeps_size", after(Paint, lambda n, i, o: (o,)), "the output is a tuple"),
    (
        "generator",
        "keeps_every_size",
        before(Paint, lambda n, i: i[..., : i.shape[-2] // 2 * 2, : i.shape[-1] // 2 * 2]),
        r"\[1, 3, 33, 33\] became \[1, 3, 32, 32\]",
    ),
    ("generator", "takes_wide_pictures", after(Paint, lambda n, i, o: o[..., :32]), r"became \[2, 3, 32, 32\]"),
    ("generator", "stays_in_range", partial(Paint, gain=1.5), "a value is -?1.[0-9]"),
    ("generator", "stays_in_range", after(Paint, lambda n, i, o: 0.1 * n.conv(i)), "with large weights a value is"),
    ("generator", "refuses_other_sizes", type("Multiple", (Paint,), {"size_multiple": 4}), "takes 33x33 images"),
    ("generator", "refuses_other_sizes", type("Least", (Paint,), {"min_size": 8}), "takes 7x7 images"),
    ("generator", "refuses_other_sizes", type("Half", (Paint,), {"size_multiple": 0}), "size_multiple is 0"),
    (
        "generator",
        "gives_its_features",
        Miscounting,
        r"feature_channels says \[4, \d+\], but the features have \[3, \d+\]",
    ),
    *wrong_networks("generator", Paint),
]

DISCRIMINATORS: list[Row] = [
    ("discriminator", "gives_maps", after(Judge, lambda n, i, o: o.mean((1, 2, 3))), r"the logits are \[\[1\]\]"),
    ("discriminator", "gives_maps", after(Judge, lambda n, i, o: [o]), "the output is a list"),
    (
        "discriminator",
        "gives_maps",
        after(Judge, lambda n, i, o: (o, o[:, :1])),
        "differ in their number of objectives",
    ),
    (
        "discriminator",
        "gives_logits",
        after(Judge, lambda n, i, o: o.sigmoid()),
        r"stay in \[0, 1\], as after a sigmoid",
    ),
    ("discriminator", "gives_logits", after(Judge, lambda n, i, o: o.tanh()), r"stay in \[-1, 1\], as after a tanh"),
    *wrong_networks("discriminator", Judge),
]


def adversarial(**methods: Any) -> type[LSGAN]:
    return type("Loss", (LSGAN,), methods)


def counted(self: Any, fake: Tensor, real: Tensor | None = None) -> Tensor:
    counts.append(1)
    return (fake - 1).square().mean() * len(counts)


counts: list[int] = []


class Weighted(LSGAN):
    """Its weight is a factor on the wrong loss."""

    def __init__(self, weight: float = 1.0):
        super().__init__(weight)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.weight * super().discriminator(real, fake)


ADVERSARIAL: list[Row] = [
    (
        "adversarial loss",
        "gives_scalars",
        adversarial(generator=lambda self, fake, real=None: (fake - 1).square().mean((1, 2, 3))),
        r"generator's loss has the shape \[2\]",
    ),
    (
        "adversarial loss",
        "gives_scalars",
        adversarial(generator=lambda self, fake, real=None: (fake - 1).square().mean().item()),
        "generator's loss is a float, not a tensor",
    ),
    (
        "adversarial loss",
        "gives_scalars",
        adversarial(generator=lambda self, fake, real=None: (1 + (-fake.float()).exp()).log().mean()),
        "generator's loss is inf of logits from -200 to 200",
    ),
    (
        "adversarial loss",
        "takes_means",
        adversarial(generator=lambda self, fake, real=None: (fake - 1).square().sum()),
        "generator's loss is .*, and .* of the map twice",
    ),
    (
        "adversarial loss",
        "says_if_it_needs_real",
        adversarial(generator=lambda self, fake, real=None: (fake - (1 if real is None else real)).square().mean()),
        "real logits change the generator's loss, but needs_real is not True",
    ),
    (
        "adversarial loss",
        "has_right_gradients",
        adversarial(generator=lambda self, fake, real=None: ((fake - 1) * (fake.detach() - 1)).mean()),
        "the gradient of generator's loss differs from finite differences",
    ),
    (
        "adversarial loss",
        "has_right_gradients",
        adversarial(discriminator=lambda self, real, fake: fake.square().mean()),
        "the discriminator's loss ignores real logits",
    ),
    (
        "adversarial loss",
        "opposes",
        adversarial(generator=lambda self, fake, real=None: fake.square().mean()),
        "both losses pull the fake logits the same way",
    ),
    ("adversarial loss", "keeps_no_state", adversarial(generator=counted), "two calls differ"),
    ("adversarial loss", "weighs_the_generator", Weighted, "weight changes the discriminator's loss"),
]


class Distance(nn.Module):
    """A right consistency loss, unless it is given what makes it wrong."""

    def __init__(self, distance: Callable[[Tensor, Tensor], Any] = lambda p, t: (p - t).abs().mean()):
        super().__init__()
        self.distance = distance

    def forward(self, prediction: Tensor, target: Tensor) -> Any:
        return self.distance(prediction, target)


CONSISTENCY: list[Row] = [
    ("consistency loss", contract, partial(Distance, distance), found)
    for contract, distance, found in [
        ("gives_a_scalar", lambda p, t: (p - t).abs().mean((1, 2, 3)), r"the loss has the shape \[2\]"),
        ("gives_a_scalar", lambda p, t: (p - t).abs().mean().item(), "the loss is a float, not a tensor"),
        ("is_least_where_equal", lambda p, t: -(p - t).abs().mean(), "at a distance, halfway and at the target"),
        ("leads_downhill", lambda p, t: (p.detach() - t).abs().mean() + 0 * p.mean(), "no gradient reached"),
        ("leads_downhill", lambda p, t: 2 * (p.detach() - t).abs().mean() - (p - t).abs().mean(), "led from"),
        ("compares_without_a_trace", lambda p, t: (p - t).abs().mean() * random.random(), "two calls differ"),
        ("compares_without_a_trace", lambda p, t: p.data.clamp_(-0.1, 0.1).sub(t).abs().mean(), "changed the images"),
    ]
]


def slope(discriminator: nn.Module, real: Tensor) -> Tensor:
    return torch.stack([g.square().mean() for g in image_gradients(discriminator, real)]).mean()


def of_one_map(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return discriminator(real).square().mean()


def backward(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    value = torch.stack([logits.square().mean() for logits in logit_maps(discriminator, real)]).mean()
    value.backward(retain_graph=True)
    return value


def without_graph(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return torch.stack([logits.detach().square().mean() for logits in logit_maps(discriminator, real)]).mean()


def in_eval(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return drift(discriminator.eval(), real, fake)


def drift(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return torch.stack([logits.square().mean() for logits in logit_maps(discriminator, real)]).mean()


def noisy(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return drift(discriminator, real + 0.1 * random.random(), fake)


def noisy_on_host(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return drift(discriminator, real + torch.rand(()).item(), fake)


class Remembering:
    """It averages over calls, in a Python number."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        self.calls += 1
        return drift(discriminator, real, fake) / self.calls


class RememberingModule(nn.Module):
    """The same, as a module."""

    calls = 0

    def forward(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        self.calls += 1
        return drift(discriminator, real, fake) / self.calls


def squared_weight(*, weight: float = 1.0) -> Any:
    return lambda discriminator, real, fake: weight**2 * drift(discriminator, real, fake)


PENALTIES: list[Row] = [
    ("penalty", "gives_a_scalar", same(of_one_map), "it raised AttributeError"),
    ("penalty", "gives_a_scalar", same(lambda d, r, f: drift(d, r, f)[None]), r"the penalty has the shape \[1\]"),
    ("penalty", "reaches_the_discriminator", same(without_graph), "the penalty has no gradient at all"),
    ("penalty", "reaches_the_discriminator", same(lambda d, r, f: 0 * drift(d, r, f)), "no gradient reached"),
    ("penalty", "leaves_the_rest", same(backward), "it added gradients to the discriminator's weights"),
    ("penalty", "leaves_the_rest", same(in_eval), "it left the discriminator in eval mode"),
    ("penalty", "leaves_the_rest", same(lambda d, r, f: drift(d, r.requires_grad_(), f)), "it changed requires_grad"),
    ("penalty", "runs_without_data", same(noisy), "it drew from Python's module random"),
    ("penalty", "runs_without_data", same(noisy_on_host), "it drew from PyTorch's generator of the CPU"),
    ("penalty", "restores_its_state", Remembering, "two calls on the same images differ, and it is not a module"),
    ("penalty", "restores_its_state", RememberingModule, "a new one that loaded its state gives another value"),
    ("penalty", "weighs_itself", squared_weight, "weight=1 gives .*, and weight=3"),
]


class Replay(nn.Module):
    """It keeps the last batch and returns it, unless it is given what makes it wrong."""

    def __init__(self, keep: Callable[[Tensor], Tensor] = torch.clone, give: Callable[[Tensor], Any] = lambda i: i):
        super().__init__()
        self.keep, self.give = keep, give
        self.register_buffer("last", torch.zeros(2, 3, 4, 4))
        self.register_buffer("full", torch.zeros((), dtype=torch.bool))

    def forward(self, images: Tensor) -> Any:
        returned = torch.where(self.full, self.last, images)
        self.last = self.keep(images)
        self.full.fill_(True)
        return self.give(returned)


class ListReplay(nn.Module):
    """It keeps images in a list."""

    def __init__(self):
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.kept.append(images.clone())
        return self.kept[-5] if len(self.kept) > 4 else images


class HostReplay(nn.Module):
    """It draws on the CPU which images to return."""

    def __init__(self, draw: Callable[[], float]):
        super().__init__()
        self.draw = draw
        self.register_buffer("last", torch.zeros(2, 3, 4, 4))
        self.register_buffer("full", torch.zeros((), dtype=torch.bool))

    def forward(self, images: Tensor) -> Tensor:
        returned = torch.where(self.full & (self.draw() < 0.5), self.last, images)
        self.last = images.clone()
        self.full = torch.ones_like(self.full)
        return returned


REPLAY: list[Row] = [
    ("replay buffer", "returns_given_or_older", same(lambda images: images), "the builder made a function"),
    ("replay buffer", "returns_given_or_older", partial(Replay, give=lambda i: i[:1]), r"became \[1, 3, 4, 4\]"),
    ("replay buffer", "returns_given_or_older", partial(Replay, give=lambda i: 0.5 * i), "that it was never given"),
    ("replay buffer", "keeps_copies", partial(Replay, keep=lambda i: i), "came back changed"),
    (
        "replay buffer",
        "keeps_copies",
        partial(Replay, give=lambda i: i.clone(), keep=lambda i: i.mul_(1.5)),
        "in place",
    ),
    ("replay buffer", "restores_its_state", ListReplay, "a new one that loaded its state returns other images"),
    ("replay buffer", "runs_without_data", partial(HostReplay, random.random), "it drew from Python's module random"),
    (
        "replay buffer",
        "runs_without_data",
        partial(HostReplay, lambda: float(torch.rand(()))),
        "it drew from PyTorch's generator of the CPU",
    ),
]

WRONG: list[Row] = [*GENERATORS, *DISCRIMINATORS, *ADVERSARIAL, *CONSISTENCY, *PENALTIES, *REPLAY]
