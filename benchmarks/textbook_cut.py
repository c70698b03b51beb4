"""A step of CUT and one of pix2pix as their published codes order the calls: what ours must equal and beat.

The discriminator is frozen by ``requires_grad`` during the generator's update, every batch has a pass of its own, and
CUT encodes source images and translations again for the contrastive loss. They use the model's networks and losses and
nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ganparts import CUT, Pair, Pix2Pix
from ganparts.adversarial import Optimizers

__all__ = ["textbook_cut_step", "textbook_pix2pix_step"]


def textbook_cut_step(
    model: CUT,
    pair: Pair,
    optimizers: Optimizers,
    *,
    positions: Sequence[Sequence[Tensor]],
    flip: bool = False,
) -> dict[str, Tensor]:
    """Train generator, discriminator and projector once.

    Args:
        model: with one critic, without replay, augmentation and penalty.
        pair: images of both domains.
        optimizers: of the model.
        positions: of the patches, for each layer: of the source term, and of the identity term if there is one.
        flip: whether the generator's input is mirrored.

    Returns:
        The weighted losses, as :func:`ganparts.train_step` names them.
    """
    source, target = pair
    generator, discriminator = model.generator, model.discriminator
    adversarial = next(iter(model.critics)).loss
    given = torch.cat([source, target]) if model.nce_identity else source
    made = generator(given.flip(-1) if flip else given)
    fake, same = made[: len(source)], made[len(source) :]

    optimizers["discriminators"].zero_grad()
    disc = adversarial.discriminator(discriminator(target), discriminator(fake.detach()))
    disc.backward()
    optimizers["discriminators"].step()

    discriminator.requires_grad_(False)
    optimizers["generators"].zero_grad()
    optimizers["projectors"].zero_grad()
    losses = {"gan": adversarial.generator(discriminator(fake))}
    half = 0.5 if model.nce_identity else 1.0
    losses["nce"] = half * _nce(model, source, fake, positions[0], flip)
    if model.nce_identity:
        losses["nce_identity"] = half * _nce(model, target, same, positions[1], flip)
    torch.stack(list(losses.values())).sum().backward()
    optimizers["generators"].step()
    optimizers["projectors"].step()
    discriminator.requires_grad_(True)
    return {name: loss.detach() for name, loss in (losses | {"disc": disc}).items()}


def _nce(model: CUT, images: Tensor, translated: Tensor, positions: Sequence[Tensor], flip: bool) -> Tensor:
    queries = model.generator.features(translated, model.layers)
    keys = model.generator.features(images, model.layers)
    losses = []
    for number, places in enumerate(positions):
        query, key = (
            _projected(model, number, feature, places)
            for feature in (queries[number].flip(-1) if flip else queries[number], keys[number])
        )
        logits = []
        for q, k in zip(query.chunk(len(images)), key.detach().chunk(len(images)), strict=True):
            positive = (q * k).sum(1, keepdim=True)
            negative = (q @ k.T).fill_diagonal_(-10.0)
            logits.append(torch.cat([positive, negative], 1) / model.temperature)
        together = torch.cat(logits)
        losses.append(F.cross_entropy(together, torch.zeros(len(together), dtype=torch.long, device=together.device)))
    return model.nce_weight * sum(losses[1:], losses[0]) / len(losses)


def _projected(model: CUT, number: int, feature: Tensor, places: Tensor) -> Tensor:
    vectors = feature.flatten(2)[:, :, places].permute(0, 2, 1).flatten(0, 1)
    assert model.projector is not None
    vectors = model.projector.get_submodule(f"mlp_{number}")(vectors)
    return vectors / (vectors.norm(dim=1, keepdim=True) + 1e-7)


def textbook_pix2pix_step(model: Pix2Pix, pair: Pair, optimizers: Optimizers) -> dict[str, Tensor]:
    """Train generator and discriminator once; the model has one critic, without replay, augmentation and penalty."""
    source, target = pair
    discriminator, adversarial = model.discriminator, next(iter(model.critics)).loss
    fake = model.generator(source)

    optimizers["discriminators"].zero_grad()
    judged_fake = discriminator(torch.cat([source, fake], 1).detach())
    judged_real = discriminator(torch.cat([source, target], 1))
    disc = adversarial.discriminator(judged_real, judged_fake)
    disc.backward()
    optimizers["discriminators"].step()

    discriminator.requires_grad_(False)
    optimizers["generators"].zero_grad()
    gan = adversarial.generator(discriminator(torch.cat([source, fake], 1)))
    reconstruction = model.reconstruction_weight * (fake - target).abs().mean()
    (gan + reconstruction).backward()
    optimizers["generators"].step()
    discriminator.requires_grad_(True)
    return {"gan": gan.detach(), "reconstruction": reconstruction.detach(), "disc": disc.detach()}
