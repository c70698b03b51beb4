"""Checked by pyright, not run: tables accept parts that conform, and reject, at the decorator, those that do not.

Each ``pyright: ignore`` marks a line that must be rejected; one that was accepted is reported as unnecessary.
"""

from __future__ import annotations

from torch import Tensor, nn

from ganparts import ADVERSARIAL_LOSSES, DISCRIMINATORS, GENERATORS, PENALTIES, REPLAY_BUFFERS, CycleGAN
from ganparts.adversarial import Assembly
from ganparts.generators import AntialiasedResNetGenerator, ResNetGenerator, UNetGenerator
from ganparts.protocols import FeatureGenerator


class Good(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class TakesTwo(nn.Module):
    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return images + labels


class GivesText(nn.Module):
    def forward(self, images: Tensor) -> str:
        return str(images)


class NoModule:
    def forward(self, images: Tensor) -> Tensor:
        return images


class HalfALoss:
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return real - fake


class WholeLoss(HalfALoss):
    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return fake


class WholePenalty:
    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor, /) -> Tensor:
        return self.weight * discriminator(real).mean()


GENERATORS.register("class")(Good)
DISCRIMINATORS.register("class")(Good)
REPLAY_BUFFERS.register("class")(Good)
ADVERSARIAL_LOSSES.register("class")(WholeLoss)


@GENERATORS.register("function")
def function(*, width: int = 64) -> nn.Module:
    return nn.Conv2d(3, width, 1)


width_is_still_checked = function(width="wide")  # pyright: ignore[reportArgumentType]

GENERATORS.register("takes_two")(TakesTwo)  # pyright: ignore[reportArgumentType]
GENERATORS.register("gives_text")(GivesText)  # pyright: ignore[reportArgumentType]
GENERATORS.register("no_module")(NoModule)  # pyright: ignore[reportArgumentType]
DISCRIMINATORS.register("gives_text")(GivesText)  # pyright: ignore[reportArgumentType]
ADVERSARIAL_LOSSES.register("half")(HalfALoss)  # pyright: ignore[reportArgumentType]
ADVERSARIAL_LOSSES.register("module")(Good)  # pyright: ignore[reportArgumentType]


@GENERATORS.register("number")  # pyright: ignore[reportArgumentType]
def number() -> int:
    return 1


plain: FeatureGenerator = ResNetGenerator()
antialiased: FeatureGenerator = AntialiasedResNetGenerator()
unet: FeatureGenerator = UNetGenerator()  # pyright: ignore[reportAssignmentType]


@PENALTIES.register("penalty")
def penalty(*, weight: float = 1.0) -> WholePenalty:
    return WholePenalty(weight)


PENALTIES.register("no_function")(NoModule)  # pyright: ignore[reportArgumentType]


def an_assembly(model: CycleGAN, part: Good) -> Assembly:
    an_assembly(model, part).networks()
    accepted: Assembly = model
    refused: Assembly = part  # pyright: ignore[reportAssignmentType]
    return accepted if part else refused
