"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593): two generators, two or more critics, and two consistency losses.

:func:`build_cyclegan` assembles one from a preset and overrides; :class:`CycleGAN` holds the parts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganparts.adversarial import (
    UNSET,
    Critic,
    Critics,
    Optimizers,
    build_critics,
    build_part,
    overridden,
    pair_of,
    preset_named,
    refuse_shared,
)
from ganparts.cyclegan.direction import Direction
from ganparts.cyclegan.presets import LossWeights, Preset
from ganparts.cyclegan.step import train_cyclegan
from ganparts.protocols import ConsistencyLoss, Generator, Pair
from ganparts.registry import CONSISTENCY_LOSSES, GENERATORS

__all__ = ["CycleGAN", "Translation", "build_cyclegan"]


class Translation(NamedTuple):
    """What the generators make of a :class:`Pair`. Each image has the shape of its input.

    ``fake_b = G_ab(a)``, ``cycled_a = G_ba(fake_b)``, ``identity_b = G_ab(b)``, and the other way round;
    an identity image is None where its loss has no weight.
    """

    fake_a: Tensor
    fake_b: Tensor
    cycled_a: Tensor
    cycled_b: Tensor
    identity_a: Tensor | None
    identity_b: Tensor | None


class CycleGAN(nn.Module):
    """The parts of a CycleGAN. Each network *judges or produces the letter that it ends in*.

    ===================  ============  ==========================================
    here                 in the paper  what it does
    ===================  ============  ==========================================
    ``generator_ab``     G: X to Y     translates domain a to domain b
    ``generator_ba``     F: Y to X     translates domain b to domain a
    ``discriminator_a``  D_X           tells real a from ``generator_ba``'s
    ``discriminator_b``  D_Y           tells real b from ``generator_ab``'s
    ===================  ============  ==========================================

    (The reference implementation's ``D_A`` judges domain B: it is ``discriminator_b`` here.) A domain's discriminator,
    with its adversarial loss, replay buffer, augmentation and penalty, is a
    :class:`~ganparts.adversarial.Critic` in ``critics_a`` or ``critics_b``; a domain may have several. Most people
    call :func:`build_cyclegan` instead.

    Args:
        generator: (a to b, b to a).
        critics: (of domain a, of domain b), one or more each.
        cycle: compares an image of (a, b) that went there and back with itself.
        identity: compares a generator's output for an image of its own target domain (a, b) with that image.
        weights: of the cycle, the identity and the attention loss.

    Raises:
        TypeError: a part of the wrong kind; the message says what is expected.
        ValueError: the same trained module in two places.
    """

    def __init__(
        self,
        *,
        generator: tuple[nn.Module, nn.Module],
        critics: tuple[Iterable[Critic], Iterable[Critic]],
        cycle: tuple[ConsistencyLoss, ConsistencyLoss],
        identity: tuple[ConsistencyLoss, ConsistencyLoss],
        weights: LossWeights = LossWeights(),  # noqa: B008 (frozen)
    ):
        super().__init__()
        for network in generator:
            if not isinstance(network, nn.Module):
                raise TypeError(f"generator must be a torch.nn.Module, but is {network!r}")
        if not isinstance(weights, LossWeights):
            raise TypeError(f"weights must be LossWeights(cycle=..., identity=...), but is {weights!r}")
        for network in generator if any(weights.of("attention")) else ():
            if not hasattr(network, "forward_with_attention"):
                raise TypeError(
                    f"weights.attention={weights.attention}, but a {type(network).__name__} does not tell what it "
                    "attends to: take the generator 'ugatit', or attention weight 0"
                )
        self.generator_ab, self.generator_ba = generator
        self.critics_a, self.critics_b = (
            Critics(several, domain) for several, domain in zip(critics, "ab", strict=True)
        )
        self.cycle_a, self.cycle_b = cycle
        self.identity_a, self.identity_b = identity
        self.weights = weights
        refuse_shared(self.parts())

    @property
    def discriminator_a(self) -> nn.Module:
        """The discriminator of domain a; the list of them if there are several (see ``critics_a``)."""
        return self.critics_a.discriminator

    @property
    def discriminator_b(self) -> nn.Module:
        """The discriminator of domain b; the list of them if there are several (see ``critics_b``)."""
        return self.critics_b.discriminator

    def direction(self, source: str, target: str) -> Direction:
        """The parts that translate from domain ``source`` to ``target`` and back: ("a", "b") or ("b", "a")."""
        (cycle_a, cycle_b), (identity_a, identity_b) = self.weights.of("cycle"), self.weights.of("identity")
        attention_a, attention_b = self.weights.of("attention")
        if (source, target) == ("a", "b"):
            generators, critics = (self.generator_ab, self.generator_ba), self.critics_b
            losses = (self.cycle_a, cycle_a, self.identity_b, identity_b, attention_b)
        else:
            generators, critics = (self.generator_ba, self.generator_ab), self.critics_a
            losses = (self.cycle_b, cycle_b, self.identity_a, identity_a, attention_a)
        return Direction(source, target, *generators, critics, *losses)

    def forward(self, pair: Pair) -> Translation:
        """Translate both ways and back; if the identity loss has a weight, also each image to its own domain."""
        fake_b, identity_b = self.direction("a", "b").translate(pair.a, pair.b)
        fake_a, identity_a = self.direction("b", "a").translate(pair.b, pair.a)
        cycled_a, cycled_b = self.generator_ba(fake_b), self.generator_ab(fake_a)
        return Translation(fake_a, fake_b, cycled_a, cycled_b, identity_a, identity_b)

    def networks(self) -> dict[str, dict[str, nn.Module]]:
        """The trained networks, by optimizer (``generators``, ``discriminators``) and by name."""
        discriminators = self.critics_a.discriminators() | self.critics_b.discriminators()
        return {"generators": self.stages(), "discriminators": discriminators}

    def stages(self) -> dict[str, nn.Module]:
        """Both generators: a sample grid shows a translated to b, and back."""
        return {"generator_ab": self.generator_ab, "generator_ba": self.generator_ba}

    def parts(self) -> dict[str, object]:
        """Every part by name."""
        losses = {name: getattr(self, name) for name in ("cycle_a", "cycle_b", "identity_a", "identity_b")}
        return self.stages() | self.critics_a.parts() | self.critics_b.parts() | losses

    def phase(self, step: int) -> Hashable:
        """Which penalties are due at a step, counted from 0."""
        return self.critics_a.phase(step) + self.critics_b.phase(step)

    def train_step(
        self,
        batch: Pair,
        optimizers: Optimizers,
        *,
        step: int | None = None,
        low_memory: bool = False,
        side_stream: torch.cuda.Stream | None = None,
    ) -> dict[str, Tensor]:
        """See :func:`ganparts.train_step`.

        ``low_memory`` backpropagates the losses of target images separately: this saves a third of the activation
        memory and costs one extra generator call per direction.

        Returns:
            ``gan_ab``, ``gan_ba`` (each generator's adversarial loss), ``cycle_a``, ``cycle_b``, ``identity_a``,
            ``identity_b``, ``attention_ab``, ``attention_ba`` (only where their weight is not 0), ``disc_a``,
            ``disc_b`` (the mean of the real and the fake term), and ``penalty_a``, ``penalty_b`` where one is due. Of
            several critics there is the sum, and each one: ``disc_b``, ``disc_b_0``, ``disc_b_1``.
        """
        directions = self.direction("a", "b"), self.direction("b", "a")
        return train_cyclegan(directions, batch, optimizers, step=step, low_memory=low_memory, side_stream=side_stream)


def build_cyclegan(
    preset: str | Preset = "paper",
    *,
    generator: Any = UNSET,
    discriminator: Any = UNSET,
    adversarial: Any = UNSET,
    cycle: Any = UNSET,
    identity: Any = UNSET,
    replay: Any = UNSET,
    augment: Any = UNSET,
    penalty: Any = UNSET,
    penalty_every: int = UNSET,
    weights: LossWeights = UNSET,
) -> CycleGAN:
    """Assemble a :class:`CycleGAN` from a preset, with any part chosen anew.

    A part is a registered name, a builder without arguments (to set options, pass
    ``partial(GENERATORS.create, "resnet9", width=32)``), or a ready module. To use different parts for the two
    domains, pass a tuple: (a to b, b to a) for generators, (domain a, domain b) for everything else. To have several
    critics judge a domain, pass a list of discriminators as its entry: ``discriminator=("patchgan", ["patchgan",
    "pixel"])``. What belongs to a discriminator may be a list of the same length. Parts initialise themselves.

    Args:
        preset: a name in ``PRESETS`` (``"paper"``, ``"keras_monet"``, ``"two_objective"``, ``"uvcgan2"``,
            ``"ugatit"``, ``"ganilla"``, ``"monet"``), or a :class:`Preset`.
        generator: a name in ``GENERATORS``, a builder, a module, or a tuple of two of these.
        discriminator: likewise of ``DISCRIMINATORS``; a domain's entry may be a list.
        adversarial: likewise of ``ADVERSARIAL_LOSSES``; a domain's entry may be a list.
        cycle: a name in ``CONSISTENCY_LOSSES``, a builder, a module, or a tuple of two of these.
        identity: likewise.
        replay: likewise of ``REPLAY_BUFFERS``; a domain's entry may be a list.
        augment: a name in ``AUGMENTATIONS``, a builder (a class, or a function without arguments), a function of
            images, None, or a tuple of two of these; a domain's entry may be a list.
        penalty: a name in ``PENALTIES``, a builder, a penalty, None, or a tuple of two of these; a domain's entry may
            be a list.
        penalty_every: steps between two penalties.
        weights: of the cycle, the identity and the attention loss.

    Raises:
        UnknownPartError: a name that is not registered; it is a KeyError.
        TypeError: a part that is neither a name nor a builder nor a module, or a preset of another method.
        ValueError: the same trained module in two places.
    """
    chosen = overridden(
        preset_named(preset, Preset, "build_cyclegan"),
        generator=generator,
        discriminator=discriminator,
        adversarial=adversarial,
        cycle=cycle,
        identity=identity,
        replay=replay,
        augment=augment,
        penalty=penalty,
        penalty_every=penalty_every,
        weights=weights,
    )

    def both(argument: str, table: Any) -> tuple[Any, Any]:
        first, second = pair_of(argument, getattr(chosen, argument))
        return build_part(argument, first, table), build_part(argument, second, table)

    def critics(place: int) -> Critics:
        names = ("discriminator", "adversarial", "replay", "augment", "penalty")
        choices = {name: pair_of(name, getattr(chosen, name))[place] for name in names}
        return build_critics("ab"[place], **choices, penalty_every=chosen.penalty_every)

    generators: tuple[Generator, Generator] = both("generator", GENERATORS)
    return CycleGAN(
        generator=generators,  # pyright: ignore[reportArgumentType]
        critics=(critics(0), critics(1)),
        cycle=both("cycle", CONSISTENCY_LOSSES),
        identity=both("identity", CONSISTENCY_LOSSES),
        weights=chosen.weights,
    )
