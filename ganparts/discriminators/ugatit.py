"""The discriminators of U-GAT-IT (Kim et al. 2020, arXiv 1907.10830): PatchGANs that attend by class activation maps.

Two linear layers judge the image from its features, pooled by average and by maximum. Their weights say how much each
feature tells real from generated. The features times these weights are what the last convolution judges. The weights
and keys are those of the PyTorch source (znxlwm/UGATIT-pytorch), with its quirk: the features are multiplied by the
weights before spectral normalisation, while the logits come from the normalised ones.

The source trains a local and a global discriminator for each domain. It adds up, for both, least squares of the map
and of the pooled logits, real and fake. The losses here take the mean over the two outputs and half of the
discriminator's sum. So ``lsgan`` with ``weight=2`` is the source's loss for a generator, and its discriminators' loss
is 4 times the one here, which Adam does not see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganparts.blocks import ReflectionPad2d, check_counts, check_images
from ganparts.discriminators.spectral import SpectralLayer
from ganparts.discriminators.spectral_patchgan import reflecting_body
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["UGATITDiscriminator", "ugatit_global", "ugatit_local"]


class UGATITDiscriminator(PretrainedModule):
    """Judges patches and the whole: images [B, in_channels, H, W] to (logits [B, 1, H', W'], logits [B, 1, 2, 1]).

    The second map holds the judgement from the average (first place) and from the maximum (second place). The two are
    places of one objective, so that the mean over the map is the source's.

    H and W must be at least 3 * 2**(layers - 2): 24 for the local one with 5 layers, 96 for the global one with 7.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; each further one doubles them.
        layers: as the source counts: ``layers - 2`` convolutions of stride 2 and two of stride 1; at least 3.

    Raises:
        ValueError: channels below 1; ``layers`` not from 3 to 16; in ``forward`` images that are
            too small.
    """

    images_are_independent = False  # the spectral norms change with every call

    def __init__(self, in_channels: int = 3, *, width: int = 64, layers: int = 5):
        super().__init__()
        check_counts(in_channels=in_channels, width=width)
        if not 3 <= layers <= 16:
            raise ValueError(f"layers={layers}: U-GAT-IT's discriminators have 3 to 16, 5 and 7 in the paper")
        self.in_channels = in_channels
        self.min_size = 3 * 2 ** (layers - 2)
        channels = width * 2 ** (layers - 2)
        self.model = nn.Sequential(*reflecting_body(in_channels, width, layers - 2))
        self.gap_fc = SpectralLayer(nn.Linear(channels, 1, bias=False))
        self.gmp_fc = SpectralLayer(nn.Linear(channels, 1, bias=False))
        self.conv1x1 = nn.Conv2d(2 * channels, channels, 1)
        self.leaky_relu = nn.LeakyReLU(0.2)
        self.pad = ReflectionPad2d(1)
        self.conv = SpectralLayer(nn.Conv2d(channels, 1, 4, bias=False))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_with_attention(images)[:2]

    def forward_with_attention(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``forward`` returns, and the heat map [B, 1, H'', W'']: the sum of the features that are judged."""
        check_images(images, self)
        features = self.model(images)
        # not by pooling layers, whose backward on CUDA is not deterministic
        average, maximum = features.mean((2, 3)), features.flatten(2).max(2).values
        pooled = torch.stack([self.gap_fc(average), self.gmp_fc(maximum)], 2)  # [B, 1, 2]
        weights = [layer.weight_orig[..., None, None] for layer in (self.gap_fc, self.gmp_fc)]
        attended = torch.cat([features * weight for weight in weights], 1)
        attended = self.leaky_relu(self.conv1x1(attended))
        return self.conv(self.pad(attended)), pooled[..., None], attended.sum(1, keepdim=True)


@DISCRIMINATORS.register("ugatit_local")
def ugatit_local(*, width: int = 64, in_channels: int = 3, layers: int = 5) -> UGATITDiscriminator:
    """U-GAT-IT's local discriminator: 70x70 patches, 3,290,560 parameters.

    Beside ``ugatit_global``: it judges texture.
    """
    return UGATITDiscriminator(in_channels, width=width, layers=layers)


@DISCRIMINATORS.register("ugatit_global")
def ugatit_global(*, width: int = 64, in_channels: int = 3, layers: int = 7) -> UGATITDiscriminator:
    """U-GAT-IT's global discriminator: 286x286 patches, 53,130,176 parameters.

    Beside ``ugatit_local``: its patches cover the whole picture, so it judges shapes.
    """
    return UGATITDiscriminator(in_channels, width=width, layers=layers)
