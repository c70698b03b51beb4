"""Training one model in several processes: the mean of their gradients, equal weights, and what a batch has in common.

Every process trains on its share of a step's batch. A loss that is a mean over images then has, as the mean over
processes, the gradient of the whole batch. ``docs/distributed.md`` says for which parts this holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from ganparts.distributed import processes, talking
from ganparts.precision import at_least_fp32

__all__ = [
    "GradientAverage",
    "as_in_first",
    "average_scalars",
    "copy_from_first",
    "share_draws",
    "synchronize_batch_norms",
]


class GradientAverage:
    """Replaces an optimizer's gradients by their mean over all processes: ``Optimizers(..., average=...)``.

    The gradients of one type travel together, in a buffer that stays, so a step that holds this can be captured in a
    CUDA graph. Every process gets the same bits, so weights stay equal.
    """

    def __init__(self) -> None:
        self._buffers: dict[object, tuple[Tensor, list[Tensor]]] = {}

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer) -> None:
        """Average ``.grad`` of the optimizer's parameters; those that have none are left alone."""
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter in chain.from_iterable(group["params"] for group in optimizer.param_groups):
            if parameter.grad is not None:
                kinds.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
        for kind, gradients in kinds.items():
            flat, views = self._buffer((optimizer, kind, tuple(gradient.shape for gradient in gradients)), gradients)
            for view, gradient in zip(views, gradients, strict=True):
                view.copy_(gradient)
            with talking():
                dist.all_reduce(flat)
            flat.div_(processes())
            for view, gradient in zip(views, gradients, strict=True):
                gradient.copy_(view)

    def _buffer(self, key: object, gradients: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if key not in self._buffers:
            sizes = [gradient.numel() for gradient in gradients]
            flat = gradients[0].new_empty(sum(sizes))
            parts = zip(flat.split(sizes), gradients, strict=True)
            self._buffers[key] = flat, [part.view(gradient.shape) for part, gradient in parts]
        return self._buffers[key]


def average_scalars(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each scalar over all processes, on the device."""
    if processes() == 1:
        return dict(values)
    means = torch.stack([value.detach().float() for value in values.values()])
    with talking():
        dist.all_reduce(means)
    return dict(zip(values, (means / processes()).unbind(), strict=True))


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors if processes() > 1 else ():
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
    for members in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in members])
        with talking():
            dist.broadcast(flat.view(torch.uint8), src=0)
        for tensor, part in zip(members, flat.split([tensor.numel() for tensor in members]), strict=True):
            tensor.copy_(part.view(tensor.shape))


@contextmanager
def as_in_first(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Within, tensors have the values that they have in the first process."""
    members = list(tensors) if processes() > 1 else []
    own = [member.detach().clone() for member in members]
    copy_from_first(members)
    try:
        yield
    finally:
        with torch.no_grad():
            for member, before in zip(members, own, strict=True):
                member.copy_(before)


def share_draws(model: nn.Module) -> None:
    """Let what an assembly draws for a whole batch be the same in all processes: the first one's.

    The assembly names the methods that do so in ``shared_draws``. What parts draw for single images, such as dropout
    and augmentations, stays each process's own.
    """

    def shared(draw: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(draw)
        def draw_together(*args: Any, **kwargs: Any) -> Any:
            drawn = draw(*args, **kwargs)
            copy_from_first(tree_leaves(drawn))
            return drawn

        return draw_together

    for name in getattr(model, "shared_draws", ()):
        setattr(model, name, shared(getattr(model, name)))


def synchronize_batch_norms(model: nn.Module) -> None:
    """Let the batch norms of a model take their statistics over the batches of all processes, in training.

    Unlike ``torch.nn.SyncBatchNorm`` it works on CPUs, too, and can be differentiated twice, as gradient penalties
    need. All processes must call the networks equally often. Layers of classes derived from batch norm are left alone,
    with a warning.
    """
    for name, layer in model.named_modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = _BatchNormOfAll
        elif isinstance(layer, _BatchNorm) and not isinstance(layer, _BatchNormOfAll):
            warnings.warn(f"{name} is a {type(layer).__name__}, whose statistics stay each process's own", stacklevel=2)


class _BatchNormOfAll(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, which are of one size."""

    def forward(self, input: Tensor) -> Tensor:
        if processes() == 1 or not self.training:  # in eval mode the processes may not all call it
            return super().forward(input)
        images = at_least_fp32(input)
        mean = _mean_of_all(images.mean((0, 2, 3)))
        centred = images - mean[:, None, None]
        variance = _mean_of_all(centred.square().mean((0, 2, 3)))
        self._follow(mean.detach(), variance.detach(), processes() * images.numel() // images.shape[1])
        normalised = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share: Any = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.add_(share * (mean - self.running_mean))
        self.running_var.add_(share * (variance * (count / max(1, count - 1)) - self.running_var))


class _SumOfAll(torch.autograd.Function):
    """The sum over processes. Each one's loss depends on the sum, so the gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        with talking():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _SumOfAll.apply(gradient)


def _mean_of_all(values: Tensor) -> Tensor:
    return _SumOfAll.apply(values) / processes()
