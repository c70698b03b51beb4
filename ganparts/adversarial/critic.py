"""A discriminator and everything that trains it.

A :class:`Critic` computes the gradient of the adversarial loss at the generated images: how they should change to look
real. The step then sends that gradient into the generator together with its other losses. So a discriminator's graph is
short-lived, and the generator's graph is walked once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganparts.adversarial.batching import apply_to_each
from ganparts.adversarial.losses import Logits, as_scales, discriminator_loss, generator_loss
from ganparts.adversarial.optimizers import Optimizers, trained_parameters
from ganparts.blocks import check_counts
from ganparts.protocols import AdversarialLoss, Augment, Penalty

__all__ = ["Critic", "Judgement"]


class Judgement(NamedTuple):
    """A critic's losses for generated images, and its gradient at them.

    Args:
        generator: the generator's adversarial loss, weighted; a detached scalar.
        gradient: the gradient of that loss at the images, of their shape.
        discriminator: the discriminator's loss, a detached scalar.
        penalty: the penalty that was added to it, or None.
        held: tensors that must stay alive until a side stream has joined.
    """

    generator: Tensor
    gradient: Tensor
    discriminator: Tensor
    penalty: Tensor | None = None
    held: tuple[Tensor, ...] = ()


class _Seen(NamedTuple):
    """What a discriminator sees, after augmentation. The generator's gradient is taken at ``start``."""

    start: Tensor
    real: Tensor
    fake: Tensor
    replayed: Tensor | None


class Critic(nn.Module):
    """A discriminator with its loss, replay buffer, augmentation and penalty.

    Args:
        discriminator: maps images to logits.
        loss: trains the discriminator, and the generator against it.
        replay: what the discriminator sees of the generated images; None for those just made.
        augment: applied to all images that the discriminator sees, for both networks' losses; None for nothing.
        penalty: added to the discriminator's loss, at images before augmentation; None for none.
        penalty_every: steps between two penalties (lazy regularisation, Karras et al. 2020, arXiv 1912.04958). The
            penalty is multiplied by it, so its mean strength stays the same.

    Raises:
        TypeError: a part of the wrong kind; the message says what is expected.
        ValueError: ``penalty_every`` below 1.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        loss: AdversarialLoss,
        *,
        replay: nn.Module | None = None,
        augment: Augment | None = None,
        penalty: Penalty | None = None,
        penalty_every: int = 1,
    ):
        super().__init__()
        if not isinstance(discriminator, nn.Module):
            raise TypeError(f"discriminator must be a torch.nn.Module, but is {discriminator!r}")
        if not (hasattr(loss, "discriminator") and hasattr(loss, "generator")):
            raise TypeError(
                f"an adversarial loss must have the methods discriminator and generator, but {loss!r} does not"
            )
        for name, function in (("augment", augment), ("penalty", penalty)):
            if function is not None and (isinstance(function, type) or not callable(function)):
                example = {"augment": "DiffAugment()", "penalty": 'PENALTIES.create("r1")'}[name]
                raise TypeError(f"{name} must be a function such as {example}, or None, but is {function!r}")
        check_counts(penalty_every=penalty_every)
        self.discriminator = discriminator
        self.loss = loss
        self.replay = None if isinstance(replay, nn.Identity) else replay
        self.augment = augment
        self.penalty = penalty
        self.penalty_every = penalty_every

    def penalty_factor(self, step: int | None) -> float:
        """The factor on the penalty at a step, counted from 0.

        0 where the penalty is not due, ``penalty_every`` where it is, 1 if the step is not known (None).
        """
        if self.penalty is None:
            return 0.0
        if step is None:
            return 1.0
        return 0.0 if step % self.penalty_every else float(self.penalty_every)

    def judge(
        self,
        real: Tensor,
        fake: Tensor,
        optimizers: Optimizers,
        *,
        step: int | None = None,
        side_stream: torch.cuda.Stream | None = None,
    ) -> Judgement:
        """Judge generated images, and add the gradients of the discriminator's own loss.

        Without a replay buffer one pass over the generated images serves both losses.

        Args:
            real: images of the target domain [B, C, H, W].
            fake: generated images; the batch size may differ.
            optimizers: scale the losses.
            step: number of the training step, from 0; decides whether a lazy penalty is due. None: the penalty applies
                with its plain weight.
            side_stream: the discriminator's own loss goes there if a replay buffer makes it independent of the
                generator's. It must already wait for the current stream; the caller joins it.
        """
        seen = self._show(real, fake)
        factor = self.penalty_factor(step)
        reads_queues = bool(getattr(self.discriminator, "has_queues", False))
        fakes: list[Logits] = [self._logits(seen.fake, "fake")]
        reals = None
        if getattr(self.loss, "needs_real", False):
            reals = self._real_and_replayed(seen, again=reads_queues and seen.replayed is None)
        apart = reals is None and (seen.replayed is not None or reads_queues)
        loss = generator_loss(self.loss, fakes[0], None if reals is None else reals[0])
        gradient = optimizers.gradient(loss, seen.start, retain_graph=not apart)
        if apart:  # a graph that lived on would tie what follows to this stream
            loss = loss.detach()
            fakes.clear()
        with _beside(side_stream if apart else None):
            if reals is None:
                reals = self._real_and_replayed(seen, again=apart and seen.replayed is None)
            real_logits, *others = reals
            disc, penalty = self._train(real_logits, (others or fakes)[0], real, fake, factor, optimizers)
        held = tuple(tensor for tensor in (*seen, real, fake) if tensor is not None)
        return Judgement(loss.detach(), gradient, disc, penalty, held)

    def gradient(self, fake: Tensor, optimizers: Optimizers, *, real: Tensor | None = None) -> Judgement:
        """Judge generated images by the current discriminator; nothing is trained.

        For methods that update the discriminator before the generator. ``real`` is needed by relativistic losses.
        """
        start = fake.detach().requires_grad_()
        images = [start]
        if getattr(self.loss, "needs_real", False):
            if real is None:
                raise ValueError(f"{self.loss!r} compares with real images: give real=...")
            images.append(real)
        shown, *shown_real = self._augmented(images)
        real_logits = self._logits(shown_real[0], "real") if shown_real else None
        loss = generator_loss(self.loss, self._logits(shown, "fake"), real_logits)
        return Judgement(loss.detach(), optimizers.gradient(loss, start), torch.zeros_like(loss.detach()))

    def discriminate(
        self, real: Tensor, fake: Tensor, optimizers: Optimizers, *, step: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Add the gradients of the discriminator's loss alone; the loss and the penalty, detached."""
        seen = self._show(real, fake, judged=False)
        real_logits, fake_logits = self._real_and_replayed(seen, again=seen.replayed is None)
        return self._train(real_logits, fake_logits, real, fake, self.penalty_factor(step), optimizers)

    def _show(self, real: Tensor, fake: Tensor, *, judged: bool = True) -> _Seen:
        """One augmented set of images, which serves both networks' losses."""
        start = fake.detach().requires_grad_() if judged else fake.detach()
        images = [real, start]
        if self.replay is not None:
            images.append(self.replay(fake.detach()))
        shown = self._augmented(images)
        return _Seen(start, shown[0], shown[1], shown[2] if len(shown) == 3 else None)

    def _augmented(self, batches: list[Tensor]) -> list[Tensor]:
        if self.augment is None:
            return batches
        return list(self.augment(torch.cat(batches)).split([len(batch) for batch in batches]))

    def _real_and_replayed(self, seen: _Seen, *, again: bool = False) -> list[Logits]:
        """Logits of the real images, and of the replayed ones if there are some, or of the fakes ``again``."""
        others = [seen.replayed] if seen.replayed is not None else [seen.fake.detach()] if again else []
        if getattr(self.discriminator, "has_queues", False):
            kinds = ["real", "fake"][: 1 + len(others)]
            images = zip([seen.real, *others], kinds, strict=True)
            return [self._logits(batch, kind, push=True) for batch, kind in images]
        return apply_to_each(self.discriminator, seen.real, *others)

    def _logits(self, images: Tensor, kind: str, *, push: bool = False) -> Logits:
        if getattr(self.discriminator, "has_queues", False):
            return self.discriminator(images, queue=kind, push=push)
        return self.discriminator(images)

    def _train(
        self,
        real_logits: Logits,
        fake_logits: Logits,
        real: Tensor,
        fake: Tensor,
        factor: float,
        optimizers: Optimizers,
    ) -> tuple[Tensor, Tensor | None]:
        loss = total = discriminator_loss(self.loss, real_logits, fake_logits)
        penalty = None
        if factor and self.penalty is not None:
            judged = self.discriminator if self.augment is None else _Augmented(self.augment, self.discriminator)
            penalty = factor * self.penalty(judged, real.detach(), fake.detach())
            total = loss + penalty
        optimizers.backward(total, trained_parameters(self.discriminator))
        observe = getattr(self.augment, "observe", None)
        if observe is not None:  # adaptive augmentation follows the logits of real images
            observe([scale.detach() for scale in as_scales(real_logits)])
        return loss.detach(), None if penalty is None else penalty.detach()


class _Augmented(nn.Module):
    """A discriminator behind its augmentation, as a penalty sees it."""

    def __init__(self, augment: Augment, discriminator: nn.Module):
        super().__init__()
        self.augment, self.discriminator = augment, discriminator

    def forward(self, images: Tensor) -> Any:
        return self.discriminator(self.augment(images))


@contextmanager
def _beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Compute what is inside on ``stream``, after the work that the current stream has been given so far."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
