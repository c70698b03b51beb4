"""CUT and FastCUT (Park et al. 2020, arXiv 2007.15651): one direction, whose content a contrastive loss keeps.

:func:`build_cut` assembles one from a preset and overrides; :class:`CUT` holds the parts. The parts, the losses and the
order of the updates are the published implementation's. Options that it does not have are a replay buffer, penalties,
several critics, and consistency losses (``content``, ``identity``) beside the contrastive loss or in its place.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
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
    trained_parameters,
)
from ganparts.blocks import check_counts, check_weight, size_limits
from ganparts.cut.presets import CUTPreset, left_out
from ganparts.cut.step import train_cut
from ganparts.losses import PatchProjector, draw_positions
from ganparts.protocols import ConsistencyLoss, Pair
from ganparts.registry import CONSISTENCY_LOSSES, GENERATORS

__all__ = ["CUT", "build_cut"]


class CUT(nn.Module):
    """The parts of a CUT: a generator from source to target, critics of the target domain, and a projector of patches.

    Args:
        generator: gives features (:class:`~ganparts.protocols.FeatureGenerator`).
        critics: of the target domain, one or more.
        nce_weight: factor on the contrastive loss.
        nce_identity: whether target images are compared with their translations too; both terms then count half.
        flip_equivariance: mirror the source with probability 1/2, and mirror its features back.
        layers: whose features are compared; None for the generator's ``nce_layers``.
        patches: to compare in each layer.
        projector_width: channels of the projected patches.
        temperature: similarities are divided by it.
        content: compares a translation with its source, beside the contrastive loss or, with ``nce_weight=0``, in its
            place; None for none.
        content_weight: factor on that loss.
        identity: compares a target image with its translation; None for none.
        identity_weight: factor on that loss.
        grid_weight: factor on the pattern of four pixels in translations (:func:`~ganparts.losses.grid_pattern`).
        shift_weight: factor on the mean difference between translations of shifted images and shifted translations
            (shift equivariance), against a pattern of the generator's grid in the pictures. It takes another
            pass through the generator; images must be larger than the generator's ``size_multiple``.

    Raises:
        TypeError: a generator that gives no features, which the contrastive loss needs.
        ValueError: the same trained module in two places, or a number that is out of its range.
    """

    shared_draws = ("draw_flip", "draw_positions", "draw_shift")

    def __init__(
        self,
        *,
        generator: nn.Module,
        critics: Iterable[Critic],
        nce_weight: float = 1.0,
        nce_identity: bool = True,
        flip_equivariance: bool = False,
        layers: Sequence[int] | None = None,
        patches: int = 256,
        projector_width: int = 256,
        temperature: float = 0.07,
        content: ConsistencyLoss | None = None,
        content_weight: float = 0.0,
        identity: ConsistencyLoss | None = None,
        identity_weight: float = 0.0,
        grid_weight: float = 0.0,
        shift_weight: float = 0.0,
    ):
        super().__init__()
        if nce_weight and not (hasattr(generator, "features") and hasattr(generator, "feature_channels")):
            giving = ", ".join(["painter", *GENERATORS.names("resnet*")])
            raise TypeError(
                f"CUT compares features of its generator, and a {type(generator).__name__} gives none (it has no "
                f"methods features and feature_channels): take one that does, such as {giving}, or nce_weight=0 with a "
                "content loss"
            )
        for name, weight in {
            "nce_weight": nce_weight,
            "content_weight": content_weight,
            "identity_weight": identity_weight,
            "grid_weight": grid_weight,
            "shift_weight": shift_weight,
        }.items():
            check_weight(name, weight)
        check_weight("temperature", temperature, above_zero=True)
        check_counts(patches=patches, projector_width=projector_width)
        self.generator: Any = generator
        self.critics = Critics(critics)
        self.layers, self.projector = (), None
        if nce_weight:
            self.layers = tuple(self.generator.nce_layers if layers is None else layers)
            if hasattr(generator, "prepare_features") and trained_parameters(generator):
                self.generator.prepare_features(self.layers)  # which a frozen one stays without
            self.projector = PatchProjector(self.generator.feature_channels(self.layers), width=projector_width)
        self.content, self.content_weight = content, content_weight
        self.identity, self.identity_weight = identity, identity_weight
        self.grid_weight, self.shift_weight = grid_weight, shift_weight
        self.nce_weight, self.nce_identity, self.flip_equivariance = nce_weight, nce_identity, flip_equivariance
        self.patches, self.temperature = patches, temperature
        refuse_shared(self.parts())

    @property
    def discriminator(self) -> nn.Module:
        """The discriminator of the target domain; the list of them if there are several (see ``critics``)."""
        return self.critics.discriminator

    @property
    def translates_targets(self) -> bool:
        """Whether a loss needs the translations of target images."""
        return bool(self.nce_weight and self.nce_identity) or bool(self.identity is not None and self.identity_weight)

    def forward(self, images: Tensor) -> Tensor:
        """Translate images of the source domain."""
        return self.generator(images)

    def draw_flip(self, images: Tensor) -> Tensor:
        """Whether this step's images are mirrored, a boolean scalar on their device."""
        return torch.rand((), device=images.device) < 0.5

    def draw_shift(self, images: Tensor) -> Tensor:
        """Rows and columns by which this step's images are shifted, below ``size_multiple``: int64 [2]."""
        return torch.randint(0, size_limits(self.generator)[0], (2,), device=images.device)

    def draw_positions(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Random positions of the patches that are compared, for each layer."""
        return draw_positions(features, patches=self.patches)

    def networks(self) -> dict[str, dict[str, nn.Module]]:
        """The trained networks: ``generators``, ``discriminators``, ``projectors``."""
        return {
            "generators": self.stages(),
            "discriminators": self.critics.discriminators(),
            "projectors": self.projectors(),
        }

    def projectors(self) -> dict[str, nn.Module]:
        """The projector of patches, if the contrastive loss is used."""
        return {} if self.projector is None else {"projector": self.projector}

    def stages(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def parts(self) -> dict[str, object]:
        """Every part by name."""
        losses = {name: getattr(self, name) for name in ("content", "identity") if getattr(self, name) is not None}
        return self.stages() | self.critics.parts() | self.projectors() | losses

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
        """See :func:`ganparts.train_step`; ``side_stream`` has no effect, since the discriminators come first.

        Returns:
            ``gan`` (the generator's adversarial loss), ``nce``, ``nce_identity`` (if that term is used; each counts
            half then), ``content``, ``identity`` and ``shift`` if there are such losses, ``disc`` (the mean of the real
            and the fake term), and ``penalty`` where one is due. Of several critics there is the sum, and each one:
            ``disc``, ``disc_0``, ``disc_1``.
        """
        return train_cut(self, batch, optimizers, step=step, low_memory=low_memory)


def build_cut(
    preset: str | CUTPreset = "cut",
    *,
    generator: Any = UNSET,
    discriminator: Any = UNSET,
    adversarial: Any = UNSET,
    replay: Any = UNSET,
    augment: Any = UNSET,
    penalty: Any = UNSET,
    penalty_every: int = UNSET,
    nce_weight: float = UNSET,
    nce_identity: bool = UNSET,
    flip_equivariance: bool = UNSET,
    layers: Sequence[int] | None = UNSET,
    patches: int = UNSET,
    projector_width: int = UNSET,
    temperature: float = UNSET,
    content: Any = UNSET,
    content_weight: float = UNSET,
    identity: Any = UNSET,
    identity_weight: float = UNSET,
    grid_weight: float = UNSET,
    shift_weight: float = UNSET,
) -> CUT:
    """Assemble a :class:`CUT` from a preset, with any part or number chosen anew.

    A part is a registered name, a builder without arguments, or a ready module. A list of discriminators makes
    several critics; what belongs to a discriminator may be a list of the same length.

    Args:
        preset: ``"cut"``, ``"fastcut"``, ``"monet_one_sided"``, ``"monet_contrast"``, ``"restyle"``, or a
            :class:`CUTPreset`.
        generator: a name in ``GENERATORS``, a builder or a module; it must give features, as the ResNets do.
        discriminator: likewise of ``DISCRIMINATORS``, or a list.
        adversarial: likewise of ``ADVERSARIAL_LOSSES``, or a list.
        replay: likewise of ``REPLAY_BUFFERS``, or a list.
        augment: a name in ``AUGMENTATIONS``, a builder (a class, or a function without arguments), a function of
            images, None, or a list of these.
        penalty: a name in ``PENALTIES``, a builder, a penalty or None, or a list of these.
        penalty_every: steps between two penalties.
        nce_weight: as for :class:`CUT`, like all that follow.
        nce_identity: whether the identity term is used.
        flip_equivariance: whether the source is mirrored at random.
        layers: whose features are compared.
        patches: to compare in each layer.
        projector_width: channels of the projected patches.
        temperature: similarities are divided by it.
        content: a name in ``CONSISTENCY_LOSSES``, a builder or a module; or None, for none.
        content_weight: factor on that loss; 0 leaves it out.
        identity: likewise.
        identity_weight: factor on that loss.
        grid_weight: as for :class:`CUT`, like the next.
        shift_weight: factor on that loss.

    Raises:
        UnknownPartError: a name that is not registered; it is a KeyError.
        TypeError: a part of the wrong kind, or a preset of another method.
        ValueError: the same trained module in two places.
    """
    losses = {
        "content": content,
        "content_weight": content_weight,
        "identity": identity,
        "identity_weight": identity_weight,
    }
    losses = {name: value for name, value in losses.items() if value is not UNSET}
    chosen = overridden(
        preset_named(preset, CUTPreset, "build_cut"),
        generator=generator,
        discriminator=discriminator,
        adversarial=adversarial,
        replay=replay,
        augment=augment,
        penalty=penalty,
        penalty_every=penalty_every,
        nce_weight=nce_weight,
        nce_identity=nce_identity,
        flip_equivariance=flip_equivariance,
        layers=layers,
        patches=patches,
        projector_width=projector_width,
        temperature=temperature,
        grid_weight=grid_weight,
        shift_weight=shift_weight,
        **losses,
        **left_out(losses),
    )
    for name in ("content", "identity"):
        loss, weight = getattr(chosen, name), getattr(chosen, f"{name}_weight")
        if loss is None and weight:
            raise ValueError(f"{name}_weight={weight}, but there is no such loss: give {name}, as in {name}='l1'")
        if loss is not None and not weight:
            raise ValueError(
                f"the {name} loss has the weight 0: give {name}_weight, or leave the loss out ({name}=None; "
                f"--{name} none)"
            )
    return CUT(
        generator=build_part("generator", chosen.generator, GENERATORS),
        critics=build_critics(
            "",
            discriminator=chosen.discriminator,
            adversarial=chosen.adversarial,
            replay=chosen.replay,
            augment=chosen.augment,
            penalty=chosen.penalty,
            penalty_every=chosen.penalty_every,
        ),
        nce_weight=chosen.nce_weight,
        nce_identity=chosen.nce_identity,
        flip_equivariance=chosen.flip_equivariance,
        layers=chosen.layers,
        patches=chosen.patches,
        projector_width=chosen.projector_width,
        temperature=chosen.temperature,
        content=_built("content", chosen.content),
        content_weight=chosen.content_weight,
        identity=_built("identity", chosen.identity),
        identity_weight=chosen.identity_weight,
        grid_weight=chosen.grid_weight,
        shift_weight=chosen.shift_weight,
    )


def _built(argument: str, choice: Any) -> ConsistencyLoss | None:
    return None if choice is None else build_part(argument, choice, CONSISTENCY_LOSSES)
