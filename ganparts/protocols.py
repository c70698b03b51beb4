"""What each kind of part must do, as structural types, and the pair of image batches that they are trained on.

A part conforms by having these methods. Nothing needs to inherit from anything here. The networks' protocols name
``forward`` because ``torch.nn.Module.__call__`` is typed ``Any`` and would accept every module, and ``parameters``
because a network must be a module.

Everywhere an image is a float tensor [B, C, H, W] in [-1, 1].

A training step can be recorded once as a CUDA graph and replayed; Python code then runs only while it is recorded. So
a part that is used in training

- draws random numbers with ``torch``, on the device of its inputs (never with ``random``, NumPy or on the CPU);
- keeps its state in buffers, and changes them in place;
- never reads a value back from the device (``.item()``, ``if tensor:``).

Recording a step raises an error that names what breaks these rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

__all__ = [
    "AdversarialLoss",
    "Augment",
    "ConsistencyLoss",
    "Discriminator",
    "FeatureGenerator",
    "Generator",
    "Pair",
    "Penalty",
    "ReplayBuffer",
]

Augment = Callable[[Tensor], Tensor]
"""Changes images [B, C, H, W] before a discriminator sees them; differentiable, same shape."""


class Pair(NamedTuple):
    """Images of the two domains, each float [B, C, H, W] in [-1, 1]: ``a`` (the source) and ``b`` (the target)."""

    a: Tensor
    b: Tensor


class Generator(Protocol):
    """A module that maps images [B, C, H, W] in [-1, 1] to images of the same height and width.

    Optional attributes:

    - ``in_channels`` (int, default 3): the channels of the images that it takes.
    - ``size_multiple`` (int, default 1): height and width must be multiples of it.
    - ``min_size`` (int, default ``size_multiple``): the smallest height and width.
    - ``images_are_independent`` (bool, default False): True if, in training, no image of a batch influences another's
      output. Two batches then go through in one call. Batch norm and spectral norm make it False.
    - ``tileable`` (bool, default True): whether a large picture can go through in tiles with the same result
      (:func:`ganparts.translate.translate_tiled`). Attention over the whole picture makes it False.
    - ``exportable`` (bool, default True): whether :func:`ganparts.interchange.export_generator` can write it. Weights
      that are made for one size of image make it False.

    Optional methods:

    - ``constrain()``: training calls it after each step of the generator's optimizer. It changes weights in place, to
      bring them back into the range that they must have.
    - ``forward_with_attention(images)``: the image that ``forward`` returns, and logits [B, ...] that say whether the
      images are of the source domain, then anything else. U-GAT-IT's attention loss needs it
      (:mod:`ganparts.cyclegan.attention`).
    """

    __call__: Callable[..., Any]

    def forward(self, images: Tensor, /) -> Tensor: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


class FeatureGenerator(Generator, Protocol):
    """A generator that also gives what its layers compute, for losses between features (PatchNCE, for example).

    Layers have numbers from 0 on; the input of layer 0 is the image. A feature is a layer's output [B, C, H', W'].
    Nothing that runs later changes it, and gradients flow through it.

    Optional method: ``prepare_features(layers)``. Call it once, before the optimizers are made, if training uses the
    features of these layers. It makes parameters trainable that matter to the features but not to the output, such
    as the bias of a convolution before an instance norm.
    """

    @property
    def nce_layers(self) -> tuple[int, ...]:
        """The layers that a contrastive loss compares unless it is told otherwise."""
        ...

    def features(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The outputs of these layers, one for each number given. No layer after the last of them is computed."""
        ...

    def forward_with_features(self, images: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """``forward`` and ``features`` in one pass."""
        ...

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """The number of channels of each of these features, without computing any."""
        ...


class Discriminator(Protocol):
    """A module that maps images to logits [B, objectives, H', W'] (no sigmoid), or to a tuple of such maps, one per
    scale, finest first.

    Optional attributes:

    - ``images_are_independent``, ``size_multiple`` and ``min_size``: as for a generator.
    - ``size`` (int): the only height and width that it takes. Without it there may be others.
    - ``has_queues`` (bool, default False): whether it remembers images that it was shown, and judges others beside
      them: ``forward(images, queue="real", push=True)``. ``queue`` is ``"real"``, ``"fake"`` or None; ``push`` adds the
      images to that queue after they are judged. For images between real and generated ones,
      ``forward(images, queue="mixed", alpha=alpha)`` judges them beside alpha * real + (1 - alpha) * fake of the
      queues.
    """

    __call__: Callable[..., Any]

    def forward(self, images: Tensor, /) -> Tensor | tuple[Tensor, ...]: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


class AdversarialLoss(Protocol):
    """Two losses of a map of logits [B, objectives, H', W'], each a scalar.

    Optional attribute: ``needs_real = True`` if the generator's loss also needs the real logits (relativistic losses).
    Without it they are not computed for the generator.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor: ...

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor: ...


class ConsistencyLoss(Protocol):
    """A module that maps two image batches of one shape (prediction, target) to a scalar."""

    __call__: Callable[..., Any]

    def forward(self, prediction: Tensor, target: Tensor, /) -> Tensor: ...


class Penalty(Protocol):
    """A term that is added to a discriminator's loss: ``penalty(discriminator, real, fake)`` is a scalar.

    ``real`` and ``fake`` are detached images [B, C, H, W]. The penalty's own weight is part of it.
    """

    def __call__(self, discriminator: nn.Module, real: Tensor, fake: Tensor, /) -> Tensor: ...


class ReplayBuffer(Protocol):
    """A module that stores generated images and returns as many: those given, or older ones."""

    __call__: Callable[..., Any]

    def forward(self, images: Tensor, /) -> Tensor: ...
