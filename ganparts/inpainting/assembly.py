"""Inpainting as an assembly: one generator, which fills holes in the images of both domains, and no discriminator.

UVCGAN and UVCGAN2 (Torbunov et al., arXiv 2203.02557 and 2303.16280) train a generator so before it starts as both
generators of a CycleGAN.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.adversarial import (
    UNSET,
    Optimizers,
    build_part,
    consistency_loss,
    constrain,
    overridden,
    preset_named,
    trained_parameters,
)
from ganparts.blocks import check_sizes
from ganparts.inpainting.holes import Distortion, Holes
from ganparts.inpainting.presets import InpaintingPreset
from ganparts.protocols import ConsistencyLoss, Pair
from ganparts.registry import CONSISTENCY_LOSSES, GENERATORS

__all__ = ["Inpainting", "build_inpainting"]


class Inpainting(nn.Module):
    """A generator that learns to fill holes.

    Args:
        generator: from images with holes to whole ones.
        loss: compares both over the whole image.
        holes: makes the holes.
        distortion: changes the images first; None for nothing.

    Raises:
        TypeError: a generator that is not a module.
    """

    def __init__(
        self,
        *,
        generator: nn.Module,
        loss: ConsistencyLoss,
        holes: Holes = Holes(),  # noqa: B008 (frozen)
        distortion: Distortion | None = None,
    ):
        super().__init__()
        if not isinstance(generator, nn.Module):
            raise TypeError(f"generator must be a torch.nn.Module, but is {generator!r}")
        self.generator, self.loss, self.holes, self.distortion = generator, loss, holes, distortion

    def forward(self, images: Tensor) -> Tensor:
        """Fill the holes of images."""
        return self.generator(images)

    def networks(self) -> dict[str, dict[str, nn.Module]]:
        """The generator."""
        return {"generators": self.stages()}

    def stages(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def parts(self) -> dict[str, object]:
        """Every part by name."""
        return {**self.stages(), "loss": self.loss, "holes": self.holes, "distortion": self.distortion}

    def phase(self, step: int) -> Hashable:
        """All steps are of one kind."""
        return None

    def train_step(
        self,
        batch: Pair,
        optimizers: Optimizers,
        *,
        step: int | None = None,
        low_memory: bool = False,
        side_stream: torch.cuda.Stream | None = None,
    ) -> dict[str, Tensor]:
        """See :func:`ganparts.train_step`. The images of both domains go through together.

        ``low_memory`` passes the domains through one after the other. There is no discriminator, so ``side_stream`` has
        no effect.

        Returns:
            ``inpainting``.
        """
        optimizers.zero_grad()
        parameters = trained_parameters(self.generator)
        check_sizes(*batch)
        whole = torch.cat(list(batch))
        if self.distortion is not None:
            whole = self.distortion(whole)
        parts = [len(images) for images in batch] if low_memory else [len(whole)]
        losses = []
        for holed, target in zip(self.holes(whole).split(parts), whole.split(parts), strict=True):
            loss = consistency_loss(self.loss, self.generator(holed), target) * (len(target) / len(whole))
            optimizers.backward(loss, parameters)
            losses.append(loss.detach())
            del loss  # and its graph, before the next
        optimizers.step()
        constrain([self.generator])
        return {"inpainting": torch.stack(losses).sum()}


def build_inpainting(
    preset: str | InpaintingPreset = "inpainting",
    *,
    generator: Any = UNSET,
    loss: Any = UNSET,
    holes: Holes = UNSET,
    distortion: Distortion | None = UNSET,
) -> Inpainting:
    """Assemble an :class:`Inpainting` from a preset, with any part chosen anew.

    Args:
        preset: ``"inpainting"``, or an :class:`~ganparts.inpainting.InpaintingPreset`.
        generator: a name in ``GENERATORS``, a builder without arguments, or a module.
        loss: likewise of ``CONSISTENCY_LOSSES``.
        holes: makes the holes.
        distortion: changes the images first; None for nothing.

    Raises:
        UnknownPartError: a name that is not registered; it is a KeyError.
        TypeError: a part of the wrong kind, or a preset of another method.
    """
    chosen = overridden(
        preset_named(preset, InpaintingPreset, "build_inpainting"),
        generator=generator,
        loss=loss,
        holes=holes,
        distortion=distortion,
    )
    return Inpainting(
        generator=build_part("generator", chosen.generator, GENERATORS),
        loss=build_part("loss", chosen.loss, CONSISTENCY_LOSSES),
        holes=chosen.holes,
        distortion=chosen.distortion,
    )
