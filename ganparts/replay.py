"""Replay buffers: discriminators also see images that the generator made earlier.

Shrivastava et al. 2017, arXiv 1612.07828; with 50 images, as CycleGAN has it (arXiv 1703.10593).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganparts.registry import REPLAY_BUFFERS

__all__ = ["HistoryBuffer", "history", "none"]


class HistoryBuffer(nn.Module):
    """Keeps images and swaps them with new ones: [B, C, H, W] to [B, C, H, W], without gradient.

    Until it is full it stores each image and returns it. Then for each image, in order, with probability 1/2 it
    returns a random stored image and puts the new one in its place; else it returns the new one and stores nothing.

    It is allocated at first use, on the images' device, and works by tensor operations alone: nothing is asked of the
    device, and a step that holds it can be captured in a CUDA graph. Its images are part of ``state_dict``; loading
    takes over the saved shape.

    Args:
        size: images to keep, at least 1.

    Raises:
        ValueError: ``size`` below 1; in ``forward``, images of another shape than those stored.
    """

    images: Tensor | None
    count: Tensor

    def __init__(self, size: int = 50):
        super().__init__()
        if size < 1:
            raise ValueError(f"size={size}: a history holds at least 1 image; for no history take 'none'")
        self.size = size
        self.register_buffer("images", None)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def draw(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each image of a batch: whether to swap it once full [B] bool, and with which place [B] int64."""
        return torch.rand(batch, device=device) < 0.5, torch.randint(self.size, (batch,), device=device)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        history = self._allocated(images)
        swaps, places = self.draw(len(images), images.device)
        returned = []
        for image, swap, place in zip(images.split(1), swaps.split(1), places.split(1), strict=True):
            full = self.count >= self.size
            place = torch.where(full, place, self.count)
            stored = history.index_select(0, place)
            swap = swap & full
            returned.append(torch.where(swap, stored.to(image.dtype), image))
            history.index_copy_(0, place, torch.where(swap | ~full, image.to(stored.dtype), stored))
            self.count.add_(~full)
        return torch.cat(returned)

    def _allocated(self, images: Tensor) -> Tensor:
        if self.images is None:
            self.images = images.new_zeros((self.size, *images.shape[1:]))
            self.count = self.count.to(images.device)
        if self.images.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"this history holds images of shape {tuple(self.images.shape[1:])}, but was given "
                f"{tuple(images.shape[1:])}: use a new one for another size"
            )
        return self.images

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        saved = state_dict.get(prefix + "images")
        if saved is not None and (self.images is None or self.images.shape != saved.shape):
            self.size, self.images = len(saved), torch.empty_like(saved, device=self.count.device)
        elif saved is None and self.images is not None:  # of a history not used yet; kept for captured graphs
            state_dict[prefix + "images"] = torch.zeros_like(self.images)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"size={self.size}"


@REPLAY_BUFFERS.register("history")
def history(*, size: int = 50) -> HistoryBuffer:
    """The last images made, 50 by default, drawn from with probability 1/2."""
    return HistoryBuffer(size)


@REPLAY_BUFFERS.register("none")
def none() -> nn.Identity:
    """No memory: the discriminator sees what the generator just made."""
    return nn.Identity()
