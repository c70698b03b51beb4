"""What generators and discriminators are built from: normalisation, padding, resizing, initialisation.

Deviations from ``torch.nn``: :class:`InstanceNorm2d` keeps a channels-last layout and copes with a 1x1 map, which
PyTorch's refuses in training; :class:`ReflectionPad2d` is deterministic on CUDA under deterministic algorithms.
"""

from ganparts.blocks.checks import check_counts, check_images, check_sizes, check_weight, one_of, size_limits
from ganparts.blocks.layers import (
    BlurDownsample,
    BlurUpsample,
    Init,
    Padding,
    ReflectionPad2d,
    Upsample,
    init_weights,
    padded_conv,
    strided_conv,
    upsampling,
)
from ganparts.blocks.norms import (
    InstanceNorm2d,
    Norm,
    images_are_independent,
    instance_norm,
    keras_instance_norm,
    norm_layer,
    normalized,
)
from ganparts.blocks.residual import residual_output, start_as_identity
from ganparts.blocks.switches import evaluating, recompute_blocks, recomputed

__all__ = [
    "BlurDownsample",
    "BlurUpsample",
    "Init",
    "InstanceNorm2d",
    "Norm",
    "Padding",
    "ReflectionPad2d",
    "Upsample",
    "check_counts",
    "check_images",
    "check_sizes",
    "check_weight",
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
    "strided_conv",
    "upsampling",
]
