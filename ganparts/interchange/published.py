"""Weights that others published, read without being told whose they are.

Each family of networks has a reader in a module of its own, which knows it by names that no other family has.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ganparts.interchange import attention_gan, cut, ganilla, junyanz, pix2pixhd, projected_gan, ugatit, uvcgan2
from ganparts.interchange.weights import Builder, Weights, checked_weights, with_weights

__all__ = ["FAMILIES", "from_published", "has_known_names"]

FAMILIES: dict[str, Callable[[Weights], Builder | None]] = {
    "U-GAT-IT": ugatit.find_builder,
    "UVCGAN2": uvcgan2.find_builder,
    "GANILLA": ganilla.find_builder,
    "AttentionGAN": attention_gan.find_builder,
    "Projected GAN's discriminator": projected_gan.find_builder,
    "pix2pixHD's discriminator": pix2pixhd.find_builder,
    "CUT": cut.find_builder,
    "CycleGAN and pix2pix": junyanz.find_builder,
}
"""What recognises the weights of each family. The last one's names are part of others', so it is asked last."""


def from_published(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The network that a published checkpoint holds, with its weights.

    It reads the generators and discriminators of CycleGAN and pix2pix (pytorch-CycleGAN-and-pix2pix), CUT with its
    projector F, U-GAT-IT, UVCGAN2, GANILLA and AttentionGAN, and the discriminators of pix2pixHD and Projected GAN.
    Which of them it is, depth, width, channels, norm and options are read from the names and shapes. The network gets
    the weights' dtype and device. It is built by name, so that it can be saved with
    :func:`~ganparts.interchange.save_pretrained`; except F and Projected GAN's heads, which are not registered parts.

    What leaves no trace in the weights is as the source has it: dropout, padding, the attention heads of UVCGAN2.

    Args:
        state_dict: the tensors by name, for instance from ``torch.load(file, weights_only=True)``; a prefix
            ``module.`` (from ``nn.DataParallel``) is dropped.

    Raises:
        TypeError: not a mapping.
        ValueError: the weights are of no family that is known, or they do not fit it; the message says what was found.
    """
    weights = pix2pixhd.plain_names(checked_weights(state_dict, caller="from_published"))
    for family, find_builder in FAMILIES.items():
        if (build := find_builder(weights)) is not None:
            try:
                return with_weights(build, weights)
            except ValueError as error:
                raise ValueError(f"read as {family}: {error}") from None
    shown = textwrap.shorten(", ".join(list(weights)[:4]), 300) or "none"
    raise ValueError(
        f"no network that is known has weights of these names: {shown}{', ...' if len(weights) > 4 else ''}. Pass the "
        f"state_dict of one network of {', '.join(FAMILIES)}"
    )


def has_known_names(weights: Weights) -> bool:
    """Whether weights have the names of a family; they may still not fit it."""
    plain = pix2pixhd.plain_names(weights)
    return any(find_builder(plain) is not None for find_builder in FAMILIES.values())
