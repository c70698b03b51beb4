"""Random pairs of photos and paintings, as a pure function of a seed and a position.

So the number of workers does not matter, and a run that resumes at pair n sees the same pairs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganparts.data.errors import naming
from ganparts.data.framing import Framing
from ganparts.data.images import Images
from ganparts.data.loading import decode_ahead, estimate_bytes
from ganparts.data.order import Lanes, shuffled
from ganparts.data.shards import shards_of
from ganparts.data.skipping import located
from ganparts.distributed import processes

__all__ = ["PairDataset", "shuffled"]


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs, by position: item i is (photo, painting), each uint8 [3, crop, crop].

    An epoch has as many pairs as the larger domain has images. Each image of the first domain comes equally often, in
    random order. Images of the second are drawn at random, as in the reference implementation of CycleGAN. Positions
    go on beyond an epoch.

    A domain in shards (see :func:`open_images`), first or second, has an order of its own, in which each image comes
    equally often. It depends on ``batch_size`` and on the number of processes that train together, so that worker
    processes read different blocks of the shards.

    Args:
        a: images of domain a: :class:`Images`, a sequence of decoded ones, uint8 [3, H, W], or one tensor of them.
        b: images of domain b, in the same forms.
        seed: decides order, pairing, crops and flips.
        batch_size: pairs in a batch of one process; only the order of images in shards depends on it.
        resize: length in pixels that the shorter side is resized to first (bicubic). None keeps the size; only images
            smaller than the crop are enlarged to it.
        crop: side of the square that is then cut out at random.
        flip: mirror the square with probability 1/2.
        squash: resize both sides to ``resize``, as the reference implementation does, which distorts images that are
            not square.

    Raises:
        ValueError: ``crop`` is larger than ``resize``, or ``squash`` is given without ``resize``.
        UnreadableImageError: an image of the pair asked for cannot be read, and such images are not skipped.
        DataError: an image is so narrow that it would be enormous once resized.
    """

    def __init__(
        self,
        a: Sequence[Tensor] | Tensor,
        b: Sequence[Tensor] | Tensor,
        *,
        seed: int = 0,
        batch_size: int = 1,
        resize: int | None = 286,
        crop: int = 256,
        flip: bool = True,
        squash: bool = False,
    ):
        self.a, self.b, self.seed, self.batch_size = a, b, seed, batch_size
        self.framing = Framing(resize, crop, flip, squash)
        self._lanes = tuple(
            Lanes(source.blocks, key=f"{seed} {letter}", chunk=batch_size, processes=processes())
            if (source := shards_of(images)) is not None
            else None
            for images, letter in ((a, "a"), (b, "b"))
        )

    def __len__(self) -> int:
        """Pairs in an epoch."""
        return max(len(self.a), len(self.b))

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        draws = random.Random(f"{self.seed} {position}")
        lanes_a, lanes_b = self._lanes
        if lanes_a is None:
            epoch, place = divmod(position, len(self))
            index_a = shuffled(self.seed, epoch, len(self))[place] % len(self.a)
        else:
            index_a = lanes_a[position]
        index_b = draws.randrange(len(self.b)) if lanes_b is None else lanes_b[position]
        return self._frame(self.a, index_a, draws), self._frame(self.b, index_b, draws)

    def _frame(self, images: Sequence[Tensor] | Tensor, index: int, draws: random.Random) -> Tensor:
        image = _fitted(images, index, self.framing)
        return self.framing.cut(image, self.framing.draw(image, draws))

    @property
    def is_held(self) -> bool:
        """Whether the images are decoded already."""
        return all(isinstance(images, Tensor | list) for images in (self.a, self.b))

    @property
    def nbytes(self) -> int:
        """Estimated bytes of all images once decoded and resized; exact if they are held."""
        return sum(
            estimate_bytes(images.entries, self.framing.fitted_size)
            if isinstance(images, Images)
            else sum(image.nbytes for image in images)
            for images in (self.a, self.b)
        )

    def on_device(self, device: torch.device | str, *, workers: int = 0) -> PairDataset:
        """The same pairs, bit for bit, with all images decoded and resized once and kept on a device.

        A domain whose resized images have one size becomes one tensor, else a list of tensors.

        Args:
            device: where the images stay, as bytes.
            workers: processes that decode.

        Raises:
            DataError: an image cannot be read, and the data set does not skip such images.
        """
        images = decode_ahead(_Fitted(self.a, self.b, self.framing), workers=workers)
        a, b = (_hold(images, count, device) for count in (len(self.a), len(self.b)))
        held = PairDataset(a, b, seed=self.seed, batch_size=self.batch_size, **vars(self.framing))
        held._lanes = self._lanes
        return held


class _Fitted:
    """The resized images of domain a, then those of domain b."""

    def __init__(self, a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor, framing: Framing):
        self.a, self.b, self.framing = a, b, framing

    def __len__(self) -> int:
        return len(self.a) + len(self.b)

    def __getitem__(self, index: int) -> Tensor:
        images, index = (self.a, index) if index < len(self.a) else (self.b, index - len(self.a))
        return _fitted(images, index, self.framing)


def _fitted(images: Sequence[Tensor] | Tensor, index: int, framing: Framing) -> Tensor:
    entry, image = located(images, index)
    with naming(entry):
        return framing.fit(image)


def _hold(images: Iterable[Tensor], count: int, device: torch.device | str) -> Tensor | list[Tensor]:
    """The next ``count`` images on a device: [N, 3, H, W] if they have one size, else a list."""
    held: Tensor | list[Tensor] = []
    for index, image in zip(range(count), images):  # noqa: B905  the images go on
        if index == 0:
            held = torch.empty(count, *image.shape, dtype=torch.uint8, device=device)
        if isinstance(held, Tensor):
            if image.shape == held.shape[1:]:
                held[index] = image
                continue
            held = [row.clone() for row in held[:index]]
        held.append(image.to(device))
    return held
