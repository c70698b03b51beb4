"""Replay buffers: discriminators also see images that the generator made earlier.

History: Shrivastava et al. 2017, arXiv 1612.07828; with 50 images, as CycleGAN has it (arXiv 1703.10593). Queue: images
of a fixed age.

No buffer stores an image that has a value which is not finite: it would spoil a later step. Such an image is returned,
so that the step that made it shows it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganparts.blocks.saved import adopt_saved
from ganparts.registry import REPLAY_BUFFERS

__all__ = ["HistoryBuffer", "QueueBuffer", "history", "none", "queue"]


class _StoredImages(nn.Module):
    """Images that a buffer stores, and how many it has stored: allocated at first use, saved and loaded.

    Args:
        size: images to keep, at least 1.
        kind: what errors call the buffer.
    """

    images: Tensor | None
    count: Tensor

    def __init__(self, size: int, kind: str):
        super().__init__()
        if size < 1:
            raise ValueError(f"size={size}: a {kind} holds at least 1 image; for no {kind} take 'none'")
        self.size, self.kind = size, kind
        self.register_buffer("images", None)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def _storage(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The stored images, allocated if there are none yet, and the new ones in their type."""
        if self.images is None:
            self.images = images.new_zeros((self.size, *images.shape[1:]))
            self.count = self.count.to(images.device)
        if self.images.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"this {self.kind} holds images of shape {tuple(self.images.shape[1:])}, but was given "
                f"{tuple(images.shape[1:])}: use a new one for another size"
            )
        return self.images, images.to(self.images.dtype)

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        adopt_saved(self, "images", state_dict, prefix, device=self.count.device)
        if self.images is not None:
            self.size = len(self.images)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class HistoryBuffer(_StoredImages):
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

    def __init__(self, size: int = 50):
        super().__init__(size, "history")

    def draw(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """For each image of a batch: whether to swap it once full [B] bool, and with which place [B] int64."""
        return torch.rand(batch, device=device) < 0.5, torch.randint(self.size, (batch,), device=device)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        history, new = self._storage(images)
        sound = new.isfinite().flatten(1).all(1)
        swaps, places = self.draw(len(images), images.device)
        returned = []
        each = (values.split(1) for values in (images, new, sound, swaps, places))
        for image, candidate, finite, swap, place in zip(*each, strict=True):
            full = self.count >= self.size
            place = torch.where(full, place, self.count)
            stored = history.index_select(0, place)
            swap = swap & full & finite
            returned.append(torch.where(swap, stored.to(image.dtype), image))
            fill = ~full & finite
            history.index_copy_(0, place, torch.where(swap | fill, candidate, stored))
            self.count.add_(fill.squeeze(0))
        return torch.cat(returned)


class QueueBuffer(_StoredImages):
    """Keeps the last images, first in, first out: [B, C, H, W] to [B, C, H, W], without gradient.

    Until it is full it stores each image and returns it. Then for each image, in order, it returns the oldest one and
    puts the new one in its place: what comes out was made ``size`` images earlier. It draws no random numbers. Memory
    and ``state_dict`` are as in :class:`HistoryBuffer`.

    Args:
        size: images to keep, at least 1.

    Raises:
        ValueError: ``size`` below 1; in ``forward``, images of another shape than those stored.
    """

    def __init__(self, size: int = 50):
        super().__init__(size, "queue")

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        queue, new = self._storage(images)
        sound = new.isfinite().flatten(1).all(1)
        returned = []
        for image, candidate, finite in zip(images.split(1), new.split(1), sound.split(1), strict=True):
            place = (self.count % self.size).view(1)
            stored = queue.index_select(0, place)
            returned.append(torch.where(finite & (self.count >= self.size), stored.to(image.dtype), image))
            queue.index_copy_(0, place, torch.where(finite, candidate, stored))
            self.count.add_(finite.squeeze(0))
        return torch.cat(returned)


@REPLAY_BUFFERS.register("history")
def history(*, size: int = 50) -> HistoryBuffer:
    """The last images made, 50 by default, drawn from with probability 1/2.

    For steadiness: the discriminator does not forget what the generator used to do.
    """
    return HistoryBuffer(size)


@REPLAY_BUFFERS.register("none")
def none() -> nn.Identity:
    """No memory: the discriminator sees what the generator just made.

    The choice of most newer methods, CUT among them.
    """
    return nn.Identity()


@REPLAY_BUFFERS.register("queue")
def queue(*, size: int = 50) -> QueueBuffer:
    """First in, first out: each image is seen once, ``size`` images after it was made.

    For discriminators that should lag behind by a fixed number of images.
    """
    return QueueBuffer(size)
