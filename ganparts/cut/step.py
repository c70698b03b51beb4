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

from ganparts.adversarial import Optimizers, constrain, losses_of_critics, sum_of, trained_parameters
from ganparts.losses import patch_nce
from ganparts.protocols import Pair

if TYPE_CHECKING:
    from ganparts.cut.assembly import CUT

__all__ = ["train_cut"]


def train_cut(
    model: CUT, pair: Pair, optimizers: Optimizers, *, step: int | None = None, low_memory: bool = False
) -> dict[str, Tensor]:
    """Train generator, projector and discriminators once; see :meth:`ganparts.CUT.train_step`."""
    optimizers.zero_grad()
    source, target = pair
    trained = trained_parameters(model.generator, model.projector)
    flip = model.draw_flip(source) if model.flip_equivariance else None

    identity = None
    if model.nce_identity and low_memory:
        same, keys = _translate(model, target, flip)
        identity = 0.5 * _contrast(model, target, same, keys, flip)
        optimizers.backward(identity, trained)
    if model.nce_identity and not low_memory:
        (fake, same), (keys, keys_of_target) = _translate_both(model, source, target, flip)
    else:
        (fake, keys), same, keys_of_target = _translate(model, source, flip), None, None

    each = [critic.discriminate(target, fake.detach(), optimizers, step=step) for critic in model.all_critics()]
    _step(optimizers, "discriminators")
    judged = [critic.gradient(fake, optimizers, real=target) for critic in model.all_critics()]

    nce = _contrast(model, source, fake, keys, flip)
    if model.nce_identity:
        nce = 0.5 * nce
    contrast = nce
    if same is not None:
        identity = 0.5 * _contrast(model, target, same, keys_of_target, flip)
        contrast = nce + identity
    optimizers.backward(contrast, trained, onward=(fake, sum_of([one.gradient for one in judged])))
    _step(optimizers, "generators", "projectors")
    constrain([model.generator])
    losses = (
        losses_of_critics("gan", [one.generator for one in judged])
        | {"nce": nce}
        | ({} if identity is None else {"nce_identity": identity})
        | losses_of_critics("disc", [loss for loss, _ in each])
        | losses_of_critics("penalty", [penalty for _, penalty in each])
    )
    return {name: loss.detach() for name, loss in losses.items()}


def _step(optimizers: Optimizers, *names: str) -> None:
    if known := [name for name in names if name in optimizers]:
        optimizers.step(*known)


def _flipped(values: Tensor, flip: Tensor | None) -> Tensor:
    return values if flip is None else torch.where(flip, values.flip(-1), values)


def _translate(model: CUT, images: Tensor, flip: Tensor | None) -> tuple[Tensor, list[Tensor] | None]:
    """The images, mirrored where ``flip`` says so, translated; and their features as keys if they come for free."""
    if flip is not None:
        return model.generator(_flipped(images, flip)), None
    fake, features = model.generator.forward_with_features(images, model.layers)
    return fake, [feature.detach() for feature in features]


def _translate_both(
    model: CUT, source: Tensor, target: Tensor, flip: Tensor | None
) -> tuple[tuple[Tensor, Tensor], tuple[list[Tensor] | None, list[Tensor] | None]]:
    """Source and target translated in one call, as published, and their keys if they come for free."""
    sizes = [len(source), len(target)]
    together, features = _translate(model, torch.cat([source, target]), flip)
    fake, same = together.split(sizes)
    if features is None or not getattr(model.generator, "images_are_independent", False):
        return (fake, same), (None, None)
    parts = [feature.split(sizes) for feature in features]
    return (fake, same), ([part[0] for part in parts], [part[1] for part in parts])


def _contrast(
    model: CUT, images: Tensor, translated: Tensor, keys: Sequence[Tensor] | None, flip: Tensor | None
) -> Tensor:
    """The weighted contrastive loss of images and their translations."""
    queries = [_flipped(feature, flip) for feature in model.generator.features(translated, model.layers)]
    with torch.no_grad():
        if keys is None:
            keys = model.generator.features(images, model.layers)
        positions = model.draw_positions(keys)
        key_vectors = model.projector(keys, positions)
    query_vectors = model.projector(queries, positions)
    losses = [
        patch_nce(query, key, images=len(images), temperature=model.temperature)
        for query, key in zip(query_vectors, key_vectors, strict=True)
    ]
    return model.nce_weight * torch.stack(losses).mean()
