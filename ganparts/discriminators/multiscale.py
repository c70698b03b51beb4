"""Discriminators that judge images at several scales: those of pix2pixHD and of MUNIT.

pix2pixHD: Wang et al. 2018, arXiv 1711.11585. MUNIT: Huang et al. 2018, arXiv 1804.04732. Each scale has a network of
its own; the image is halved between scales. Both use the state-dict keys of their sources.

Both sources add up the losses of the scales, MUNIT without halving the discriminator's. The losses here take the mean
over scales: multiply the adversarial weight by the number of scales to have the source's balance with other losses.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from torch import Tensor, nn

from ganparts.blocks import (
    Norm,
    ReflectionPad2d,
    check_counts,
    check_images,
    images_are_independent,
    init_weights,
    normalized,
)
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["MUNITDiscriminator", "MultiScalePatchGAN", "multiscale_patchgan", "munit", "plain_key"]


class MultiScalePatchGAN(PretrainedModule):
    """A PatchGAN for each scale: images [B, in_channels, H, W] to a tuple of logits [B, objectives, H', W'].

    The first map is of the full resolution, each further one of half the one before, rounded up. Three scales make
    35x35, 19x19 and 11x11 logits of 256x256 images.

    As in the source, ``layer0`` judges the coarsest scale. The keys of checkpoints that were trained with feature
    matching (``scale0_layer1.0.weight``) are understood, too.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; doubled with each further one up to 512.
        scales: how many, at least 1.
        layers: convolutions of stride 2 at each scale, 1 to 16.
        objectives: channels of the logits.
        norm: ``"instance"``, ``"instance_affine"``, ``"batch"``, ``"group"``, ``"none"``, or a function from channels
            to a module.
        padding: of the convolutions, with zeros: 2 in the source, where images may have any size; 1 as in a single
            PatchGAN, where the coarsest scale needs at least 3 * 2**layers pixels a side.

    Raises:
        ValueError: channels below 1; ``scales``, ``layers`` or ``padding`` out of range, an
            unknown norm; in ``forward`` images that are too small.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        width: int = 64,
        scales: int = 3,
        layers: int = 3,
        objectives: int = 1,
        norm: Norm = "instance",
        padding: Literal[1, 2] = 2,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, objectives=objectives)
        if scales < 1:
            raise ValueError(f"scales={scales}: there is at least 1, the images as they are")
        if not 1 <= layers <= 16:
            raise ValueError(f"layers={layers}: each scale has 1 to 16 convolutions of stride 2")
        if padding not in (1, 2):
            raise ValueError(f"padding={padding}: it is 2, as in pix2pixHD, or 1, as in a single PatchGAN")
        self.in_channels = in_channels
        self.scales = scales
        self.min_size = 1 if padding == 2 else (3 * 2**layers - 1) * 2 ** (scales - 1) + 1
        self.images_are_independent = images_are_independent(norm)
        widths = [in_channels, *(min(width * 2**layer, 512) for layer in range(layers + 1)), objectives]

        def judge() -> nn.Sequential:
            convs = [nn.Conv2d(widths[i], widths[i + 1], 4, 2 if i < layers else 1, padding) for i in range(layers + 2)]
            model: list[nn.Module] = [convs[0], nn.LeakyReLU(0.2)]
            for conv in convs[1:-1]:
                model += [*normalized(conv, norm), nn.LeakyReLU(0.2)]
            return nn.Sequential(*model, convs[-1])

        for scale in range(scales):
            self.add_module(f"layer{scale}", judge())
        self.downsample = _halving()
        self.apply(init_weights)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        check_images(images, self)
        judges = [self.get_submodule(f"layer{scale}") for scale in reversed(range(self.scales))]
        return _at_each_scale(judges, images, self.downsample)

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], *args: Any
    ) -> None:
        # runs before the layers load
        for key in list(state_dict):
            if (renamed := plain_key(key)) != key:
                state_dict[renamed] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, *args)


def plain_key(key: str) -> str:
    """The key of pix2pixHD without feature matching, ``layer0.2.weight``, for one with, ``scale0_layer1.0.weight``."""
    return re.sub(r"(?<![^.])scale(\d+)_layer(\d+)\.(\d+)(?=\.)", _plain_place, key)


def _plain_place(match: re.Match[str]) -> str:
    scale, group, place = map(int, match.groups())  # a group: convolution, norm, activation; the first has no norm
    return f"layer{scale}.{place + max(0, 3 * group - 1)}"


class MUNITDiscriminator(PretrainedModule):
    """Convolutions of stride 2 without norm at each scale: images [B, in_channels, H, W] to a tuple of logits
    [B, objectives, H', W'], finest first.

    Three scales make 16x16, 8x8 and 4x4 logits of 256x256 images. H and W must be at least 2**layers at the coarsest
    scale, which is 64 with the defaults.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; each further one doubles them.
        scales: how many, at least 1.
        layers: convolutions of stride 2 at each scale, at least 1.
        objectives: channels of the logits.

    Raises:
        ValueError: channels below 1; ``scales`` or ``layers`` below 1; in ``forward`` images that
            are too small.
    """

    images_are_independent = True

    def __init__(self, in_channels: int = 3, *, width: int = 64, scales: int = 3, layers: int = 4, objectives: int = 1):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, objectives=objectives)
        if min(scales, layers) < 1:
            raise ValueError(f"scales={scales}, layers={layers}: there is at least 1 of each")
        self.in_channels = in_channels
        self.min_size = (2**layers - 1) * 2 ** (scales - 1) + 1
        widths = [in_channels, *(width * 2**layer for layer in range(layers))]

        def judge() -> nn.Sequential:
            blocks = [_ReflectConv(widths[i], widths[i + 1]) for i in range(layers)]
            return nn.Sequential(*blocks, nn.Conv2d(widths[-1], objectives, 1))

        self.cnns = nn.ModuleList(judge() for _ in range(scales))
        self.downsample = _halving()
        self.apply(init_weights)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        check_images(images, self)
        return _at_each_scale(list(self.cnns), images, self.downsample)


class _ReflectConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.pad = ReflectionPad2d(1)
        self.conv = nn.Conv2d(in_channels, out_channels, 4, 2)
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.conv(self.pad(features)))


def _halving() -> nn.AvgPool2d:
    return nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)


def _at_each_scale(judges: list[nn.Module], images: Tensor, downsample: nn.Module) -> tuple[Tensor, ...]:
    maps = [judges[0](images)]
    for judge in judges[1:]:
        images = downsample(images)
        maps.append(judge(images))
    return tuple(maps)


@DISCRIMINATORS.register("multiscale_patchgan")
def multiscale_patchgan(
    *,
    width: int = 64,
    in_channels: int = 3,
    scales: int = 2,
    layers: int = 3,
    objectives: int = 1,
    norm: Norm = "instance",
    padding: Literal[1, 2] = 2,
) -> MultiScalePatchGAN:
    """pix2pixHD's discriminator: 2 scales by default, 5,529,474 parameters; with 3 scales 8,294,211.

    For large images: the full size judges texture, the halved ones judge larger forms.
    """
    return MultiScalePatchGAN(
        in_channels, width=width, scales=scales, layers=layers, objectives=objectives, norm=norm, padding=padding
    )


@DISCRIMINATORS.register("munit")
def munit(
    *, width: int = 64, in_channels: int = 3, scales: int = 3, layers: int = 4, objectives: int = 1
) -> MUNITDiscriminator:
    """MUNIT's discriminator: 3 scales by default, 8,271,171 parameters.

    It has no norm, so it sees colours and light as they are. Beside a discriminator of texture, it brings the palette.
    """
    return MUNITDiscriminator(in_channels, width=width, scales=scales, layers=layers, objectives=objectives)
