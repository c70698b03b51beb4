"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593): two generators, two discriminators, and what trains them.

:func:`build_cyclegan` assembles one from a preset and overrides; :class:`CycleGAN` holds the parts, and
``CycleGAN.forward`` makes every image that a training step needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

from torch import Tensor, nn

from ganparts.cyclegan.batching import apply_to_each
from ganparts.cyclegan.losses import consistency_loss
from ganparts.cyclegan.presets import PRESETS, AugmentChoice, Choice, LossWeights, Preset
from ganparts.protocols import (
    AdversarialLoss,
    Augment,
    ConsistencyLoss,
    Discriminator,
    Generator,
    Pair,
    ReplayBuffer,
)
from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    REPLAY_BUFFERS,
    Registry,
)

__all__ = ["CycleGAN", "Direction", "Translation", "build_cyclegan"]

PartT = TypeVar("PartT")


class Translation(NamedTuple):
    """What the generators make of a :class:`Pair`, each image of the shape of what it came from.

    ``fake_b = G_ab(a)``, ``cycled_a = G_ba(fake_b)``, ``identity_b = G_ab(b)``, and the other way round;
    an identity image is None where its loss weighs nothing.
    """

    fake_a: Tensor
    fake_b: Tensor
    cycled_a: Tensor
    cycled_b: Tensor
    identity_a: Tensor | None
    identity_b: Tensor | None


class Direction(NamedTuple):
    """What translating from one domain (the source) to the other (the target) and back involves."""

    name: str
    there: nn.Module
    back: nn.Module
    cycle: ConsistencyLoss
    cycle_weight: float
    identity: ConsistencyLoss
    identity_weight: float
    discriminator: nn.Module
    adversarial: AdversarialLoss
    replay: nn.Module
    augment: Augment | None

    def translate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """``source`` translated, that translated back, and ``target`` through the same generator if that is weighed."""
        fake, same = self.translate_there(source, target)
        return fake, self.back(fake), same

    def translate_there(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """``source`` translated, and ``target`` through the same generator if that is weighed; in one call."""
        if not self.identity_weight:
            return self.there(source), None
        fake, same = apply_to_each(self.there, source, target)
        return fake, same

    def weighted_cycle(self, cycled: Tensor, source: Tensor) -> Tensor:
        """The cycle loss of ``source``."""
        return self.cycle_weight * consistency_loss(self.cycle, cycled, source)

    def weighted_identity(self, same: Tensor, target: Tensor) -> Tensor:
        """The identity loss of ``target``."""
        return self.identity_weight * consistency_loss(self.identity, same, target)


class CycleGAN(nn.Module):
    """The parts of a CycleGAN. Each network *judges or produces the letter that it ends in*.

    ===================  ============  ==========================================
    here                 in the paper  what it does
    ===================  ============  ==========================================
    ``generator_ab``     G: X to Y     makes domain b (paintings) of a (photos)
    ``generator_ba``     F: Y to X     makes domain a of b
    ``discriminator_a``  D_X           tells real a from ``generator_ba``'s
    ``discriminator_b``  D_Y           tells real b from ``generator_ab``'s
    ===================  ============  ==========================================

    (The reference implementation's ``D_A`` judges domain B: it is ``discriminator_b`` here.) The other parts carry
    the letter of the domain they belong to: ``adversarial_a``, ``cycle_a``, ``identity_a``, ``replay_a``,
    ``augment_a``, and so for b. Most people call :func:`build_cyclegan` instead.

    Args:
        generator: (a to b, b to a).
        discriminator: (of a, of b), as are all that follow.
        adversarial: how each discriminator is trained, and the generator against it.
        cycle: compares an image that went there and back with itself.
        identity: compares a generator's output for an image of its own target domain with that image.
        replay: what a discriminator sees of the generated images.
        augment: acts on what a discriminator sees; None for nothing.
        weights: of cycle and identity loss.

    Raises:
        TypeError: a part of the wrong kind; the message says what is taken.
        ValueError: the same module in two places.
    """

    def __init__(
        self,
        *,
        generator: tuple[Generator, Generator],
        discriminator: tuple[Discriminator, Discriminator],
        adversarial: tuple[AdversarialLoss, AdversarialLoss],
        cycle: tuple[ConsistencyLoss, ConsistencyLoss],
        identity: tuple[ConsistencyLoss, ConsistencyLoss],
        replay: tuple[ReplayBuffer, ReplayBuffer],
        augment: tuple[Augment | None, Augment | None] = (None, None),
        weights: LossWeights = LossWeights(),  # noqa: B008 (frozen)
    ):
        super().__init__()
        self.generator_ab, self.generator_ba = _as_modules("generator", generator)
        self.discriminator_a, self.discriminator_b = _as_modules("discriminator", discriminator)
        for loss in adversarial:
            if not (hasattr(loss, "discriminator") and hasattr(loss, "generator")):
                raise TypeError(
                    f"adversarial takes losses with methods discriminator and generator, but was given {loss!r}"
                )
        for function in augment:
            if function is not None and (isinstance(function, type) or not callable(function)):
                raise TypeError(
                    f"augment takes a function of images such as DiffAugment(), or None, but was given {function!r}"
                )
        if not isinstance(weights, LossWeights):
            raise TypeError(f"weights takes LossWeights(cycle=..., identity=...), but was given {weights!r}")
        self.adversarial_a, self.adversarial_b = adversarial
        self.cycle_a, self.cycle_b = cycle
        self.identity_a, self.identity_b = identity
        self.replay_a, self.replay_b = _as_modules("replay", replay)
        self.augment_a, self.augment_b = augment
        self.weights = weights
        self._refuse_shared_parts()

    def _refuse_shared_parts(self) -> None:
        seen: dict[int, str] = {}
        for place, part in self._modules.items():
            if part is None or place.startswith("augment_"):  # which has no weights
                continue
            if id(part) in seen:
                raise ValueError(
                    f"{seen[id(part)]} and {place} are the same {type(part).__name__} instance, so they would share "
                    "what they learn or remember: give a name, a builder that makes a new one each time, or a pair"
                )
            seen[id(part)] = place

    @property
    def ab(self) -> Direction:
        """What translating from a to b and back involves."""
        return self._direction("ab", self.generator_ab, self.generator_ba)

    @property
    def ba(self) -> Direction:
        """What translating from b to a and back involves."""
        return self._direction("ba", self.generator_ba, self.generator_ab)

    def _direction(self, name: str, there: nn.Module, back: nn.Module) -> Direction:
        source, target = name
        return Direction(
            name,
            there,
            back,
            cycle=getattr(self, f"cycle_{source}"),
            cycle_weight=self.weights.pair("cycle")["ab".index(source)],
            identity=getattr(self, f"identity_{target}"),
            identity_weight=self.weights.pair("identity")["ab".index(target)],
            discriminator=getattr(self, f"discriminator_{target}"),
            adversarial=getattr(self, f"adversarial_{target}"),
            replay=getattr(self, f"replay_{target}"),
            augment=getattr(self, f"augment_{target}"),
        )

    def forward(self, pair: Pair) -> Translation:
        """Translate both ways and back, and each image by the generator of its own domain where that is weighed."""
        fake_b, cycled_a, identity_b = self.ab.translate(pair.a, pair.b)
        fake_a, cycled_b, identity_a = self.ba.translate(pair.b, pair.a)
        return Translation(fake_a, fake_b, cycled_a, cycled_b, identity_a, identity_b)


def _as_modules(argument: str, parts: tuple[object, object]) -> tuple[nn.Module, nn.Module]:
    first, second = parts
    if not (isinstance(first, nn.Module) and isinstance(second, nn.Module)):
        raise TypeError(f"{argument} takes torch.nn.Modules, but was given {first!r} and {second!r}")
    return first, second


class _Unset:
    """The preset's choice stands."""

    def __repr__(self) -> str:
        return "the preset's"


_UNSET: Final[Any] = _Unset()


def build_cyclegan(
    preset: str | Preset = "paper",
    *,
    generator: Choice[Generator] = _UNSET,
    discriminator: Choice[Discriminator] = _UNSET,
    adversarial: Choice[AdversarialLoss] = _UNSET,
    cycle: Choice[ConsistencyLoss] = _UNSET,
    identity: Choice[ConsistencyLoss] = _UNSET,
    replay: Choice[ReplayBuffer] = _UNSET,
    augment: AugmentChoice = _UNSET,
    weights: LossWeights = _UNSET,
) -> CycleGAN:
    """Assemble a :class:`CycleGAN` from a preset, with any part chosen anew.

    A part is a registered name, a builder without arguments (``partial(ResNetGenerator, width=32)`` gives options),
    or a pair of either: generators as (a to b, b to a), all others as (domain a, domain b). A ready module is taken
    as it is. Parts initialise themselves.

    Args:
        preset: a name in ``PRESETS`` (``"paper"``, ``"keras_monet"``, ``"two_objective"``), or a :class:`Preset`.
        generator: of ``GENERATORS``.
        discriminator: of ``DISCRIMINATORS``.
        adversarial: of ``ADVERSARIAL_LOSSES``.
        cycle: of ``CONSISTENCY_LOSSES``.
        identity: of ``CONSISTENCY_LOSSES``.
        replay: of ``REPLAY_BUFFERS``.
        augment: a function of images, None, or a pair of either.
        weights: of cycle and identity loss.

    Raises:
        UnknownPartError: a name that is not registered; it is a KeyError.
        TypeError: a part that is neither a name nor a builder nor a pair.
        ValueError: the same module in two places.
    """
    given = {name: value for name, value in locals().items() if name != "preset" and value is not _UNSET}
    chosen = replace(PRESETS.create(preset) if isinstance(preset, str) else preset, **given)
    return CycleGAN(
        generator=_both("generator", chosen.generator, GENERATORS),
        discriminator=_both("discriminator", chosen.discriminator, DISCRIMINATORS),
        adversarial=_both("adversarial", chosen.adversarial, ADVERSARIAL_LOSSES),
        cycle=_both("cycle", chosen.cycle, CONSISTENCY_LOSSES),
        identity=_both("identity", chosen.identity, CONSISTENCY_LOSSES),
        replay=_both("replay", chosen.replay, REPLAY_BUFFERS),
        augment=chosen.augment if isinstance(chosen.augment, tuple) else (chosen.augment, chosen.augment),
        weights=chosen.weights,
    )


def _both(argument: str, choice: Choice[PartT], table: Registry[PartT]) -> tuple[PartT, PartT]:
    if not isinstance(choice, tuple | list):
        choice = (choice, choice)
    if len(choice) != 2:
        raise TypeError(f"{argument} takes one choice or a pair, but was given {len(choice)}: {choice!r}")
    return _build(argument, choice[0], table), _build(argument, choice[1], table)


def _build(argument: str, choice: str | Callable[[], PartT], table: Registry[PartT]) -> PartT:
    if isinstance(choice, str):
        return table.create(choice)
    if isinstance(choice, nn.Module):
        return choice  # pyright: ignore[reportReturnType]
    if callable(choice):
        return choice()
    raise TypeError(
        f"{argument} takes a name ({', '.join(table.names())}), a builder without arguments, or a pair of them, "
        f"but was given {choice!r}"
    )
