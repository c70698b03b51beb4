"""PatchNCE, the contrastive loss of CUT (Park et al. 2020, arXiv 2007.15651), and the network that it trains, called F.

A patch of the translated image (the query) should resemble the patch at the same place of the original (its key) more
than the other patches of the original. A patch is the feature of a generator's layer at one position::

    keys, queries = generator.features(images, layers), generator.features(translated, layers)
    positions = draw_positions(keys)
    pairs = zip(projector(queries, positions), projector(keys, positions), strict=True)
    loss = torch.stack([patch_nce(query, key, images=len(images)) for query, key in pairs]).mean()

Values and gradients are the published implementation's. Deviations: the projector is built from the numbers of
channels, not at its first call; norms and similarities are computed in float32 at least; the gradient of a vector of
zeros is zero, where the published one is not a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts.blocks import one_of
from ganparts.precision import at_least_fp32, without_autocast

__all__ = ["PatchProjector", "draw_positions", "patch_nce", "sample_patches"]

_FILL = -10.0  # in the place of the positive among the negatives: less than any similarity


def draw_positions(features: Sequence[Tensor], *, patches: int = 256) -> list[Tensor]:
    """Draw random positions for each layer, on the device of its feature.

    The positions of a layer are different from each other, and the same for all images of a batch.

    Args:
        features: one for each layer, [B, C, H, W]; H and W may differ.
        patches: how many to draw; a layer of fewer positions gives all of them.

    Returns:
        For each layer int64 [min(patches, H * W)], each row * W + column.

    Raises:
        ValueError: ``patches`` is less than 1.
    """
    if patches < 1:
        raise ValueError(f"patches={patches}: at least 1 is needed, and 2 to have a negative")
    return [torch.randperm(f.shape[2] * f.shape[3], device=f.device)[:patches] for f in features]


def sample_patches(features: Tensor, positions: Tensor) -> Tensor:
    """The vectors at these positions: [B, C, H, W] and [P] to [B * P, C], image after image."""
    # Not permute(0, 2, 3, 1): PyTorch's instance norm gets the gradient of that wrong on the CPU for one image.
    return features.flatten(2)[:, :, positions].transpose(1, 2).flatten(0, 1)


class PatchProjector(nn.Module):
    """CUT's network F: for each layer samples patches, maps them by Linear-ReLU-Linear and makes them of length 1.

    Its state-dict keys are the published ones, ``mlp_0.0.weight``, ``mlp_0.2.weight`` and so on. The weights are
    Xavier normal with gain 0.02, the biases 0, as published.

    Args:
        channels: of each layer's feature, as ``generator.feature_channels(layers)`` gives them.
        width: channels of the result, and in between.
        mlp: False leaves out the mapping; then nothing is trained, and ``width`` means nothing.
    """

    def __init__(self, channels: Sequence[int], *, width: int = 256, mlp: bool = True):
        super().__init__()
        self.layers, self.mlp = len(channels), mlp
        for number, count in enumerate(channels if mlp else ()):
            self.add_module(f"mlp_{number}", nn.Sequential(nn.Linear(count, width), nn.ReLU(), nn.Linear(width, width)))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, 0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Sample, map and normalise.

        Args:
            features: one for each layer, [B, C, H, W].
            positions: one for each layer, [P], from :func:`draw_positions`.

        Returns:
            One for each layer: [B * P, width], image after image; without ``mlp`` [B * P, C].

        Raises:
            ValueError: there are more or fewer features or positions than layers.
        """
        if not len(features) == len(positions) == self.layers:
            raise ValueError(
                f"this projector is for {self.layers} layers, but was given features of {len(features)} and positions "
                f"of {len(positions)}: build it from generator.feature_channels(layers) of the same layers"
            )
        projected = []
        for number, (feature, places) in enumerate(zip(features, positions, strict=True)):
            vectors = sample_patches(feature, places)
            if self.mlp:
                vectors = self.get_submodule(f"mlp_{number}")(vectors)
            vectors = at_least_fp32(vectors)
            projected.append(vectors / (torch.linalg.vector_norm(vectors, dim=1, keepdim=True) + 1e-7))
        return projected


def patch_nce(
    query: Tensor,
    key: Tensor,
    *,
    images: int,
    temperature: float = 0.07,
    negatives_from_batch: bool = False,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Cross-entropy of finding each query's key among all keys of its image, by q . k / temperature.

    Args:
        query: vectors of length 1 of the translated images, [B * P, C], image after image.
        key: of the originals, at the same places, [B * P, C]; they get no gradient.
        images: B, how many images these are.
        temperature: the similarities are divided by it.
        negatives_from_batch: compare with the keys of all images, not of the same one alone.
        reduction: ``"mean"`` over all patches, or ``"none"``.

    Returns:
        A scalar, or [B * P]; in float32 at least.

    Raises:
        ValueError: two shapes, an ``images`` that does not divide B * P, or an unknown reduction.
    """
    if query.shape != key.shape or query.ndim != 2:
        raise ValueError(f"queries and keys are [B * P, C] alike, but these are {[*query.shape]} and {[*key.shape]}")
    if images < 1 or len(query) % images:
        raise ValueError(f"{len(query)} patches are not of images={images}: pass the batch size they were sampled from")
    one_of("reduction", reduction, ("mean", "none"))
    groups = 1 if negatives_from_batch else images
    q, k = (at_least_fp32(vectors).unflatten(0, (groups, -1)) for vectors in (query, key.detach()))
    with without_autocast(query.device):
        positive = (q * k).sum(2, keepdim=True)  # [groups, n, 1]
        negative = q @ k.transpose(1, 2)  # [groups, n, n]
    own = torch.eye(q.shape[1], dtype=torch.bool, device=q.device)
    logits = torch.cat([positive, negative.masked_fill(own, _FILL)], 2).flatten(0, 1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction=reduction)
