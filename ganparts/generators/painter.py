"""A small ResNet generator of our own that paints over the photo: fast enough to train on a CPU.

It is the ResNet generator of CycleGAN (arXiv 1703.10593) at half the width with 4 residual blocks instead of 9, and
four changes. Resize-convolutions leave no checkerboard. All convolutions pad by reflection, so that borders do not show
as a frame. The instance norms are affine. The output is the input plus a change, so the first output is the photo
itself, sharp from the first step.
"""

from __future__ import annotations

from ganparts.blocks import Norm, Padding, Upsample
from ganparts.generators.resnet import ResNetGenerator
from ganparts.registry import GENERATORS

__all__ = ["painter"]


@GENERATORS.register("painter")
def painter(
    *,
    width: int = 32,
    blocks: int = 4,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "instance_affine",
    padding: Padding = "reflect",
    strided_padding: Padding = "reflect",
    dropout: float = 0.0,
    upsample: Upsample = "resize_conv",
    residual: bool | None = None,
) -> ResNetGenerator:
    """Ours for short trainings: 4 residual blocks, 1,377,411 parameters, for multiples of 4.

    For CPUs, phones and browsers, and for trainings of minutes or an hour: it begins with the photo itself, so it is
    sharp from the first step. It is too small to change shapes.

    ``residual=None`` is True where ``in_channels`` and ``out_channels`` are equal.
    """
    return ResNetGenerator(
        in_channels,
        out_channels,
        width=width,
        blocks=blocks,
        norm=norm,
        padding=padding,
        strided_padding=strided_padding,
        dropout=dropout,
        upsample=upsample,
        residual=in_channels == out_channels if residual is None else residual,
    )
