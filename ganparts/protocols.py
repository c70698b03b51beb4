"""What each kind of part must do, as structural types, and the pair of image batches that they are trained on.

A part conforms by having these methods; nothing needs to inherit from anything here. The networks'
protocols name ``forward`` because ``torch.nn.Module.__call__`` is typed ``Any`` and would accept every
module, and ``parameters`` because a network must be a module.

Everywhere an image is a float tensor [B, C, H, W] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

__all__ = ["AdversarialLoss", "Augment", "ConsistencyLoss", "Discriminator", "Generator", "Pair", "ReplayBuffer"]

Augment = Callable[[Tensor], Tensor]
"""Acts on images [B, C, H, W] before a discriminator sees them; differentiable, of the same shape."""


class Pair(NamedTuple):
    """Unpaired images of the two domains: ``a`` (photos) and ``b`` (paintings), each [B, C, H, W] in [-1, 1]."""

    a: Tensor
    b: Tensor


class Generator(Protocol):
    """A module that maps images [B, C, H, W] in [-1, 1] to images of the same height and width.

    It may have an integer attribute ``size_multiple`` (default 1): height and width must be multiples of it.
    """

    __call__: Callable[..., Any]

    def forward(self, images: Tensor, /) -> Tensor: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


class Discriminator(Protocol):
    """A module that maps images to logits [B, objectives, H', W'] (no sigmoid), or to a tuple of such maps,
    one a scale."""

    __call__: Callable[..., Any]

    def forward(self, images: Tensor, /) -> Tensor | tuple[Tensor, ...]: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


class AdversarialLoss(Protocol):
    """Losses of one map of logits [B, objectives, H', W'], each a scalar.

    Two optional members:

    - ``needs_real = True``: the generator's loss needs the real logits too (relativistic losses); without it
      they are not computed for it.
    - ``penalty(discriminator, real, fake) -> scalar``: added to the discriminator's loss; ``real`` and ``fake``
      are detached images.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor: ...

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor: ...


class ConsistencyLoss(Protocol):
    """A module that maps two image batches of one shape (prediction, target) to a scalar."""

    __call__: Callable[..., Any]

    def forward(self, prediction: Tensor, target: Tensor, /) -> Tensor: ...


class ReplayBuffer(Protocol):
    """A module that stores generated images and returns as many: those given, or older ones."""

    __call__: Callable[..., Any]

    def forward(self, images: Tensor, /) -> Tensor: ...
