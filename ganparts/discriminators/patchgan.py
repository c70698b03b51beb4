"""The PatchGAN discriminator (Isola et al. 2017, arXiv 1611.07004), with CUT's and the Keras tutorial's forms of it.

The plain one is layer for layer the reference implementation's, with its state-dict keys. The antialiased one is that
of CUT (Park et al. 2020, arXiv 2007.15651): stride 1, then a blur that keeps every second pixel. The Keras one has no
biases but the last, affine instance norm (eps 1e-3, scale drawn from N(0, 0.02)) and LeakyReLU slope 0.3. The
two-objective discriminator is the Keras one with two output channels, each trained by a loss of its own: two heads on
one trunk.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ganparts.blocks import (
    BlurDownsample,
    Init,
    Norm,
    check_counts,
    check_images,
    images_are_independent,
    init_weights,
    keras_instance_norm,
    normalized,
)
from ganparts.pretrained import PretrainedModule
from ganparts.protocols import Discriminator
from ganparts.registry import DISCRIMINATORS

__all__ = ["PatchGAN", "keras_patchgan", "patchgan", "patchgan_antialias", "two_objective"]


class PatchGAN(PretrainedModule):
    """Judges overlapping patches: images [B, in_channels, H, W] to logits [B, objectives, H', W'].

    With 3 layers a patch is 70x70 pixels, and 256x256 images give 30x30 logits.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; doubled with each further one up to 8 times as many.
        layers: halvings, 1 to 16; H and W must be at least 3 * 2**layers.
        objectives: channels of the logits.
        norm: ``"instance"``, ``"instance_affine"``, ``"batch"``, ``"group"``, ``"none"``, or a function from channels
            to a module.
        slope: of LeakyReLU for negative inputs.
        bias: whether the convolutions before the last have biases.
        antialias: halve by :class:`~ganparts.blocks.BlurDownsample` after each convolution, not by its stride.
        init: of the convolutions, ``"normal"`` or ``"xavier"``; see :func:`~ganparts.blocks.init_weights`.

    Raises:
        ValueError: channels below 1; an unknown norm or init, ``layers`` not from 1 to 16; in
            ``forward`` images that are too small.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        width: int = 64,
        layers: int = 3,
        objectives: int = 1,
        norm: Norm = "instance",
        slope: float = 0.2,
        bias: bool = True,
        antialias: bool = False,
        init: Init = "normal",
    ):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, objectives=objectives)
        self.in_channels = in_channels
        self.images_are_independent = images_are_independent(norm)
        if layers < 1:
            raise ValueError(f"layers={layers}: a PatchGAN has at least 1; for 1x1 patches take the 'pixel' one")
        if layers > 16:
            raise ValueError(f"layers={layers}: a PatchGAN has at most 16; its images have 3 * 2**layers pixels a side")
        self.min_size = 3 * 2**layers
        widths = [width * min(2**layer, 8) for layer in range(layers + 1)]

        def conv(layer: int) -> nn.Conv2d:
            stride = 2 if layer < layers and not antialias else 1
            return nn.Conv2d(widths[layer - 1] if layer else in_channels, widths[layer], 4, stride, 1, bias=bias)

        def after(layer: int) -> list[nn.Module]:
            blur = [BlurDownsample(widths[layer])] if layer < layers and antialias else []
            return [nn.LeakyReLU(slope), *blur]

        model: list[nn.Module] = [conv(0), *after(0)]
        for layer in range(1, layers + 1):
            model += [*normalized(conv(layer), norm), *after(layer)]
        self.model = nn.Sequential(*model, nn.Conv2d(widths[-1], objectives, 4, 1, 1))
        self.apply(partial(init_weights, init=init))

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        return self.model(images)


@DISCRIMINATORS.register("patchgan")
def patchgan(
    *, width: int = 64, in_channels: int = 3, layers: int = 3, objectives: int = 1, norm: Norm = "instance"
) -> PatchGAN:
    """The paper's discriminator: 70x70 patches by default, 2,764,737 parameters.

    The usual choice. It judges the texture of patches, not what the whole picture shows.
    """
    return PatchGAN(in_channels, width=width, layers=layers, objectives=objectives, norm=norm)


@DISCRIMINATORS.register("patchgan_antialias")
def patchgan_antialias(
    *,
    width: int = 64,
    in_channels: int = 3,
    layers: int = 3,
    objectives: int = 1,
    norm: Norm = "instance",
    init: Init = "xavier",
) -> PatchGAN:
    """CUT's discriminator: 70x70 patches by default, 2,764,737 parameters, twice the computation of ``patchgan``.

    For CUT. Blurring makes it mind a shift by a pixel less.
    """
    return PatchGAN(
        in_channels, width=width, layers=layers, objectives=objectives, norm=norm, antialias=True, init=init
    )


@DISCRIMINATORS.register("keras_patchgan")
def keras_patchgan(*, width: int = 64, in_channels: int = 3, layers: int = 3, objectives: int = 1) -> PatchGAN:
    """The Keras tutorial's discriminator: 70x70 patches by default, 2,765,569 parameters.

    For comparing with the Kaggle notebooks.
    """
    return PatchGAN(
        in_channels,
        width=width,
        layers=layers,
        objectives=objectives,
        norm=keras_instance_norm,
        slope=0.3,
        bias=False,
    )


@DISCRIMINATORS.register("two_objective")
def two_objective(*, width: int = 64, in_channels: int = 3, layers: int = 3) -> Discriminator:
    """``keras_patchgan`` with two channels of logits, for the loss ``two_objective``: 2,773,762 parameters.

    For the preset ``two_objective``, a notebook of the Kaggle competition.
    """
    return keras_patchgan(width=width, in_channels=in_channels, layers=layers, objectives=2)
