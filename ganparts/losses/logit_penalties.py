"""Penalties on what a discriminator says: LeCam (Tseng et al. 2021, arXiv 2104.03310) and balanced consistency
regularisation (bCR, Zhao et al. 2020, arXiv 2002.04724).

They help where real images are few. Each is called as ``penalty(discriminator, real, fake)`` and runs the discriminator
itself, in the precision around it; the penalty is computed in at least fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import check_weight, one_of
from ganparts.blocks.places import take_places
from ganparts.blocks.saved import adopt_saved
from ganparts.losses.penalties import logit_maps
from ganparts.registry import PENALTIES

__all__ = ["BalancedConsistency", "LeCam", "Moves", "balanced_consistency", "lecam"]


class LeCam(nn.Module):
    """weight * (mean relu(real - average fake)^2 + mean relu(average real - fake)^2), the mean over maps.

    The averages are exponential, over steps, of each map's and objective's mean logit. The current logits are averaged
    in first, so the first call compares real and fake logits of one batch. An observation with a value
    that is not finite is skipped. An objective with inverted labels (the second of ``two_objective``) is hardly
    touched: its real logits lie below.

    The averages are buffers, allocated at first use and changed in place, from then on only in training mode. Loading
    takes over the saved number of them.

    Args:
        weight: factor. Published: 0.3 for a hinge loss (BigGAN, CIFAR-10), 3e-7 (StyleGAN2, FFHQ).
        decay: of the averages, for each call.

    Raises:
        ValueError: ``decay`` not in [0, 1); when called, a discriminator with another number of objectives.
    """

    averages: Tensor | None
    started: Tensor

    def __init__(self, weight: float = 0.3, decay: float = 0.99):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} keeps no average: use a number from 0 to below 1, such as 0.99")
        check_weight("weight", weight)
        self.weight, self.decay = weight, decay
        self.register_buffer("averages", None)
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        reals, fakes = logit_maps(discriminator, real), logit_maps(discriminator, fake)
        self._observe(torch.stack([_objective_means(reals), _objective_means(fakes)]))
        assert self.averages is not None
        objectives = [_as_map(logits).shape[1] for logits in reals]
        terms = []
        for r, f, averages in zip(reals, fakes, self.averages.split(objectives, 1), strict=True):
            real_average, fake_average = averages[:, :, None, None]
            terms.append(
                F.relu(_as_map(r) - fake_average).square().mean() + F.relu(real_average - _as_map(f)).square().mean()
            )
        return self.weight * torch.stack(terms).mean()

    @torch.no_grad()
    def _observe(self, means: Tensor) -> None:
        """Average in the means [2 (real, fake), objectives of all maps]."""
        first = self.averages is None
        if self.averages is None:
            self.averages = torch.zeros_like(means)
            self.started = self.started.to(means.device)
        if self.averages.shape != means.shape:
            raise ValueError(
                f"this LeCam penalty averages {self.averages.shape[1]} objective(s), but the discriminator gives "
                f"{means.shape[1]}: use one penalty for each discriminator"
            )
        if not (first or self.training):
            return
        finite = means.isfinite().all()
        moved = torch.where(self.started, self.averages.lerp(means, 1 - self.decay), means)
        self.averages.copy_(torch.where(finite, moved, self.averages))
        self.started.logical_or_(finite)

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        adopt_saved(self, "averages", state_dict, prefix, device=self.started.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"weight={self.weight}, decay={self.decay}"


def _as_map(logits: Tensor) -> Tensor:
    """Logits [B], [B, objectives] or [B, objectives, H', W'] as the last."""
    return logits if logits.ndim == 4 else logits.reshape(len(logits), -1, 1, 1)


def _objective_means(maps: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([_as_map(logits).mean((0, 2, 3)) for logits in maps])


class Moves(NamedTuple):
    """Random numbers for B images, each [B] in [0, 1)."""

    flip: Tensor
    shift_y: Tensor
    shift_x: Tensor


@dataclass(frozen=True)
class BalancedConsistency:
    """weight * (MSE of D(real), D(moved real) + MSE of D(fake), D(moved fake)), the mean over maps.

    Moving mirrors an image with probability 1/2 and shifts it by up to ``translation`` of its height and width; what
    is missing is reflected. Only the discriminator is meant to be trained by it.

    Deviation: the paper's discriminators give one logit. Places of a map do not match after a move, so by default the
    mean logits of each image and objective are compared; for a single logit this is the same.

    Args:
        weight: factor.
        translation: the furthest shift, from 0 to below 1, as a fraction of the side.
        compare: ``"image"``: mean logits; ``"place"``: logit by logit.

    Raises:
        ValueError: ``translation`` or ``compare`` that is not possible.
    """

    weight: float = 10.0
    translation: float = 0.125
    compare: Literal["image", "place"] = "image"

    def __post_init__(self) -> None:
        if not 0 <= self.translation < 1:
            raise ValueError(f"translation={self.translation} is not a fraction of a side: use 0 to below 1")
        one_of("compare", self.compare, ("image", "place"))
        check_weight("weight", self.weight)

    def draw(self, images: Tensor) -> Moves:
        """Fresh random numbers for these images, from their device's generator."""
        return Moves(*torch.rand(3, len(images), device=images.device))

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return self.apply_draws(discriminator, real, fake, self.draw(real), self.draw(fake))

    def apply_draws(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor, real_moves: Moves, fake_moves: Moves
    ) -> Tensor:
        """The penalty as a function of images and random numbers."""
        terms = []
        for images, moves in ((real, real_moves), (fake, fake_moves)):
            still, moved = (logit_maps(discriminator, shown) for shown in (images, self.move(images, moves)))
            terms += map(F.mse_loss, map(self._compared, still), map(self._compared, moved))
        return 2 * self.weight * torch.stack(terms).mean()

    def move(self, images: Tensor, moves: Moves) -> Tensor:
        """Mirror and shift each image by its own draws; no gradient is needed through this."""
        for axis, draws in ((2, moves.shift_y), (3, moves.shift_x)):
            size = images.shape[axis]
            furthest = int(size * self.translation)
            shifts = (draws * (2 * furthest + 1)).long() - furthest
            places = (torch.arange(size, device=images.device) - shifts[:, None]).abs()
            places = size - 1 - (size - 1 - places).abs()
            if axis == 3:
                places = torch.where(moves.flip[:, None] < 0.5, size - 1 - places, places)
            images = take_places(images, axis, places)
        return images

    def _compared(self, logits: Tensor) -> Tensor:
        return logits if self.compare == "place" else _as_map(logits).mean((2, 3))


@PENALTIES.register("lecam")
def lecam(*, weight: float = 0.3, decay: float = 0.99) -> LeCam:
    """LeCam: logits stay near the running average of the other side's.

    For few images: it holds a discriminator back that becomes too sure. It costs next to nothing, since it needs no
    second backward pass.
    """
    return LeCam(weight, decay)


@PENALTIES.register("consistency")
def balanced_consistency(
    *, weight: float = 10.0, translation: float = 0.125, compare: Literal["image", "place"] = "image"
) -> BalancedConsistency:
    """bCR: a mirrored and shifted image gets the same logits.

    For few images: the discriminator may not learn where in a picture something was.
    """
    return BalancedConsistency(weight, translation, compare)
