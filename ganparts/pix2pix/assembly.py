"""pix2pix (Isola et al. 2017, arXiv 1611.07004): translation learned from aligned pairs.

:func:`build_pix2pix` assembles one from a preset and overrides; :class:`Pix2Pix` holds the parts. Settings and the
order of the updates are the reference implementation's.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import Any

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
    preset_named,
    refuse_shared,
)
from ganparts.blocks import check_weight
from ganparts.pix2pix.presets import Pix2PixPreset
from ganparts.pix2pix.step import train_pix2pix
from ganparts.protocols import ConsistencyLoss, Pair
from ganparts.registry import CONSISTENCY_LOSSES, DISCRIMINATORS, GENERATORS

__all__ = ["Pix2Pix", "build_pix2pix"]


class Pix2Pix(nn.Module):
    """The parts of a pix2pix: a generator, conditional critics, and a loss that compares with the target.

    Args:
        generator: from source to target.
        critics: judge source and target together [B, 2 * C, H, W], the source first; one or more.
        reconstruction: compares a translated image with its target.
        reconstruction_weight: factor on that loss.

    Raises:
        TypeError: a generator that is not a module.
        ValueError: the same trained module in two places, or a weight below 0.
    """

    def __init__(
        self,
        *,
        generator: nn.Module,
        critics: Iterable[Critic],
        reconstruction: ConsistencyLoss,
        reconstruction_weight: float = 100.0,
    ):
        super().__init__()
        if not isinstance(generator, nn.Module):
            raise TypeError(f"generator must be a torch.nn.Module, but is {generator!r}")
        self.generator = generator
        self.critics = Critics(critics)
        self.reconstruction = reconstruction
        check_weight("reconstruction_weight", reconstruction_weight)
        self.reconstruction_weight = reconstruction_weight
        refuse_shared(self.parts())

    @property
    def discriminator(self) -> nn.Module:
        """The discriminator; the list of them if there are several (see ``critics``)."""
        return self.critics.discriminator

    def forward(self, images: Tensor) -> Tensor:
        """Translate source images."""
        return self.generator(images)

    def networks(self) -> dict[str, dict[str, nn.Module]]:
        """The trained networks: ``generators`` and ``discriminators``."""
        return {"generators": self.stages(), "discriminators": self.critics.discriminators()}

    def stages(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def parts(self) -> dict[str, object]:
        """Every part by name."""
        return self.stages() | self.critics.parts() | {"reconstruction": self.reconstruction}

    def phase(self, step: int) -> Hashable:
        """Which penalties are due at a step, counted from 0."""
        return self.critics.phase(step)

    def train_step(
        self,
        batch: Pair,
        optimizers: Optimizers,
        *,
        step: int | None = None,
        low_memory: bool = False,
        side_stream: torch.cuda.Stream | None = None,
    ) -> dict[str, Tensor]:
        """See :func:`ganparts.train_step`; ``a`` is the source, ``b`` its target.

        There is one generator pass, so ``low_memory`` has nothing to save. The discriminators come first, so
        ``side_stream`` has no effect.

        Returns:
            ``gan`` (the generator's adversarial loss), ``reconstruction``, ``disc`` (the mean of the real and the fake
            term), and ``penalty`` where one is due. Of several critics there is the sum, and each one: ``disc``,
            ``disc_0``, ``disc_1``.
        """
        return train_pix2pix(self, batch, optimizers, step=step)


def build_pix2pix(
    preset: str | Pix2PixPreset = "pix2pix",
    *,
    generator: Any = UNSET,
    discriminator: Any = UNSET,
    adversarial: Any = UNSET,
    replay: Any = UNSET,
    augment: Any = UNSET,
    penalty: Any = UNSET,
    penalty_every: int = UNSET,
    reconstruction: Any = UNSET,
    reconstruction_weight: float = UNSET,
) -> Pix2Pix:
    """Assemble a :class:`Pix2Pix` from a preset, with any part chosen anew.

    A part is a registered name, a builder without arguments, or a ready module. A discriminator sees source and target
    together. One that is given by name, or as ``partial(DISCRIMINATORS.create, "patchgan", layers=2)``, is built for 6
    channels. Any other builder must make one for 6 channels itself: ``partial(PatchGAN, 6)``.

    Args:
        preset: ``"pix2pix"``, or a :class:`Pix2PixPreset`.
        generator: a name in ``GENERATORS``, a builder or a module.
        discriminator: likewise of ``DISCRIMINATORS``; a list for several critics.
        adversarial: likewise of ``ADVERSARIAL_LOSSES``, or a list.
        replay: likewise of ``REPLAY_BUFFERS``, or a list.
        augment: a name in ``AUGMENTATIONS``, a builder (a class, or a function without arguments), a function of
            images, None, or a list of these.
        penalty: a name in ``PENALTIES``, a builder, a penalty or None, or a list of these.
        penalty_every: steps between two penalties.
        reconstruction: a name in ``CONSISTENCY_LOSSES``, a builder or a module.
        reconstruction_weight: factor on that loss.

    Raises:
        UnknownPartError: a name that is not registered; it is a KeyError.
        TypeError: a part of the wrong kind, or a preset of another method.
        ValueError: the same trained module in two places.
    """
    chosen = overridden(
        preset_named(preset, Pix2PixPreset, "build_pix2pix"),
        generator=generator,
        discriminator=discriminator,
        adversarial=adversarial,
        replay=replay,
        augment=augment,
        penalty=penalty,
        penalty_every=penalty_every,
        reconstruction=reconstruction,
        reconstruction_weight=reconstruction_weight,
    )
    several = chosen.discriminator if isinstance(chosen.discriminator, list) else [chosen.discriminator]
    return Pix2Pix(
        generator=build_part("generator", chosen.generator, GENERATORS),
        critics=build_critics(
            "",
            discriminator=[_conditional(choice, chosen.norm) for choice in several],
            adversarial=chosen.adversarial,
            replay=chosen.replay,
            augment=chosen.augment,
            penalty=chosen.penalty,
            penalty_every=chosen.penalty_every,
        ),
        reconstruction=build_part("reconstruction", chosen.reconstruction, CONSISTENCY_LOSSES),
        reconstruction_weight=chosen.reconstruction_weight,
    )


def _conditional(choice: Any, norm: str) -> Any:
    """A discriminator that is chosen by name, with or without options, as a builder of one that sees two images."""
    named = DISCRIMINATORS.named(choice)
    if named is None:
        return choice
    name, options = named
    wanted = {
        option: v for option, v in {"in_channels": 6, "norm": norm}.items() if option in DISCRIMINATORS.options(name)
    }
    return partial(DISCRIMINATORS.create, name, **(wanted | options))
