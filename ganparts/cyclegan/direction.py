"""One direction of a CycleGAN: what translates images of one domain to the other and back, and the losses of that."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ganparts.adversarial import Critics, apply_to_each, consistency_loss
from ganparts.cyclegan.attention import Seen, attention_loss, look
from ganparts.protocols import ConsistencyLoss

__all__ = ["Direction"]


@dataclass(frozen=True)
class Direction:
    """The parts that translate from one domain (the source) to the other (the target) and back.

    Args:
        source: letter of the source domain.
        target: letter of the target domain.
        forward_generator: from source to target.
        backward_generator: from target to source.
        critics: judge images of the target domain.
        cycle: compares a source image with its translation there and back.
        cycle_weight: factor on that loss.
        identity: compares a target image with what the forward generator makes of it.
        identity_weight: factor on that loss.
        attention_weight: factor on the loss of the forward generator's attention.
    """

    source: str
    target: str
    forward_generator: nn.Module
    backward_generator: nn.Module
    critics: Critics
    cycle: ConsistencyLoss
    cycle_weight: float
    identity: ConsistencyLoss
    identity_weight: float
    attention_weight: float = 0.0

    @property
    def sees_target(self) -> bool:
        """Whether the forward generator also sees images of the target domain."""
        return bool(self.identity_weight or self.attention_weight)

    def see(self, images: Tensor) -> Seen:
        """What the forward generator makes of images, and of what its loss needs beside it."""
        if self.attention_weight:
            return look(self.forward_generator, images)[0]
        return Seen(self.forward_generator(images))

    def see_both(self, source: Tensor, target: Tensor) -> tuple[Seen, Seen | None]:
        """Translate a source and a target image; the second result is None if no loss needs it."""
        if self.attention_weight:
            fake, same = look(self.forward_generator, source, target)
            return fake, same
        fake, same = self.translate(source, target)
        return Seen(fake), None if same is None else Seen(same)

    def translate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """``source`` translated, and, where the identity loss has a weight, ``target`` by the same generator."""
        if not self.identity_weight:
            return self.forward_generator(source), None
        fake, same = apply_to_each(self.forward_generator, source, target)
        return fake, same

    def cycle_loss(self, cycled: Tensor, source: Tensor) -> Tensor:
        """The weighted cycle loss of ``source``."""
        return self.cycle_weight * consistency_loss(self.cycle, cycled, source)

    def identity_loss(self, same: Tensor, target: Tensor) -> Tensor:
        """The weighted identity loss of ``target``."""
        return self.identity_weight * consistency_loss(self.identity, same, target)

    def target_losses(self, seen: Seen, target: Tensor) -> list[tuple[str, Tensor]]:
        """The weighted losses of what the forward generator makes of ``target``, each with its name."""
        losses = [(f"identity_{self.target}", self.identity_loss(seen.image, target))] if self.identity_weight else []
        return losses + self.attention_losses(seen, 0.0)

    def attention_losses(self, seen: Seen, label: float) -> list[tuple[str, Tensor]]:
        """The weighted loss of what the forward generator's attention says of images, with its name; or nothing.

        Args:
            seen: what :meth:`see` gave.
            label: what it should say: 1 of images of the source domain, 0 of those of the target domain.
        """
        if seen.logits is None:
            return []
        return [(f"attention_{self.source}{self.target}", self.attention_weight * attention_loss(seen.logits, label))]
