"""PatchGANs with spectral norm (Miyato et al. 2018, arXiv 1802.05957), as two papers build them.

U-GAT-IT (Kim et al. 2020, arXiv 1907.10830): every convolution is spectrally normalised, there is no other norm, and
borders are reflected. Its own two discriminators also have class activation maps: see
:mod:`ganparts.discriminators.ugatit`.

UVCGAN2 (Torbunov et al. 2023, arXiv 2303.16280): spectral norm together with instance norm; the last convolution has
neither. Its discriminators also compare images: see :mod:`ganparts.discriminators.batch_head`.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ganparts.blocks import ReflectionPad2d, check_counts, check_images, one_of
from ganparts.discriminators.patchgan import PatchGAN
from ganparts.discriminators.spectral import SpectralLayer, spectral_norm
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["SpectralPatchGAN", "reflecting_body", "spectral_body", "spectral_patchgan"]


def reflecting_body(in_channels: int, width: int, layers: int) -> list[nn.Module]:
    """U-GAT-IT's layers before the logits: [B, in_channels, H, W] to [B, width * 2**layers, H', W'].

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; each further one doubles them.
        layers: convolutions of stride 2; one of stride 1 follows.
    """
    widths = [in_channels, *(width * 2**layer for layer in range(layers + 1))]
    model: list[nn.Module] = []
    for layer in range(layers + 1):
        conv = nn.Conv2d(widths[layer], widths[layer + 1], 4, stride=2 if layer < layers else 1)
        model += [ReflectionPad2d(1), SpectralLayer(conv), nn.LeakyReLU(0.2)]
    return model


def spectral_body(in_channels: int, width: int, layers: int) -> nn.Sequential:
    """A PatchGAN's layers before the logits, with instance norm and spectral norm, as UVCGAN2 has them.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; at most 8 times as many at the end.
        layers: convolutions of stride 2, 1 to 16.
    """
    body = PatchGAN(in_channels, width=width, layers=layers).model[:-1]
    for layer in body:
        if isinstance(layer, nn.Conv2d):
            spectral_norm(layer)
    return body


class SpectralPatchGAN(PretrainedModule):
    """Judges overlapping patches: images [B, in_channels, H, W] in [-1, 1] to logits [B, objectives, H', W'].

    With 3 layers a patch is 70x70 pixels, and 256x256 images give 30x30 logits. UVCGAN2 works on images in [0, 1]:
    its style converts them first.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; each further one doubles them, in UVCGAN2's style up to 8 times
            as many.
        layers: convolutions of stride 2, 1 to 16; H and W must be at least 3 * 2**layers.
        objectives: channels of the logits.
        style: ``"uvcgan2"`` has instance norm, pads with zeros, and leaves the last convolution without spectral
            norm; ``"ugatit"`` has spectral norm on every convolution, no other norm, and reflects borders.

    Raises:
        ValueError: channels below 1; an unknown style, ``layers`` not from 1 to 16; in
            ``forward`` images that are too small.
    """

    images_are_independent = False  # the spectral norms change with every call

    def __init__(
        self,
        in_channels: int = 3,
        *,
        width: int = 64,
        layers: int = 3,
        objectives: int = 1,
        style: Literal["uvcgan2", "ugatit"] = "uvcgan2",
    ):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, objectives=objectives)
        one_of("style", style, ("uvcgan2", "ugatit"))
        if not 1 <= layers <= 16:
            raise ValueError(f"layers={layers}: a PatchGAN has 1 to 16")
        self.in_channels = in_channels
        self.min_size = 3 * 2**layers
        self.style = style
        if style == "ugatit":
            last = SpectralLayer(nn.Conv2d(width * 2**layers, objectives, 4, bias=False))
            self.model = nn.Sequential(*reflecting_body(in_channels, width, layers), ReflectionPad2d(1), last)
        else:
            last = PatchGAN(in_channels, width=width, layers=layers, objectives=objectives).model[-1]
            self.model = nn.Sequential(*spectral_body(in_channels, width, layers), last)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        return self.model(images if self.style == "ugatit" else 0.5 * images + 0.5)


@DISCRIMINATORS.register("spectral_patchgan")
def spectral_patchgan(
    *,
    width: int = 64,
    in_channels: int = 3,
    layers: int = 3,
    objectives: int = 1,
    style: Literal["uvcgan2", "ugatit"] = "uvcgan2",
) -> SpectralPatchGAN:
    """A PatchGAN with spectral norm: 70x70 patches by default, 2,764,737 parameters, 2,764,736 in U-GAT-IT's style.

    For steadier training: spectral norm bounds how fast the logits change, whatever the batch. Usual with ``hinge``.
    """
    return SpectralPatchGAN(in_channels, width=width, layers=layers, objectives=objectives, style=style)
