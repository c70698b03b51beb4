"""One training step of a CycleGAN.

Built for speed and memory: nothing is asked of the device, so it runs on ``meta`` too; no module is toggled; and each
direction (photo to painting and back, painting to photo and back) goes backward before the next begins, so that only
one is kept.

The graph is cut at the generated images. What the discriminator says of them becomes a gradient at the images, at
once, before they are translated back; from there that gradient goes on into the generator together with the cycle's.
So a discriminator's graph is short-lived, and without a replay buffer one pass over the generated images serves both
networks' losses. The reference updates the generators before it computes the discriminators' gradients; those depend
on the generators only through images already made, so updating all networks at the end gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganparts.cyclegan.assembly import CycleGAN, Direction
from ganparts.cyclegan.batching import apply_to_each
from ganparts.cyclegan.losses import Logits, discriminator_loss, generator_loss
from ganparts.cyclegan.optimizers import Optimizers
from ganparts.protocols import Pair

__all__ = ["train_step"]

_KINDS = ("gan", "cycle", "identity", "disc", "penalty")


def train_step(
    model: CycleGAN,
    pair: Pair,
    optimizers: Optimizers,
    *,
    low_memory: bool = False,
    side_stream: torch.cuda.Stream | None = None,
) -> dict[str, Tensor]:
    """Train all four networks once.

    Args:
        model: the assembly; its replay buffers are drawn from and filled.
        pair: images of both domains, on the model's device; of any, even different, batch sizes.
        optimizers: from :func:`make_optimizers`.
        low_memory: send the identity loss backward by itself: a third less is kept, for one more call a direction.
            (:func:`ganparts.blocks.recompute_blocks` brings it down further.)
        side_stream: where the discriminators are trained, beside the generators, if a replay buffer makes the two
            independent; None for one after the other.

    Returns:
        The weighted losses, scalars, detached, on the device: ``gan_ab``, ``gan_ba`` (each generator's adversarial
        loss), ``cycle_a``, ``cycle_b``, ``identity_a``, ``identity_b`` (only where their weight is not 0),
        ``disc_a``, ``disc_b`` (the mean of the real and the fake term), and ``penalty_a``, ``penalty_b`` where an
        adversarial loss has one.
    """
    optimizers.zero_grad()
    a, b = pair
    losses = _train_direction(model.ab, a, b, optimizers, low_memory=low_memory, side_stream=side_stream)
    losses |= _train_direction(model.ba, b, a, optimizers, low_memory=low_memory, side_stream=side_stream)
    optimizers.step()
    return {name: losses[name].detach() for kind in _KINDS for name in sorted(losses) if name.startswith(kind)}


def _train_direction(
    direction: Direction,
    source: Tensor,
    target: Tensor,
    optimizers: Optimizers,
    *,
    low_memory: bool,
    side_stream: torch.cuda.Stream | None,
) -> dict[str, Tensor]:
    """Add the gradients of one direction to its networks; its losses."""
    generators = _trained(direction.there, direction.back)
    identity = None
    if low_memory and direction.identity_weight:
        identity = direction.weighted_identity(direction.there(target), target)
        optimizers.backward(identity, generators)
        fake, same = direction.there(source), None
    else:
        fake, same = direction.translate_there(source, target)
    if side_stream is not None:  # it begins here in any case, so that it can be joined below
        side_stream.wait_stream(torch.cuda.current_stream())
    seen = _show(direction, target, fake)
    judged = _judge(direction, seen, optimizers, side_stream)
    consistency = cycle = direction.weighted_cycle(direction.back(fake), source)
    if same is not None:
        identity = direction.weighted_identity(same, target)
        consistency = cycle + identity
    optimizers.backward(consistency, generators, onward=(fake, judged.gradient))
    if side_stream is not None:  # until here ``seen`` is alive, so that nothing else is put in its place
        torch.cuda.current_stream().wait_stream(side_stream)
    losses = {
        f"gan_{direction.name}": judged.generator,
        f"cycle_{direction.name[0]}": cycle,
        f"identity_{direction.name[1]}": identity,
        f"disc_{direction.name[1]}": judged.discriminator,
        f"penalty_{direction.name[1]}": judged.penalty,
    }
    return {name: loss for name, loss in losses.items() if loss is not None}


class _Seen(NamedTuple):
    """What a discriminator sees: real images, generated ones (a graph begins at ``start``), and what the replay
    buffer gives for them, or None where there is none."""

    start: Tensor
    real: Tensor
    generated: Tensor
    replayed: Tensor | None

    def pair(self) -> tuple[Tensor, Tensor]:
        """What the discriminator is trained on: real images and others."""
        return self.real, self.generated if self.replayed is None else self.replayed


def _show(direction: Direction, real: Tensor, fake: Tensor) -> _Seen:
    """One augmented set of images, which serves both networks' losses."""
    start = fake.detach().requires_grad_()
    images = [real, start]
    if not isinstance(direction.replay, nn.Identity):
        images.append(direction.replay(fake.detach()))
    if direction.augment is not None:
        images = direction.augment(torch.cat(images)).split([len(batch) for batch in images])
    return _Seen(start, images[0], images[1], images[2] if len(images) == 3 else None)


class _Judged(NamedTuple):
    """The adversarial losses of one direction, and the generator's gradient at the images that it made."""

    generator: Tensor
    gradient: Tensor
    discriminator: Tensor
    penalty: Tensor | None


def _judge(direction: Direction, seen: _Seen, optimizers: Optimizers, side_stream: torch.cuda.Stream | None) -> _Judged:
    """What the discriminator says of the images; its own gradients are added.

    The generator is judged by ``generated``, the discriminator by ``real`` and ``replayed``; without a buffer by
    ``generated`` itself, seen once.
    """
    discriminator, loss = direction.discriminator, direction.adversarial
    others = [seen.real] if seen.replayed is None else [seen.real, seen.replayed]
    fakes: list[Logits] = [discriminator(seen.generated)]
    other_logits = apply_to_each(discriminator, *others) if getattr(loss, "needs_real", False) else None
    apart = other_logits is None and seen.replayed is not None
    generator = generator_loss(loss, fakes[0], None if other_logits is None else other_logits[0])
    gradient = optimizers.gradient(generator, seen.start, retain_graph=not apart)
    if apart:  # a graph that lived on would tie what follows to this stream
        generator = generator.detach()
        fakes.clear()
    with _beside(side_stream if apart else None):
        real_logits, *replayed_logits = other_logits or apply_to_each(discriminator, *others)
        disc = discriminator_loss(loss, real_logits, (replayed_logits or fakes)[0])
        penalize = getattr(loss, "penalty", None)
        penalty = None if penalize is None else penalize(discriminator, *(images.detach() for images in seen.pair()))
        optimizers.backward(disc if penalty is None else disc + penalty, _trained(discriminator))
    return _Judged(generator, gradient, disc, penalty)


@contextmanager
def _beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """What is done here goes to ``stream``, after what was asked of the current one so far."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


def _trained(*networks: nn.Module) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]
