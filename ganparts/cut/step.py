"""One training step of CUT.

The discriminators are updated first, then the generator against the updated discriminators, as in the published code.
The features of the source images, the keys, need no gradient. Without flips they come from the pass that translates
the images, which saves a pass through the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganparts.adversarial import (
    Optimizers,
    apply_to_each,
    consistency_loss,
    constrain,
    losses_of_critics,
    sum_of,
    trained_parameters,
)
from ganparts.blocks import check_sizes, size_limits
from ganparts.losses import grid_pattern, patch_nce
from ganparts.protocols import Pair

if TYPE_CHECKING:
    from ganparts.cut.assembly import CUT

__all__ = ["train_cut"]

Keys = Sequence[Tensor] | None
_BORDER = 8  # of a side, a part that a shift's loss leaves out: there the padding shows


def train_cut(
    model: CUT, pair: Pair, optimizers: Optimizers, *, step: int | None = None, low_memory: bool = False
) -> dict[str, Tensor]:
    """Train generator, projector and discriminators once; see :meth:`ganparts.CUT.train_step`."""
    optimizers.zero_grad()
    source, target = pair
    check_sizes(source, target)
    trained = trained_parameters(*model.stages().values(), *model.projectors().values())
    flip = model.draw_flip(source) if model.flip_equivariance else None

    kept: dict[str, Tensor] = {}
    same, keys_of_target = None, None
    if model.translates_targets and low_memory:
        same, keys_of_target = _translate(model, target, flip)
        kept = _identity_losses(model, target, same, keys_of_target, flip)
        optimizers.backward(sum_of(list(kept.values())), trained)
        same = None
    if model.translates_targets and not low_memory:
        (fake, same), (keys, keys_of_target) = _translate_both(model, source, target, flip)
    else:
        fake, keys = _translate(model, source, flip)

    each = [critic.discriminate(target, fake.detach(), optimizers, step=step) for critic in model.critics]
    _step(optimizers, "discriminators")
    judged = [critic.gradient(fake, optimizers, real=target) for critic in model.critics]

    content = _content_losses(model, source, fake, keys, flip)
    if same is not None:
        kept = _identity_losses(model, target, same, keys_of_target, flip)
    total = sum_of([*content.values(), *(kept.values() if same is not None else ())])
    optimizers.backward(total, trained, onward=(fake, sum_of([one.gradient for one in judged])))
    _step(optimizers, "generators", "projectors")
    constrain([model.generator])
    losses = (
        losses_of_critics("gan", [one.generator for one in judged])
        | content
        | kept
        | losses_of_critics("disc", [loss for loss, _ in each])
        | losses_of_critics("penalty", [penalty for _, penalty in each])
    )
    return {name: loss.detach() for name, loss in losses.items()}


def _content_losses(model: CUT, source: Tensor, fake: Tensor, keys: Keys, flip: Tensor | None) -> dict[str, Tensor]:
    """The weighted losses that keep the content of source images."""
    losses = {}
    if model.nce_weight:
        half = 0.5 if model.nce_identity else 1.0
        losses["nce"] = half * _contrast(model, source, fake, keys, flip)
    if model.content_weight and model.content is not None:
        losses["content"] = model.content_weight * consistency_loss(model.content, fake, _flipped(source, flip))
    if model.grid_weight:
        losses["grid"] = model.grid_weight * grid_pattern(fake)
    if model.shift_weight:
        losses["shift"] = model.shift_weight * _shift_loss(model, _flipped(source, flip), fake)
    return losses or {"content": 0.0 * fake.mean()}  # of the graph, so that the critics' gradient goes through it


def _identity_losses(model: CUT, target: Tensor, same: Tensor, keys: Keys, flip: Tensor | None) -> dict[str, Tensor]:
    """The weighted losses that keep target images."""
    losses = {}
    if model.nce_weight and model.nce_identity:
        losses["nce_identity"] = 0.5 * _contrast(model, target, same, keys, flip)
    if model.identity_weight and model.identity is not None:
        losses["identity"] = model.identity_weight * consistency_loss(model.identity, same, _flipped(target, flip))
    return losses


def _shift_loss(model: CUT, images: Tensor, translated: Tensor) -> Tensor:
    """The mean difference between translations of shifted images and shifted translations, borders left out."""
    most = size_limits(model.generator)[0]
    sides = [side - most for side in images.shape[-2:]]
    if min(sides) < most:
        raise ValueError(
            f"shift_weight={model.shift_weight}: images of {images.shape[2]}x{images.shape[3]} are too small to be "
            f"shifted by up to {most - 1} pixels: give sides of at least {2 * most}, or shift_weight=0"
        )
    rows, columns = (torch.arange(side, device=images.device) for side in sides)
    down, right = model.draw_shift(images)

    def shifted(values: Tensor) -> Tensor:
        return values.index_select(2, rows + down).index_select(3, columns + right)

    (top, left) = (side // _BORDER for side in sides)
    inside = (..., slice(top, sides[0] - top), slice(left, sides[1] - left))
    return (model.generator(shifted(images)) - shifted(translated))[inside].abs().mean()


def _step(optimizers: Optimizers, *names: str) -> None:
    if known := [name for name in names if name in optimizers]:
        optimizers.step(*known)


def _flipped(values: Tensor, flip: Tensor | None) -> Tensor:
    return values if flip is None else torch.where(flip, values.flip(-1), values)


def _translate(model: CUT, images: Tensor, flip: Tensor | None) -> tuple[Tensor, list[Tensor] | None]:
    """The images, mirrored where ``flip`` says so, translated; and their features as keys if they come for free."""
    if flip is not None or not model.nce_weight:
        return model.generator(_flipped(images, flip)), None
    fake, features = model.generator.forward_with_features(images, model.layers)
    return fake, [feature.detach() for feature in features]


def _translate_both(
    model: CUT, source: Tensor, target: Tensor, flip: Tensor | None
) -> tuple[tuple[Tensor, Tensor], tuple[list[Tensor] | None, list[Tensor] | None]]:
    """Source and target translated, and their keys if they come for free."""
    sizes = [len(source), len(target)]
    if not model.nce_weight:
        fake, same = apply_to_each(model.generator, _flipped(source, flip), _flipped(target, flip))
        return (fake, same), (None, None)
    together, features = _translate(model, torch.cat([source, target]), flip)  # in one call, as published
    fake, same = together.split(sizes)
    if features is None or not getattr(model.generator, "images_are_independent", False):
        return (fake, same), (None, None)
    parts = [feature.split(sizes) for feature in features]
    return (fake, same), ([part[0] for part in parts], [part[1] for part in parts])


def _contrast(model: CUT, images: Tensor, translated: Tensor, keys: Keys, flip: Tensor | None) -> Tensor:
    """The weighted contrastive loss of images and their translations."""
    projector = model.projector
    assert projector is not None
    queries = [_flipped(feature, flip) for feature in model.generator.features(translated, model.layers)]
    with torch.no_grad():
        known: Sequence[Tensor] = model.generator.features(images, model.layers) if keys is None else keys
        positions = model.draw_positions(known)
        key_vectors = projector(known, positions)
    losses = [
        patch_nce(query, key, images=len(images), temperature=model.temperature)
        for query, key in zip(projector(queries, positions), key_vectors, strict=True)
    ]
    return model.nce_weight * torch.stack(losses).mean()
