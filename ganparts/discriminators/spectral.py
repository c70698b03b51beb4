"""Spectral normalisation (Miyato et al. 2018, arXiv 1802.05957): a weight divided by its largest singular value.

In training, every forward call improves the estimate of that value by one power iteration, on two vectors kept in
buffers. In ``eval()`` mode the vectors stay as they are. Two forms differ in the order of the iteration and in their
state-dict keys, so that the checkpoints of both kinds load:

- :class:`SpectralLayer` stands in for a layer. It updates v, then u, with the keys of
  ``torch.nn.utils.spectral_norm`` (``weight_orig``, ``weight_u``, ``weight_v``). Unlike a layer with that hook, it can
  be copied after a forward call.
- :func:`spectral_norm` changes a layer in place. It updates u, then v, with the keys of
  ``torch.nn.utils.parametrizations.spectral_norm``.

Under autocast the estimate keeps the precision of the weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ganparts.precision import without_autocast

__all__ = ["SpectralLayer", "spectral_norm"]

LayerT = TypeVar("LayerT", nn.Conv2d, nn.Linear)

_EPS = 1e-12  # of the division by a vector's length
_FIRST_ITERATIONS = 15  # when a layer is made, so that training does not begin with a guess


def _improve_u(matrix: Tensor, u: Tensor, v: Tensor) -> None:
    u.copy_(F.normalize(matrix @ v, dim=0, eps=_EPS))


def _improve_v(matrix: Tensor, u: Tensor, v: Tensor) -> None:
    v.copy_(F.normalize(matrix.t() @ u, dim=0, eps=_EPS))


def _divided(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    u, v = u.clone(), v.clone()  # the next forward call changes them before this one's backward
    return weight / (u @ (weight.flatten(1) @ v))


def _first_vectors(weight: Tensor) -> tuple[Tensor, Tensor]:
    matrix = weight.detach().flatten(1)
    u, v = (weight.detach().new_empty(length) for length in matrix.shape)
    if weight.is_meta:  # there is nothing to fill
        return u, v
    v.copy_(F.normalize(torch.randn_like(v), dim=0, eps=_EPS))
    for _ in range(_FIRST_ITERATIONS):
        _improve_u(matrix, u, v)
        _improve_v(matrix, u, v)
    return u, v


def _operation(layer: nn.Conv2d | nn.Linear) -> Callable[..., Tensor]:
    if isinstance(layer, nn.Linear):
        return F.linear
    options: Any = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
    return partial(F.conv2d, **options)


class SpectralLayer(nn.Module):
    """A convolution or a linear layer that computes as the one given, with a spectrally normalised weight.

    Args:
        layer: gives its weight and bias, as they were initialised, its stride and its padding.
    """

    bias: nn.Parameter | None
    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        super().__init__()
        self.weight_orig = nn.Parameter(layer.weight.detach())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach())
        u, v = _first_vectors(layer.weight)
        self.register_buffer("weight_u", u)
        self.register_buffer("weight_v", v)
        self._apply_layer = _operation(layer)

    def forward(self, features: Tensor) -> Tensor:
        return self._apply_layer(features, self._normalised(), self.bias)

    def _normalised(self) -> Tensor:
        weight, u, v = self.weight_orig, self.weight_u, self.weight_v
        with without_autocast(weight.device):
            if self.training:
                matrix = weight.detach().flatten(1)
                _improve_v(matrix, u, v)
                _improve_u(matrix, u, v)
            return _divided(weight, u, v)

    def extra_repr(self) -> str:
        return f"weight={list(self.weight_orig.shape)}, bias={self.bias is not None}"


class _SpectralNorm(nn.Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        u, v = _first_vectors(weight)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight.device):
            if self.training:
                matrix = weight.detach().flatten(1)
                _improve_u(matrix, self._u, self._v)
                _improve_v(matrix, self._u, self._v)
            return _divided(weight, self._u, self._v)


def spectral_norm(layer: LayerT) -> LayerT:
    """The same layer, with a weight that is spectrally normalised from now on.

    Initialise the layer first: its weight is then computed, and what is written into it is lost.
    """
    # "unsafe" leaves out a trial run, for which PyTorch would import its compiler on the meta device
    parametrize.register_parametrization(layer, "weight", _SpectralNorm(layer.weight), unsafe=True)
    return layer
