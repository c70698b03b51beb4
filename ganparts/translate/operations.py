"""Operations of networks on maps that are computed in strips of rows; see :mod:`ganparts.translate.strips`.

Each takes the arguments of PyTorch's function of its name, but a :class:`~ganparts.translate.strips.Node` for a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ganparts.translate.strips import Node, TilingError

__all__ = ["OPERATIONS", "pad"]

_REMEDY = "in tiles a tensor has one value a channel, and features one size; make the picture smaller (--resize)"


def pad(x: Node, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Node:
    """``F.pad``: constant, reflect, replicate or circular, on rows and columns."""
    left, right, top, bottom = (*pad, 0, 0)[:4]
    height = x.shape[2]

    def source(row: int) -> int:
        """The row of the input that a padded row repeats."""
        if mode == "circular":
            return row % height
        if mode == "reflect":
            row = -row if row < 0 else row
            return row if row < height else 2 * (height - 1) - row
        return min(max(row, 0), height - 1)

    def compute(start: int, stop: int) -> Tensor:
        wanted = [source(row) for row in range(start - top, stop - top)]
        first = min(wanted)
        rows = x.rows(first, max(wanted) + 1)
        if left or right:
            rows = F.pad(rows, (left, right, 0, 0), mode, value)
        if wanted != list(range(first, first + rows.shape[2])):
            rows = rows[:, :, torch.tensor(wanted, device=rows.device) - first]
        if mode == "constant" and (start < top or stop > top + height):
            rows[:, :, : max(0, top - start)] = value or 0
            rows[:, :, max(0, top + height - start) :] = value or 0
        return rows

    _, channels, _, width = x.shape
    return Node(x.plan, (1, channels, height + top + bottom, width + left + right), compute, [x])


def _conv2d(
    input: Node,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Node:
    reach = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
    if padding == "same":
        margins = [reach[1] // 2, reach[1] - reach[1] // 2, reach[0] // 2, reach[0] - reach[0] // 2]
    else:
        vertical, horizontal = (0, 0) if isinstance(padding, str) else _pair(padding)
        margins = [horizontal, horizontal, vertical, vertical]
    x = pad(input, margins) if any(margins) else input
    step = _pair(stride)
    size = [(side - far - 1) // by + 1 for side, far, by in zip(x.shape[2:], reach, step, strict=True)]

    def compute(start: int, stop: int) -> Tensor:
        rows = x.rows(start * step[0], (stop - 1) * step[0] + reach[0] + 1)
        return F.conv2d(rows, weight, bias, step, 0, dilation, groups)

    return Node(x.plan, (1, weight.shape[0], *size), compute, [x]).keep()


def _conv_transpose2d(
    input: Node,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Node:
    (by, _), (cut, side_cut), extra = _pair(stride), _pair(padding), _pair(output_padding)
    reach = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
    height = input.shape[2]
    size = [
        (side - 1) * s - 2 * p + far + more + 1
        for side, s, p, far, more in zip(input.shape[2:], _pair(stride), _pair(padding), reach, extra, strict=True)
    ]

    def compute(start: int, stop: int) -> Tensor:
        start, stop = start + cut, stop + cut  # as if no row were cut off
        first = min(max(0, -((reach[0] - start) // by)), start // by, height - 1)  # the first row that reaches them
        rows = input.rows(first, min(height, (stop - 1) // by + 2))  # one more, for rows between that none reaches
        out = F.conv_transpose2d(rows, weight, bias, stride, (0, side_cut), extra, groups, dilation)
        return out[:, :, start - first * by : stop - first * by]

    return Node(input.plan, (1, weight.shape[1] * groups, *size), compute, [input]).keep()


def _normalised(
    x: Node, weight: Tensor | None, bias: Tensor | None, eps: float, moments: Callable[[], tuple[Tensor, Tensor]]
) -> Node:
    @cache
    def constants() -> tuple[Tensor, Tensor, Tensor | None]:
        mean, variance = moments()
        scale = torch.rsqrt(variance + eps)
        if weight is not None:
            scale = scale * weight[:, None, None]
        return mean.float(), scale.float(), None if bias is None else bias[:, None, None]

    def compute(start: int, stop: int) -> Tensor:
        mean, scale, shift = constants()
        rows = (x.rows(start, stop) - mean).mul_(scale)
        return rows if shift is None else rows.add_(shift)

    return Node(x.plan, x.shape, compute, [x])


def _group_norm(
    input: Node,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Node:
    x = input.keep(statistics=True)
    channels = x.shape[1]

    def moments() -> tuple[Tensor, Tensor]:
        assert x.statistics is not None
        mean, variance = (value.reshape(num_groups, -1) for value in (x.statistics.mean, x.statistics.variance))
        middle = mean.mean(1, keepdim=True)
        spread = (variance + (mean - middle) ** 2).mean(1, keepdim=True)
        size = channels // num_groups
        return _for_channels(middle.repeat_interleave(size)), _for_channels(spread.repeat_interleave(size))

    return _normalised(x, weight, bias, eps, moments)


def _instance_norm(
    input: Node,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Node:
    if use_input_stats:
        return _group_norm(input, input.shape[1], weight, bias, eps)
    return _batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def _batch_norm(
    input: Node,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Node:
    if training or running_mean is None or running_var is None:
        return _group_norm(input, input.shape[1], weight, bias, eps)  # of one picture it is the same
    mean, variance = _for_channels(running_mean), _for_channels(running_var)
    return _normalised(input, weight, bias, eps, lambda: (mean, variance))


def _dropout(input: Node, p: float = 0.5, training: bool = True) -> Node:
    if training and p:
        raise TilingError("the network drops features at random: put it in eval() mode before a large picture")
    return input


def _interpolate(
    input: Node,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Node:
    height, width = input.shape[2:]
    if size is not None:
        scale_factor = [wanted / side for wanted, side in zip(_pair(size), (height, width), strict=True)]
    factors = list(_pair(scale_factor))
    by, across = (round(factor) for factor in factors)
    margins = {"nearest": 0, "nearest-exact": 0, "bilinear": 1, "bicubic": 2}
    if [by, across] != factors or min(by, across) < 1 or align_corners or mode not in margins:
        raise TilingError(
            f"the network resizes features by {factors} ({mode}, align_corners={align_corners}), but a strip at a time "
            "only whole factors work, nearest, bilinear or bicubic without align_corners: make the picture smaller"
        )

    def compute(start: int, stop: int) -> Tensor:
        first = max(0, start // by - margins[mode])
        rows = input.rows(first, min(height, (stop - 1) // by + 1 + margins[mode]))
        rows = F.interpolate(rows, size=(rows.shape[2] * by, width * across), mode=mode, antialias=antialias)
        return rows[:, :, start - first * by : stop - first * by]

    return Node(input.plan, (1, input.shape[1], height * by, width * across), compute, [input])


def _max_pool2d(
    input: Node,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Node:
    size, margins = _pair(kernel_size), _pair(padding)
    step = size if stride is None or stride == [] else _pair(stride)
    if ceil_mode or return_indices or _pair(dilation) != (1, 1):
        raise TilingError(f"the network pools with ceil_mode, indices or dilation {dilation}: in tiles it must not")
    x = pad(input, (margins[1], margins[1], margins[0], margins[0]), value=-math.inf) if any(margins) else input
    sides = [(side - wide) // by + 1 for side, wide, by in zip(x.shape[2:], size, step, strict=True)]

    def compute(start: int, stop: int) -> Tensor:
        return F.max_pool2d(x.rows(start * step[0], (stop - 1) * step[0] + size[0]), size, step)

    return Node(x.plan, (1, x.shape[1], *sides), compute, [x])


def _softmax(input: Node, dim: int | None = None, *_: object, **__: object) -> Node:
    if dim not in (1, -3):
        raise TilingError(f"the network takes a softmax along dimension {dim}: in tiles only 1 works")
    return _each(partial(torch.softmax, dim=1), input)


def _narrow(input: Node, dim: int, start: int, length: int) -> Node:
    if dim not in (1, -3):
        raise TilingError(f"the network takes a part along dimension {dim}: in tiles only 1 works")
    shape = (1, length, *input.shape[2:])
    return Node(input.plan, shape, lambda a, b: input.rows(a, b).narrow(1, start, length), [input])


def _cat(tensors: Sequence[Node], dim: int = 0) -> Node:
    if dim not in (1, -3) or not all(isinstance(node, Node) for node in tensors):
        raise TilingError(f"the network concatenates features along dimension {dim}: in tiles only 1 works")
    shape = (1, sum(node.shape[1] for node in tensors), *tensors[0].shape[2:])
    return Node(tensors[0].plan, shape, lambda a, b: torch.cat([node.rows(a, b) for node in tensors], 1), tensors)


def _each(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Node:
    """A function of each pixel by itself, of one map or several."""
    nodes = [arg for arg in args if isinstance(arg, Node)]
    for arg in args:
        if isinstance(arg, Tensor) and arg.ndim > 1 and math.prod(arg.shape[-2:]) > 1:
            raise TilingError(f"the network combines features with a tensor of {list(arg.shape)}: {_REMEDY}")
    if len({node.shape[2:] for node in nodes}) > 1:
        raise TilingError(
            f"the network combines features of sizes {[list(node.shape[2:]) for node in nodes]}: {_REMEDY}"
        )

    def compute(start: int, stop: int) -> Tensor:
        return function(*(arg.rows(start, stop) if isinstance(arg, Node) else arg for arg in args), **kwargs)

    widest = max(nodes, key=lambda node: node.shape[1])
    result = Node(widest.plan, widest.shape, compute, nodes)
    # kept, or a chain of residual blocks would add up all of them for every strip
    return result.keep() if len(nodes) > 1 else result


def _for_channels(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else tuple(value) * (2 // len(value))


OPERATIONS: dict[str, Callable[..., Node]] = {
    "pad": pad,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "interpolate": _interpolate,
    "max_pool2d": _max_pool2d,
    "softmax": _softmax,
    "narrow": _narrow,
    "cat": _cat,
    "concat": _cat,
    **{name: partial(_each, getattr(torch, name)) for name in ("add", "sub", "mul", "div", "tanh", "sigmoid", "clamp")},
    **{
        name: partial(_each, getattr(F, name))
        for name in ("relu", "leaky_relu", "elu", "selu", "silu", "gelu", "softplus", "hardtanh", "prelu", "mish")
    },
}
"""By the names of PyTorch's functions."""
