"""The loss of U-GAT-IT's attention (Kim et al. 2020, arXiv 1907.10830), for generators that tell what they attend to.

Such a generator has a method ``forward_with_attention(images)``. It returns the image that ``forward`` returns and
logits [B, ...], then anything else. The logits say whether the images are of the source domain. The loss teaches them
to say "source" of what is translated, and "target" of images that are of the target domain already.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ganparts.adversarial import apply_to_each
from ganparts.precision import at_least_fp32

__all__ = ["Seen", "attention_loss", "look"]


class Seen(NamedTuple):
    """What a generator makes of images, and what its attention says of them.

    Args:
        image: [B, C, H, W] in [-1, 1].
        logits: whether the images are of the source domain; None where nobody asked.
    """

    image: Tensor
    logits: Tensor | None = None


def look(generator: Any, *batches: Tensor) -> list[Seen]:
    """Apply a generator with attention to each batch, in one call if its images are independent."""
    seen = apply_to_each(generator, *batches, call=lambda images: generator.forward_with_attention(images)[:2])
    return [Seen(*each) for each in seen]


def attention_loss(logits: Tensor, label: float) -> Tensor:
    """The mean cross-entropy of logits, at least in fp32, with one label: 1 for the source domain, 0 for the target."""
    logits = at_least_fp32(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
