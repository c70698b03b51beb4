"""The critics of one domain, as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ganparts.adversarial.critic import Critic, Judgement
from ganparts.adversarial.optimizers import Optimizers

__all__ = ["Critics", "judge_all", "sum_of"]


class Critics(nn.ModuleList):
    """The critics of one domain.

    Args:
        critics: one or more.
        domain: its letter, with which the names of parts end; empty where a method has one domain to judge.
    """

    def __init__(self, critics: Iterable[Critic], domain: str = ""):
        super().__init__(critics)
        if not len(self):
            raise ValueError(f"no discriminators were given{f' for domain {domain}' * bool(domain)}: give at least one")
        self.domain = domain

    def __iter__(self) -> Iterator[Critic]:
        return super().__iter__()  # pyright: ignore[reportReturnType]

    @property
    def discriminator(self) -> nn.Module:
        """The discriminator; the list of them if there are several."""
        networks = [critic.discriminator for critic in self]
        return networks[0] if len(networks) == 1 else nn.ModuleList(networks)

    def discriminators(self) -> dict[str, nn.Module]:
        """The discriminators by name: ``discriminator_b``, or ``discriminator_b_0`` and so on."""
        return {f"discriminator{self._ending(number)}": critic.discriminator for number, critic in enumerate(self)}

    def parts(self) -> dict[str, object]:
        """Every part by name."""
        parts: dict[str, object] = {}
        for number, critic in enumerate(self):
            ending = self._ending(number)
            parts |= {f"discriminator{ending}": critic.discriminator, f"adversarial{ending}": critic.loss}
            others = {"replay": critic.replay, "augment": critic.augment, "penalty": critic.penalty}
            parts |= {f"{name}{ending}": part for name, part in others.items() if part is not None}
        return parts

    def phase(self, step: int) -> tuple[float, ...]:
        """Which penalties are due at a step, counted from 0: the factor of each."""
        return tuple(critic.penalty_factor(step) for critic in self)

    def _ending(self, number: int) -> str:
        return f"_{self.domain}" * bool(self.domain) + f"_{number}" * (len(self) > 1)


def judge_all(
    critics: Iterable[Critic],
    real: Tensor,
    fake: Tensor,
    optimizers: Optimizers,
    *,
    step: int | None = None,
    side_stream: torch.cuda.Stream | None = None,
) -> tuple[Tensor, list[Judgement]]:
    """The sum of several critics' gradients at the same images, and each judgement; see :meth:`Critic.judge`."""
    each = [critic.judge(real, fake, optimizers, step=step, side_stream=side_stream) for critic in critics]
    return sum_of([one.gradient for one in each]), each


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).sum(0)
