"""The 1x1 PatchGAN, "PixelGAN" (Isola et al. 2017, arXiv 1611.07004), with the reference's state-dict keys."""

from __future__ import annotations

from torch import Tensor, nn

from ganparts.blocks import Norm, check_counts, check_images, images_are_independent, init_weights, normalized
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["PixelDiscriminator", "pixel"]


class PixelDiscriminator(PretrainedModule):
    """Judges each pixel by its colour alone: images [B, in_channels, H, W] to logits [B, objectives, H, W].

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution, twice as many after the second.
        objectives: channels of the logits.
        norm: ``"instance"``, ``"instance_affine"``, ``"batch"``, ``"group"``, ``"none"``, or a function from channels
            to a module.

    Raises:
        ValueError: channels below 1; an unknown norm.
    """

    def __init__(self, in_channels: int = 3, *, width: int = 64, objectives: int = 1, norm: Norm = "instance"):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, objectives=objectives)
        self.in_channels = in_channels
        self.images_are_independent = images_are_independent(norm)
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, width, 1),
            nn.LeakyReLU(0.2),
            *normalized(nn.Conv2d(width, 2 * width, 1), norm),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, objectives, 1),
        )
        self.apply(init_weights)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        return self.net(images)


@DISCRIMINATORS.register("pixel")
def pixel(*, width: int = 64, in_channels: int = 3, objectives: int = 1, norm: Norm = "instance") -> PixelDiscriminator:
    """Colours only: 1x1 patches.

    It judges the palette alone, so it belongs beside another.
    """
    return PixelDiscriminator(in_channels, width=width, objectives=objectives, norm=norm)
