"""The generator of GANILLA (Hicsonmez et al. 2020, arXiv 2002.05638), made for turning photos into illustrations: a
ResNet whose blocks concatenate where others add, and a feature pyramid that adds its stages up again.

Layer for layer the reference implementation's, with its state-dict keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import (
    InstanceNorm2d,
    ReflectionPad2d,
    check_counts,
    check_images,
    init_weights,
    one_of,
    recomputed,
    residual_output,
    start_as_identity,
)
from ganparts.pretrained import PretrainedModule
from ganparts.registry import GENERATORS

__all__ = ["GANILLAGenerator", "ganilla"]

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks of each stage, as the ResNets of these depths have."""


class _Block(nn.Module):
    """Two 3x3 convolutions; their result beside the input goes through a third: [B, C, H, W] to [B, C', H/s, W/s]."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, dropout: float):
        super().__init__()
        self.recompute = False
        self.random = dropout > 0
        self.pad = ReflectionPad2d(1)
        self.norm = InstanceNorm2d(channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, InstanceNorm2d(channels))
        conv = nn.Conv2d(2 * channels, channels, 3, bias=False)
        self.final_conv = nn.Sequential(ReflectionPad2d(1), conv, InstanceNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        return recomputed(self._forward, features, recompute=self.recompute, random=self.random)

    def _forward(self, features: Tensor) -> Tensor:
        inner = self.dropout(F.relu(self.norm(self.conv1(self.pad(features)))))
        inner = self.norm(self.conv2(self.pad(inner)))
        return F.relu(self.final_conv(torch.cat([inner, self.shortcut(features)], 1)))


class _Pyramid(nn.Module):
    """Four stages of features, the finest first and each half the size, to one map of twice the finest's size."""

    def __init__(self, stages: Sequence[int], channels: int, out_channels: int):
        super().__init__()
        self.P2_1, self.P3_1, self.P4_1, self.P5_1 = (nn.Conv2d(wide, channels, 1) for wide in stages)
        self.up = nn.Upsample(scale_factor=2)
        self.pad = ReflectionPad2d(1)
        self.P2_2 = nn.Conv2d(channels, out_channels, 3)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        finest, finer, coarser, coarsest = stages
        features = self.up(self.P5_1(coarsest)) + self.P4_1(coarser)
        features = self.up(features) + self.P3_1(finer)
        features = self.up(features) + self.P2_1(finest)
        return self.P2_2(self.pad(self.up(features)))


class GANILLAGenerator(PretrainedModule):
    """GANILLA's generator: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of 16, and at least 32.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        width: channels at full size and in the first stage; 2, 2 and 4 times as many in the others.
        blocks: of each stage: (2, 2, 2, 2), as in ResNet-18, or (3, 4, 6, 3), as in ResNet-34.
        dropout: probability inside the blocks.
        residual: return the input plus a change, clamped to [-1, 1], instead of a tanh
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: channels or blocks below 1; other channels out than in with ``residual``; in ``forward``
            a wrong size.
    """

    size_multiple = 16
    min_size = 32
    images_are_independent = True

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        dropout: float = 0.5,
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        if len(blocks) != 4:
            raise ValueError(f"blocks={blocks!r}: give four numbers, one for each stage")
        for count in blocks:
            check_counts(blocks=count)
        self.in_channels = in_channels
        self.residual = residual
        self.pad = ReflectionPad2d(3)
        self.conv1 = nn.Conv2d(in_channels, width, 7)
        self.norm = InstanceNorm2d(width)
        self.conv1.bias.requires_grad_(False)  # pyright: ignore[reportOptionalMemberAccess]  the norm cancels it
        channels, stages = width, (width, 2 * width, 2 * width, 4 * width)
        for stage, wide in enumerate(stages):
            layers = []
            for block in range(blocks[stage]):
                stride = 2 if stage and not block else 1
                layers.append(_Block(channels, wide, stride=stride, dropout=dropout))
                channels = wide
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fpn = _Pyramid(stages, 2 * width, width)
        self.conv2 = nn.Conv2d(width, out_channels, 7)
        self.apply(init_weights)
        if residual:
            start_as_identity(self.conv2, in_channels=in_channels, out_channels=out_channels)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        features = F.relu(self.norm(self.conv1(self.pad(images))))
        features = F.max_pool2d(features, 3, 2, 1)
        stages = []
        for stage in range(1, 5):
            features = self.get_submodule(f"layer{stage}")(features)
            stages.append(features)
        painted = self.conv2(self.pad(self.fpn(stages)))
        return residual_output(images, painted) if self.residual else torch.tanh(painted)


@GENERATORS.register("ganilla")
def ganilla(
    *,
    width: int = 64,
    depth: Literal[18, 34] = 18,
    in_channels: int = 3,
    out_channels: int = 3,
    dropout: float = 0.5,
    residual: bool = False,
) -> GANILLAGenerator:
    """GANILLA's generator, for multiples of 16 from 32 on: 7,228,419 parameters, or 13,274,115 with ``depth=34``.

    For illustrations and flat drawings: features of all depths reach the output, which keeps outlines.
    """
    blocks = _BLOCKS[one_of("depth", depth, _BLOCKS)]
    return GANILLAGenerator(in_channels, out_channels, width=width, blocks=blocks, dropout=dropout, residual=residual)
