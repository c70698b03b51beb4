"""A U-Net whose way down is any encoder of timm, with its pretrained weights if wanted (U-Net: arXiv 1505.04597).

The decoder is that of segmentation_models.pytorch's ``Unet``, with its state-dict keys. Deviations: the image gets the
encoder's own normalisation inside, and the output is an image through a tanh. That library's own ``efficientnet-b0``
has 416,768 parameters more than ``efficientnet_b0`` here: it keeps the classifier's last convolution, which nothing
uses, and its finest skip has 32 channels, where timm's has 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ganparts.backbones.weights import is_planning
from ganparts.blocks import (
    Norm,
    check_counts,
    check_images,
    images_are_independent,
    norm_layer,
    residual_output,
    start_as_identity,
)
from ganparts.pretrained import PretrainedModule
from ganparts.registry import GENERATORS

__all__ = ["TimmUNetGenerator", "timm_unet"]


class _Encoder(nn.Module):
    """Images [B, C, H, W] in [-1, 1] to an encoder's features, the finest first."""

    mean: Tensor
    scale: Tensor

    def __init__(self, name: str, in_channels: int, *, pretrained: bool):
        super().__init__()
        import timm  # takes longer to import than the rest of ganparts

        try:
            self.model = timm.create_model(name, features_only=True, pretrained=pretrained, in_chans=in_channels)
        except Exception as error:  # an unknown name, no such weights, no network: of many kinds
            reason = " ".join(str(error).split())[:300]
            remedy = "check the network, or use pretrained=False" if pretrained else "see timm.list_models()"
            raise ValueError(
                f"timm cannot build the encoder {name!r} (pretrained={pretrained}): {reason}: {remedy}"
            ) from error
        _fix_padding(self.model)
        self.channels: list[int] = self.model.feature_info.channels()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        self.strides: list[int] = self.model.feature_info.reduction()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        first = self.strides[0]
        if first not in (2, 4) or self.strides != [first * 2**stage for stage in range(len(self.strides))]:
            raise ValueError(
                f"the encoder {name!r} gives features at strides {self.strides}, but a U-Net needs 2 or 4 and then "
                "each twice the one before: choose another, such as 'resnet18' or 'convnext_tiny'"
            )
        self.channels_last = str(getattr(self.model, "output_fmt", "NCHW")).endswith("NHWC")
        self.tileable = all(map(_in_tiles, self.model.modules()))
        if not self.tileable:
            _check_sizes(name, in_channels, self.strides[-1])
        settings: dict[str, Any] = self.model.pretrained_cfg  # pyright: ignore[reportAssignmentType]
        mean, std = (torch.tensor(settings.get(key) or (0.5, 0.5, 0.5))[None, :, None, None] for key in ("mean", "std"))
        if in_channels != 3:
            mean, std = mean.mean(1, keepdim=True), std.mean(1, keepdim=True)
        # the encoder's are of values in [0, 1]
        self.register_buffer("mean", 2 * mean - 1, persistent=False)
        self.register_buffer("scale", 0.5 / std, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.model((images - self.mean) * self.scale)
        return [rearrange(stage, "b h w c -> b c h w") if self.channels_last else stage for stage in features]


class _SameConv(nn.Module):
    """A convolution that pads as TensorFlow's "same" does, of height and width that are multiples of its stride.

    The padding is then the same for all sizes. timm computes it from each size, which tracing for an export takes
    minutes to follow.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        sizes = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        rows, columns = (max(0, (kernel - 1) * dilation + 1 - stride) for kernel, stride, dilation in sizes)
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, self.padding)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


_IN_TILES = (nn.Conv2d, _SameConv, _BatchNorm, nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.Upsample, nn.Dropout, nn.Identity)
"""Layers that a picture can go through in tiles; encoders may have others."""


def _in_tiles(layer: nn.Module) -> bool:
    from timm.layers.blur_pool import BlurPool2d
    from timm.layers.conv_bn_act import ConvNormAct

    whole = next(layer.children(), None) is not None and not type(layer).__module__.startswith("timm.layers")
    return whole or isinstance(layer, (*_IN_TILES, BlurPool2d, ConvNormAct))


def _check_sizes(name: str, in_channels: int, stride: int) -> None:
    """Refuse an encoder that does not take any multiple of its stride, as those with windows of a fixed size."""
    import timm

    with torch.device("meta"), torch.no_grad():
        try:
            model = timm.create_model(name, features_only=True, in_chans=in_channels).eval()
        except Exception:  # older versions of timm need numbers while they build some encoders
            return
        for height, width in ((2 * stride, 3 * stride), (8 * stride, 8 * stride)):
            try:
                model(torch.empty(1, in_channels, height, width))
            except Exception as error:  # of many kinds
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise ValueError(
                    f"the encoder {name!r} does not take images of {height}x{width} ({reason}), but a U-Net needs any "
                    f"multiple of {stride}: choose another, such as 'resnet18' or 'convnext_tiny'"
                ) from None


def _fix_padding(encoder: nn.Module) -> None:
    from timm.layers.conv2d_same import Conv2dSame

    for name, layer in list(encoder.named_modules()):
        if isinstance(layer, Conv2dSame) and isinstance(layer, nn.Conv2d):
            encoder.set_submodule(name, _SameConv(layer))


def _conv(in_channels: int, channels: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, norm_layer(norm)(channels), nn.ReLU())


class _Block(nn.Module):
    """Doubles the size of features [B, C, H, W], appends a skip if there is one, and convolves twice."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int, norm: Norm):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)
        self.conv1 = _conv(in_channels + skip_channels, channels, norm)
        self.conv2 = _conv(channels, channels, norm)

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        features = self.up(features)
        if skip is not None:
            features = torch.cat([features, skip], 1)
        return self.conv2(self.conv1(features))


class _Decoder(nn.Module):
    """Features, the finest first, each of half the size of the one before, to a map of the image's size."""

    def __init__(self, channels: Sequence[int], widths: Sequence[int], norm: Norm):
        super().__init__()
        coarsest, *skips = reversed(channels)
        inputs = (coarsest, *widths)
        skips += [0] * (len(widths) - len(skips))
        self.blocks = nn.ModuleList(
            _Block(below, skip, width, norm) for below, skip, width in zip(inputs, skips, widths, strict=False)
        )

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        *skips, features = stages
        for block in self.blocks:
            features = block(features, skips.pop() if skips else None)
        return features


class TimmUNetGenerator(PretrainedModule):
    """A U-Net on an encoder of timm: images [B, in_channels, H, W] to [B, out_channels, H, W].

    H and W must be multiples of the encoder's largest stride, mostly 32, and at least twice that: batch norm, which
    most encoders have, takes no single value. It runs in tiles if the encoder has only convolutions, batch norm, ReLU,
    max pooling and the like, as ``resnet18`` and EfficientNet-Lite; else ``tileable`` is False.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        encoder: a name of timm that gives features at strides 2 or 4 and each twice the one before, such as
            ``"tf_efficientnet_lite0"``, ``"resnet18"`` or ``"convnext_tiny"``.
        pretrained: start from the encoder's published weights, which timm downloads.
        width: channels of the decoder at full size; twice as many at each coarser level.
        norm: of the decoder: ``"batch"``, ``"instance"``, ``"instance_affine"``, ``"group"``, ``"none"``, or a
            function from channels to a module. The encoder keeps its own.
        residual: return the input plus a change, clamped to [-1, 1], instead of a tanh
            (:func:`ganparts.blocks.residual_output`); at the start it returns its input.

    Raises:
        ValueError: channels below 1; timm does not know the encoder or cannot get its weights; an encoder without such
            strides or of a fixed size; an unknown norm; other channels out than in with ``residual``; in ``forward``
            a wrong size.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        encoder: str = "tf_efficientnet_lite0",
        pretrained: bool = False,
        width: int = 16,
        norm: Norm = "batch",
        residual: bool = False,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        self.in_channels = in_channels
        self.residual = residual
        pretrained = pretrained and not is_planning()
        self.encoder = _Encoder(encoder, in_channels, pretrained=pretrained)
        self.tileable = self.encoder.tileable
        self.size_multiple = self.encoder.strides[-1]
        self.min_size = 2 * self.size_multiple
        levels = self.size_multiple.bit_length() - 1
        widths = [width * 2**level for level in reversed(range(levels))]
        self.decoder = _Decoder(self.encoder.channels, widths, norm)
        head = nn.Conv2d(width, out_channels, 3, padding=1)
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)  # pyright: ignore[reportArgumentType]
        self.segmentation_head = nn.Sequential(head)  # the name that published weights have
        mixing = any(isinstance(layer, _BatchNorm) for layer in self.encoder.modules())
        self.images_are_independent = images_are_independent(norm) and not mixing
        if residual:
            start_as_identity(head, in_channels=in_channels, out_channels=out_channels)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        painted = self.segmentation_head(self.decoder(self.encoder(images)))
        return residual_output(images, painted) if self.residual else torch.tanh(painted)


@GENERATORS.register("timm_unet")
def timm_unet(
    *,
    encoder: str = "tf_efficientnet_lite0",
    pretrained: bool = False,
    width: int = 16,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: Norm = "batch",
    residual: bool = False,
) -> TimmUNetGenerator:
    """A U-Net on any encoder of timm, for multiples of 32 from 64 on: 5,198,451 parameters on EfficientNet-Lite0.

    For trying encoders, among them ones that were trained on ImageNet (``pretrained=True``) and small ones for phones.
    """
    return TimmUNetGenerator(
        in_channels,
        out_channels,
        encoder=encoder,
        pretrained=pretrained,
        width=width,
        norm=norm,
        residual=residual,
    )
