"""Generators that change their input: its sum with a change, kept in the range of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganparts.blocks.checks import is_exporting

__all__ = ["residual_output", "start_as_identity"]


class _InwardClamp(torch.autograd.Function):
    """Clamps to [-1, 1]; the gradient reaches a value outside only if descent along it moves the value back in."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.clamp(-1, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (values,), (gradient,) = ctx.saved_tensors, gradients
        return gradient * ((values.abs() <= 1) | (gradient * values > 0))


def residual_output(images: Tensor, change: Tensor) -> Tensor:
    """``images + change``, clamped to [-1, 1]: what a generator with the option ``residual`` returns.

    A tanh would keep the range, too, but hardly moves dark and bright pixels, and does not return an image unchanged.
    The clamp's gradient needs care. The true one is zero outside the range, so a pixel that leaves the range stays
    outside. If all of the gradient passes (straight-through), a critic that wants a white pixel whiter keeps pushing,
    and the pixel needs as many steps to come back. Here the gradient passes inside the range, and outside only where a
    step of descent moves the value back towards the range, as in projected gradient descent.

    Where no gradient is needed (and when exported) this is a plain clamp.

    Args:
        images: the generator's input [B, C, H, W] in [-1, 1].
        change: what its last convolution returns, of the same shape, in any range.
    """
    total = images + change
    if torch.is_grad_enabled() and total.requires_grad and not is_exporting():
        return _InwardClamp.apply(total)
    return total.clamp(-1, 1)


def start_as_identity(last: nn.Module, *, in_channels: int, out_channels: int) -> None:
    """Fill a generator's last convolution with zeros, so that with :func:`residual_output` it returns its input.

    Args:
        last: the convolution that gives the change; on the meta device nothing is filled.
        in_channels: channels of the generator's input.
        out_channels: channels of its output.

    Raises:
        ValueError: the generator's output has other channels than its input.
    """
    if in_channels != out_channels:
        raise ValueError(
            f"residual=True adds a change to the input, but in_channels={in_channels} and out_channels={out_channels} "
            "differ: make them equal, or use residual=False"
        )
    for parameter in last.parameters():
        if not parameter.is_meta:
            nn.init.zeros_(parameter)
