"""The U-Net generator of pix2pix and CycleGAN (Isola et al. 2017, arXiv 1611.07004), and one with attention gates
(Oktay et al. 2018, arXiv 1804.03999).

The plain one is layer for layer the reference implementation's, with its state-dict keys. The gated one is the same
network with a gate on every skip, whose signal is what enters that level's upsampling: for the deepest, the bottleneck.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import (
    Norm,
    Upsample,
    check_counts,
    check_images,
    images_are_independent,
    init_weights,
    normalized,
    residual_output,
    start_as_identity,
    upsampling,
)
from ganparts.pretrained import PretrainedModule
from ganparts.registry import GENERATORS

__all__ = ["AttentionGate", "UNetGenerator", "attention_unet256", "unet128", "unet256"]


class AttentionGate(nn.Module):
    """Additive attention: alpha = sigmoid(psi(relu(W_x x + W_g g + b)) + b_psi), the result alpha * x.

    Args:
        skip_channels: of the skip x; half as many in between.
        signal_channels: of the gating signal g.
    """

    def __init__(self, skip_channels: int, signal_channels: int):
        super().__init__()
        between = max(1, skip_channels // 2)
        self.skip = nn.Conv2d(skip_channels, between, 2, stride=2, bias=False)
        self.signal = nn.Conv2d(signal_channels, between, 1)
        self.score = nn.Conv2d(between, 1, 1)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Gate ``skip`` [B, C, H, W] by ``signal`` [B, C', H/2, W/2]: [B, C, H, W]."""
        score = self.score(F.relu(self.skip(skip) + self.signal(signal)))
        alpha = F.interpolate(torch.sigmoid(score), scale_factor=2.0, mode="bilinear", align_corners=False)
        return alpha * skip


class _Level(nn.Module):
    """One resolution of the U: goes down, through the levels below, and up again; appends the result to its input.

    Args:
        down: layers to the next coarser grid.
        inner: the level below, or None at the bottom.
        up: layers back to this grid.
        gate: decides how much of the input is kept.
        outermost: returns the result alone.
    """

    def __init__(
        self,
        down: list[nn.Module],
        inner: nn.Module | None,
        up: list[nn.Module],
        *,
        gate: AttentionGate | None,
        outermost: bool,
    ):
        super().__init__()
        below = down if inner is None else [*down, inner]
        self.model = nn.Sequential(*below, *up)
        self.gate = gate
        self.turn = len(below)  # the first layer on the way up: what enters it is the gating signal
        self.outermost = outermost

    def forward(self, features: Tensor) -> Tensor:
        skip = signal = features
        for index, layer in enumerate(self.model):
            if index == self.turn and self.gate is not None:
                skip = self.gate(features, signal)
            signal = layer(signal)
        return signal if self.outermost else torch.cat([skip, signal], 1)


class UNetGenerator(PretrainedModule):
    """A U of ``levels`` halvings with skips: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of 2 to the power of ``levels``.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        width: channels after the first convolution; doubled at each level up to 8 times as many.
        levels: halvings, 2 to 16; 8 brings 256x256 to 1x1.
        norm: ``"instance"``, ``"instance_affine"``, ``"batch"``, ``"group"``, ``"none"``, or a function from channels
            to a module.
        dropout: probability in the widest levels (all but the four outer ones and the bottom); pix2pix has 0.5,
            CycleGAN none.
        upsample: ``"transposed"`` convolution; or, against checkerboards, ``"resize_conv"`` or ``"bilinear"``
            (:func:`ganparts.blocks.upsampling`).
        attention: gate every skip.
        residual: return the input plus a change, clamped to [-1, 1], instead of a tanh
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: channels below 1; not 2 to 16 levels, an unknown norm or upsample; other
            channels out than in with ``residual``; in ``forward`` a wrong size.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        levels: int = 8,
        norm: Norm = "instance",
        dropout: float = 0.0,
        upsample: Upsample = "transposed",
        attention: bool = False,
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        self.in_channels = in_channels
        self.residual = residual
        self.images_are_independent = images_are_independent(norm)
        if levels < 2:
            raise ValueError(f"levels={levels}: a U-Net has at least 2")
        if levels > 16:
            raise ValueError(f"levels={levels}: a U-Net has at most 16; its images have 2**levels pixels a side")
        self.size_multiple = 2**levels
        widths = [width * min(2**level, 8) for level in range(levels)]
        level: _Level | None = None
        last: nn.Module = nn.Identity()
        for depth in reversed(range(levels)):
            innermost, outermost = depth == levels - 1, depth == 0
            channels, inner = (in_channels if outermost else widths[depth - 1]), widths[depth]
            signal = inner if innermost else 2 * inner
            conv = nn.Conv2d(channels, inner, 4, stride=2, padding=1)
            down = [] if outermost else [nn.LeakyReLU(0.2)]
            down += normalized(conv, None if innermost or outermost else norm)
            if outermost:
                after = upsampling(signal, out_channels, 4, upsample)
                last = after[-1]
                after.append(nn.Identity() if residual else nn.Tanh())
            else:
                after = upsampling(signal, channels, 4, upsample, norm)
            if dropout and 4 <= depth < levels - 1:
                after.append(nn.Dropout(dropout))
            level = _Level(
                down,
                level,
                [nn.ReLU(), *after],
                gate=AttentionGate(channels, signal) if attention and not outermost else None,
                outermost=outermost,
            )
        self.model = level
        self.apply(init_weights)
        if residual:
            start_as_identity(last, in_channels=in_channels, out_channels=out_channels)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        painted = self.model(images)  # pyright: ignore[reportOptionalCall]
        return residual_output(images, painted) if self.residual else painted


@GENERATORS.register("unet256")
def unet256(
    *,
    width: int = 64,
    levels: int = 8,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    dropout: float = 0.0,
    upsample: Upsample = "transposed",
    residual: bool = False,
) -> UNetGenerator:
    """8 levels (or ``levels``), for multiples of 256: 54,409,603 parameters.

    For paired data (pix2pix) and for changes that keep every outline: the skips pass details on as they are. It is
    faster than a ResNet.
    """
    return UNetGenerator(
        in_channels,
        out_channels,
        width=width,
        levels=levels,
        norm=norm,
        dropout=dropout,
        upsample=upsample,
        residual=residual,
    )


@GENERATORS.register("unet128")
def unet128(
    *,
    width: int = 64,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    dropout: float = 0.0,
    upsample: Upsample = "transposed",
    residual: bool = False,
) -> UNetGenerator:
    """7 levels, for multiples of 128.

    ``unet256`` for small images.
    """
    return UNetGenerator(
        in_channels,
        out_channels,
        width=width,
        levels=7,
        norm=norm,
        dropout=dropout,
        upsample=upsample,
        residual=residual,
    )


@GENERATORS.register("attention_unet256")
def attention_unet256(
    *,
    width: int = 64,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance",
    dropout: float = 0.0,
    upsample: Upsample = "transposed",
    residual: bool = False,
) -> UNetGenerator:
    """``unet256`` with an attention gate on each of its 7 skips (Attention U-Net, Oktay et al. 2018, arXiv 1804.03999).

    The gates choose from the deeper features what each skip may pass on. They cost little beside the U-Net itself.
    """
    return UNetGenerator(
        in_channels,
        out_channels,
        width=width,
        levels=8,
        norm=norm,
        dropout=dropout,
        upsample=upsample,
        attention=True,
        residual=residual,
    )
