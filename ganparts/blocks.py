"""What generators and discriminators are built from: normalisation, padding, resizing, initialisation.

Deviations from ``torch.nn``: :class:`InstanceNorm2d` keeps a channels-last layout and copes with a 1x1 map, which
PyTorch's refuses in training; :class:`ReflectionPad2d` is deterministic on CUDA under deterministic algorithms.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ganparts.precision import at_least_fp32

__all__ = [
    "BlurDownsample",
    "BlurUpsample",
    "Init",
    "InstanceNorm2d",
    "Norm",
    "Padding",
    "ReflectionPad2d",
    "Upsample",
    "check_images",
    "evaluating",
    "images_are_independent",
    "init_weights",
    "instance_norm",
    "keras_instance_norm",
    "norm_layer",
    "normalized",
    "one_of",
    "padded_conv",
    "recompute_blocks",
    "recomputed",
    "residual_output",
    "size_limits",
    "start_as_identity",
    "upsampling",
]

Norm = Literal["instance", "instance_affine", "batch", "group", "none"] | Callable[[int], nn.Module]
"""A normalisation by name, or a function from the number of channels to a module."""

Padding = Literal["reflect", "replicate", "zero"]
Upsample = Literal["transposed", "resize_conv"]
Init = Literal["normal", "xavier"]


def instance_norm(images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise every channel of every image over its pixels (Ulyanov et al. 2016, arXiv 1607.08022).

    Args:
        images: [B, C, H, W], any H and W from 1x1 on, in any memory layout. The result has the same layout.
        weight: scale of each channel [C], or None.
        bias: shift of each channel [C], or None.
        eps: added to the (biased) variance.
    """
    if images.is_cuda and images.is_contiguous(memory_format=torch.channels_last):
        # CUDA's group norm would go to NCHW and back.
        return _pointwise_instance_norm(images, weight, bias, eps)
    return torch.group_norm(images, images.shape[1], weight, bias, eps)


def _pointwise_instance_norm(images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    wide = at_least_fp32(images)  # or the mean is rounded
    variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
    normalised = (wide - mean) * torch.rsqrt(variance + eps)
    if weight is not None:
        normalised = normalised * weight[:, None, None]
    if bias is not None:
        normalised = normalised + bias[:, None, None]
    return normalised.to(images.dtype)


class InstanceNorm2d(nn.InstanceNorm2d):
    """:func:`instance_norm` as a module; no running statistics, so ``train()`` and ``eval()`` agree."""

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = False):
        super().__init__(channels, eps=eps, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        return instance_norm(input, self.weight, self.bias, self.eps)


class ReflectionPad2d(nn.ReflectionPad2d):
    """PyTorch's, except under deterministic algorithms on CUDA (``torch.use_deterministic_algorithms``).

    There PyTorch's backward adds in no fixed order, so the padding is made of mirrored slices instead.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda and torch.are_deterministic_algorithms_enabled():
            left, right, top, bottom = self.padding
            return _mirror_margins(_mirror_margins(input, left, right, 3), top, bottom, 2)
        return super().forward(input)


def _mirror_margins(images: Tensor, before: int, after: int, axis: int) -> Tensor:
    size = images.shape[axis]
    first = images.narrow(axis, 1, before).flip(axis)
    last = images.narrow(axis, size - 1 - after, after).flip(axis)
    return torch.cat([first, images, last], axis)


def _group_norm(channels: int) -> nn.Module:
    # 32 groups (Wu and He 2018, arXiv 1803.08494), or the most that divide narrow layers
    return nn.GroupNorm(next(groups for groups in range(min(32, channels), 0, -1) if channels % groups == 0), channels)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": InstanceNorm2d,
    "instance_affine": partial(InstanceNorm2d, affine=True),
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
    "none": lambda channels: nn.Identity(),
}


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """The function from channels to a module that ``norm`` names; a function is returned unchanged.

    Raises:
        ValueError: an unknown name.
    """
    return norm if callable(norm) else _NORMS[one_of("norm", norm, _NORMS)]


def images_are_independent(norm: Norm) -> bool:
    """Whether a network with this norm keeps the images of a batch apart in training.

    Batch norm does not. Of a norm given as a function nothing is known, so the answer is False, except for
    :func:`keras_instance_norm`.
    """
    return norm in ("instance", "instance_affine", "group", "none", keras_instance_norm)


def normalized(conv: nn.Conv2d | nn.ConvTranspose2d, norm: Norm | None) -> list[nn.Module]:
    """``[conv, its norm]``; ``[conv]`` if ``norm`` is None.

    Batch norm replaces the convolution's bias, as in the reference implementation. Instance norm cancels the bias. It
    is kept, since published checkpoints have it, but is not trained: its gradient would be rounding noise.
    """
    if norm is None:
        return [conv]
    layer = norm_layer(norm)(conv.out_channels)
    if isinstance(layer, nn.BatchNorm2d):
        conv.bias = None
    elif isinstance(layer, nn.InstanceNorm2d) and conv.bias is not None:
        conv.bias.requires_grad_(False)
    return [conv, layer]


def padded_conv(
    in_channels: int, out_channels: int, kernel: int, padding: Padding, norm: Norm | None = None
) -> list[nn.Module]:
    """Layers of stride 1 that keep the size: padding (unless the convolution pads with zeros), convolution, norm.

    Raises:
        ValueError: an unknown padding or norm.
    """
    margin = kernel // 2
    pads = {"reflect": [ReflectionPad2d(margin)], "replicate": [nn.ReplicationPad2d(margin)], "zero": []}
    pad = pads[one_of("padding", padding, pads)]
    return [*pad, *normalized(nn.Conv2d(in_channels, out_channels, kernel, padding=0 if pad else margin), norm)]


def upsampling(
    in_channels: int, out_channels: int, kernel: Literal[3, 4], upsample: Upsample, norm: Norm | None = None
) -> list[nn.Module]:
    """Layers that double height and width, then the norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: of the transposed convolution; 3 in the ResNet, 4 in the U-Net.
        upsample: ``"transposed"``, or ``"resize_conv"``: nearest neighbour, then a 3x3 convolution, free of
            checkerboard patterns (Odena et al. 2016, doi 10.23915/distill.00003).
        norm: as :func:`norm_layer`; None for an output layer.

    Raises:
        ValueError: an unknown ``upsample`` or norm.
    """
    if one_of("upsample", upsample, ("transposed", "resize_conv")) == "resize_conv":
        return [nn.Upsample(scale_factor=2), *padded_conv(in_channels, out_channels, 3, "reflect", norm)]
    conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride=2, padding=1, output_padding=kernel % 2)
    return normalized(conv, norm)


class BlurDownsample(nn.Module):
    """Blurs, then keeps every second pixel (Zhang 2019, arXiv 1904.11486): [B, C, H, W] to half the size, rounded up.

    The filter is [1, 2, 1] x [1, 2, 1] / 16 on reflected borders. It is the buffer ``filt`` [C, 1, 3, 3], as in
    published checkpoints. Height and width must be at least 2.
    """

    filt: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.pad = ReflectionPad2d(1)
        self.register_buffer("filt", _blur_filter((1.0, 2.0, 1.0), channels))

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(self.pad(features), self.filt, stride=2, groups=self.filt.shape[0])


class BlurUpsample(nn.Module):
    """Doubles height and width, then blurs (Zhang 2019, arXiv 1904.11486): [B, C, H, W] to [B, C, 2H, 2W].

    The filter is [1, 3, 3, 1] x [1, 3, 3, 1] / 16 on replicated borders, which is bilinear interpolation. It is the
    buffer ``filt`` [C, 1, 4, 4], as in published checkpoints.
    """

    filt: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.pad = nn.ReplicationPad2d(1)
        self.register_buffer("filt", 4 * _blur_filter((1.0, 3.0, 3.0, 1.0), channels))

    def forward(self, features: Tensor) -> Tensor:
        # CUT pads its transposed convolution by 2 and cuts off the outermost pixels: the same as padding by 3.
        return F.conv_transpose2d(self.pad(features), self.filt, stride=2, padding=3, groups=self.filt.shape[0])


def _blur_filter(taps: Sequence[float], channels: int) -> Tensor:
    line = torch.tensor(taps)
    square = line[:, None] * line
    return (square / square.sum()).repeat(channels, 1, 1, 1)


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
    if torch.is_grad_enabled() and total.requires_grad and not _is_exporting():
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


def init_weights(module: nn.Module, init: Init = "normal") -> None:
    """Initialise one layer as the reference implementation does, for ``network.apply(init_weights)``.

    Convolutions have zero bias; batch norm's scale is N(1, 0.02). On the meta device there is nothing to fill.

    Args:
        module: of any kind; layers without such weights stay as they are.
        init: of convolutions: ``"normal"`` is CycleGAN's N(0, 0.02), ``"xavier"`` is CUT's Xavier normal
            (Glorot and Bengio 2010) with gain 0.02.

    Raises:
        ValueError: an unknown ``init``.
    """
    one_of("init", init, ("normal", "xavier"))
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.is_meta:  # for meta PyTorch would import its compiler, to do nothing
        return
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        if init == "xavier":
            nn.init.xavier_normal_(module.weight, 0.02)
        else:
            nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def recomputed(
    function: Callable[..., Tensor], *inputs: Tensor, recompute: bool = True, random: bool = False
) -> Tensor:
    """``function(*inputs)``, of which training keeps only the inputs; backward computes the rest again.

    Args:
        function: computes a block's output.
        inputs: its inputs.
        recompute: whether to do so; else, and where no gradient is needed, this is a plain call.
        random: whether the function draws random numbers, which must then be the same again.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=random)
    return function(*inputs)


def recompute_blocks(network: nn.Module, recompute: bool = True) -> int:
    """Make every layer with an attribute ``recompute`` (a residual block) keep only its input for backward.

    The rest is computed again when backward needs it (Chen et al. 2016, arXiv 1604.06174): less memory for more time.

    Returns:
        The number of such layers.
    """
    layers = [layer for layer in network.modules() if hasattr(layer, "recompute")]
    for layer in layers:
        layer.recompute = recompute  # pyright: ignore[reportArgumentType]
    return len(layers)


@contextmanager
def evaluating(*modules: nn.Module | None) -> Iterator[None]:
    """Put modules in ``eval()`` mode; on leaving, put each of their submodules back in its former mode."""
    modes = {part: part.training for module in modules if module is not None for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def keras_instance_norm(channels: int) -> InstanceNorm2d:
    """TensorFlow Addons' instance norm as the Keras tutorial sets it: affine, eps 1e-3, scale from N(0, 0.02)."""
    layer = InstanceNorm2d(channels, eps=1e-3, affine=True)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer


def size_limits(network: object) -> tuple[int, int]:
    """``size_multiple`` and ``min_size`` of a network: 1 and ``size_multiple`` where it does not say."""
    multiple = getattr(network, "size_multiple", 1)
    return multiple, getattr(network, "min_size", multiple)


def check_images(images: Tensor, *, channels: int, multiple: int = 1, minimum: int = 1) -> None:
    """Refuse images that a network cannot take; during export check nothing, so that sizes stay free.

    Args:
        images: should be float [B, C, H, W].
        channels: C must be this.
        multiple: H and W must be multiples of it.
        minimum: H and W must be at least this.

    Raises:
        ValueError: names the type or shape, what is wanted, and the remedy.
    """
    if _is_exporting():
        return
    if not images.is_floating_point():
        raise ValueError(f"images are floats in [-1, 1], but these are {images.dtype}: see ganparts.data.to_unit_range")
    if images.ndim != 4:
        raise ValueError(
            f"images are [B, C, H, W], but this has the shape {list(images.shape)}: a single one is image[None]"
        )
    if images.shape[1] != channels:
        raise ValueError(
            f"images are [B, C, H, W] with C={channels} for this network, but these have the shape "
            f"{list(images.shape)}: convert them, or build it with in_channels={images.shape[1]}"
        )
    height, width = images.shape[-2:]
    nearest = [max(minimum, (side + multiple // 2) // multiple * multiple, multiple) for side in (height, width)]
    if height % multiple or width % multiple:
        raise ValueError(
            f"the images are {height}x{width}, but this network needs a height and a width that are multiples of "
            f"{multiple}: resize, crop or pad them to {nearest[0]}x{nearest[1]}"
        )
    if min(height, width) < minimum:
        raise ValueError(
            f"the images are {height}x{width}, but this network needs at least {minimum}x{minimum}: resize or pad them"
        )


def one_of(option: str, value: Any, known: Collection[Any]) -> Any:
    """``value``, if it is one of those that an option knows.

    Raises:
        ValueError: names the option, its value and those that are known.
    """
    if value not in known:
        raise ValueError(f"{option}={value!r} is not known: use one of {', '.join(map(repr, known))}")
    return value


# PyTorch 2.6 cannot tell export from compilation.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
