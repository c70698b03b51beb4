"""A frozen feature network that many parts share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ganparts.backbones.weights import is_planning
from ganparts.precision import has_depthwise, without_autocast
from ganparts.registry import BACKBONES

__all__ = ["Backbone", "create_backbone", "share_backbone"]


class Backbone(nn.Module):
    """Features of images by a network that is never trained.

    Unlike an ordinary module it is shared, not owned, by the parts that hold it:

    - it is always in ``eval()`` mode, and its weights need no gradient (the images may);
    - its weights appear neither in ``parameters()`` nor in ``state_dict()`` of a part that holds it;
    - ``copy.deepcopy`` gives the same object;
    - it computes where its images are. A copy of the weights is made for each device, once: when a part that holds
      it moves there, or else at the first call. So two models on two devices can share it;
    - it computes in float32, for float64 images in float64, under autocast as that says, except that a network with
      depthwise convolutions stays in float32 on a CPU, where they are slower in bf16. Features of half-precision
      images have the type of the images.

    Args:
        network: maps normalised images to a tuple of feature maps, finest first. It may have ``pooled``, which maps
            them to a matrix [B, D]; without it, the last feature map is averaged over its places.
        channels: of each feature map.
        strides: pixels of the image per place of each feature map.
        mean: of each colour of the images that the network was trained on, in [-1, 1].
        std: likewise.
        input_size: height and width, in pixels, of the images that the network was trained on; it takes others.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        input_size: int = 224,
    ):
        super().__init__()
        self.channels, self.strides = tuple(channels), tuple(strides)
        self.mean, self.std = tuple(mean), tuple(std)
        self.input_size = input_size
        planning = is_planning()
        with torch.inference_mode(False):
            frozen = _Frozen(network, self.mean, self.std).eval().requires_grad_(False)
            if not planning:
                frozen = frozen.to(memory_format=torch.channels_last)
        # In containers, so that PyTorch does not register them as children.
        self._original = (frozen,)
        self._copies: dict[tuple[torch.device, torch.dtype], _Frozen] = {}
        self._planned: tuple[Any, _Frozen] | None = None
        self._place = None if planning else torch.empty(0, device="cpu")
        super().train(False)

    @property
    def network(self) -> nn.Module:
        """The network with its original weights, where it was built."""
        return self._original[0].network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps [B, channels, H', W'] of images [B, 3, H, W] in [-1, 1], finest first.

        Raises:
            ValueError: the images have another shape or type.
        """
        features = self._at(images)(_accepted(images))
        return tuple(_in_type_of(images, feature) for feature in features)

    def pooled(self, images: Tensor) -> Tensor:
        """Features [B, D] of whole images [B, 3, H, W] in [-1, 1], as metrics compare them.

        Raises:
            ValueError: the images have another shape or type.
        """
        return _in_type_of(images, self._at(images).pooled(_accepted(images)))

    def train(self, mode: bool = True) -> Backbone:
        """Has no effect: it stays in ``eval()`` mode."""
        return self

    def extra_repr(self) -> str:
        return f"channels={list(self.channels)}, strides={list(self.strides)}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        """``to()``, ``cuda()`` and their like: have the weights ready at the new place; none is taken away."""
        if self._place is not None and not is_planning():
            place = fn(self._place)
            if not place.is_meta:
                self._place = place
                self._at(place)
        return self

    def _at(self, images: Tensor) -> _Frozen:
        """The network with weights on the images' device, of the type that it computes in."""
        original = self._original[0]
        dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
        if (mode := getattr(images, "fake_mode", None)) is not None:
            return self._without_data(mode, images.device, dtype)
        first = next(original.parameters())
        if (first.device, first.dtype) == (images.device, dtype):
            return original
        if first.is_meta or hasattr(first, "fake_mode"):
            raise RuntimeError(
                "this backbone was built on the meta device or with fake tensors, so it has no weights: build the "
                "part that holds it again without them"
            )
        key = (images.device, dtype)
        if key not in self._copies:
            with torch.inference_mode(False), torch.no_grad():
                self._copies[key] = copy.deepcopy(original).to(*key)
        return self._copies[key]

    def _without_data(self, mode: Any, device: torch.device, dtype: torch.dtype) -> _Frozen:
        """The network with weights that have shapes but no data, for an estimate of memory."""
        if self._planned is not None and self._planned[0] == (mode, device, dtype):
            return self._planned[1]
        original, memo = self._original[0], {}
        with mode, torch.no_grad():
            for tensor in chain(original.parameters(), original.buffers()):
                kind = dtype if tensor.is_floating_point() else tensor.dtype
                empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device=device)
                memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
            planned = copy.deepcopy(original, memo)
        self._planned = ((mode, device, dtype), planned)
        return planned


class _Frozen(nn.Module):
    """A network behind the normalisation of its input."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network = network
        self.depthwise = has_depthwise(network)
        self.normalises = any(mean) or any(value != 1 for value in std)
        precise: Any = {"dtype": torch.float64, "device": next(network.parameters()).device}
        self.mean = nn.Buffer(torch.tensor(mean, **precise).view(1, -1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std, **precise).view(1, -1, 1, 1))

    def normalised(self, images: Tensor) -> Tensor:
        wide = images if images.dtype == torch.float64 else images.float()
        scaled = (wide - self.mean.to(wide.dtype)) / self.std.to(wide.dtype) if self.normalises else wide
        return scaled.contiguous(memory_format=torch.channels_last)  # a third less time on a CPU

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        with self._precision(images):
            return self.network(self.normalised(images))

    def pooled(self, images: Tensor) -> Tensor:
        if not hasattr(self.network, "pooled"):
            return self(images)[-1].mean((2, 3))
        with self._precision(images):
            return self.network.pooled(self.normalised(images))  # pyright: ignore[reportCallIssue]

    def _precision(self, images: Tensor) -> AbstractContextManager[object]:
        return without_autocast(images.device) if self.depthwise and images.device.type == "cpu" else nullcontext()


def create_backbone(choice: str | Callable[[], Backbone]) -> Backbone:
    """A backbone by its name or from a builder.

    Args:
        choice: a registered name; ``name:model`` gives the option ``model``, as ``timm:resnet18``. Or a builder
            without arguments, for other options: ``partial(BACKBONES.create, "timm", model="resnet18", weights=PATH)``.

    Raises:
        UnknownPartError: there is no such name.
        UnavailableError: its package or weights are not here.
        TypeError: the builder makes something else.
    """
    if isinstance(choice, str):
        name, _, model = choice.partition(":")
        backbone = BACKBONES.create(name, **({"model": model} if model else {}))
    else:
        backbone = choice()
    if not isinstance(backbone, Backbone):
        raise TypeError(f"a backbone is a ganparts.backbones.Backbone, not a {type(backbone).__name__}: wrap it in one")
    return backbone


_SHARED: WeakValueDictionary[Hashable, Backbone] = WeakValueDictionary()


def share_backbone(key: Hashable, build: Callable[[], Backbone]) -> Backbone:
    """The backbone that was built with this key, while anything holds it; else a new one.

    Without data (on the meta device, with fake tensors) it is always new.
    """
    if is_planning():
        return build()
    backbone = _SHARED.get(key)
    if backbone is None:
        backbone = _SHARED[key] = build()
    return backbone


def _accepted(images: Tensor) -> Tensor:
    if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"a backbone takes float images [B, 3, H, W] in [-1, 1], but these are {images.dtype} of the shape "
            f"{list(images.shape)}: convert them (grey images with expand(-1, 3, -1, -1))"
        )
    return images


def _in_type_of(images: Tensor, features: Tensor) -> Tensor:
    return features.to(images.dtype) if images.dtype in (torch.bfloat16, torch.float16) else features
