"""One training step of a CycleGAN.

Built for speed and memory. The step never reads a value from the device, so it runs on ``meta`` too. No module is
toggled. Each direction (a to b and back, b to a and back) goes backward before the next begins, so that only one
graph is kept.

We detach the generated images and compute the gradient of the adversarial loss with respect to them at once. We then
backpropagate it through the generator together with the gradient of the cycle loss. The reference implementation
updates the generators before it computes the discriminators' gradients. Those depend on the generators only through
images that are already made, so updating all networks at the end gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganparts.adversarial import Optimizers, constrain, judge_all, losses_of_critics, sum_of, trained_parameters
from ganparts.cyclegan.direction import Direction
from ganparts.protocols import Pair

__all__ = ["train_cyclegan"]

_ORDER = ("gan", "cycle", "identity", "attention", "disc", "penalty")


def train_cyclegan(
    directions: Sequence[Direction],
    pair: Pair,
    optimizers: Optimizers,
    *,
    step: int | None = None,
    low_memory: bool = False,
    side_stream: torch.cuda.Stream | None = None,
) -> dict[str, Tensor]:
    """Train all networks once, one direction after the other; see :meth:`ganparts.CycleGAN.train_step`."""
    pair = Pair(*pair)
    optimizers.zero_grad()
    losses: dict[str, Tensor] = {}
    for direction in directions:
        source, target = getattr(pair, direction.source), getattr(pair, direction.target)
        losses |= _train_direction(
            direction, source, target, optimizers, step=step, low_memory=low_memory, side_stream=side_stream
        )
    optimizers.step()
    constrain(direction.forward_generator for direction in directions)
    return {name: losses[name].detach() for name in sorted(losses, key=_order)}


def _order(name: str) -> tuple[int, str]:
    return _ORDER.index(name.partition("_")[0]), name


def _train_direction(
    direction: Direction,
    source: Tensor,
    target: Tensor,
    optimizers: Optimizers,
    *,
    step: int | None,
    low_memory: bool,
    side_stream: torch.cuda.Stream | None,
) -> dict[str, Tensor]:
    """Add the gradients of one direction to its networks; its losses."""
    generators = trained_parameters(direction.forward_generator, direction.backward_generator)
    apart: list[tuple[str, Tensor]] = []
    if low_memory and direction.sees_target:
        apart = direction.target_losses(direction.see(target), target)
        optimizers.backward(_total(apart), trained_parameters(direction.forward_generator))
        seen, same = direction.see(source), None
    else:
        seen, same = direction.see_both(source, target)
    fake = seen.image
    if side_stream is not None:  # it begins here in any case, so that it can be joined below
        side_stream.wait_stream(torch.cuda.current_stream())
    gradient, each = judge_all(direction.critics, target, fake, optimizers, step=step, side_stream=side_stream)
    a, b = direction.source, direction.target
    losses = [(f"cycle_{a}", direction.cycle_loss(direction.backward_generator(fake), source))]
    if same is not None:
        losses += direction.target_losses(same, target)
    losses += direction.attention_losses(seen, 1.0)
    optimizers.backward(_total(losses), generators, onward=(fake, gradient))
    if side_stream is not None:  # what it reads (``Judgement.held``) is alive until here
        torch.cuda.current_stream().wait_stream(side_stream)
    return (
        _by_name(losses + apart)
        | losses_of_critics(f"gan_{a}{b}", [one.generator for one in each])
        | losses_of_critics(f"disc_{b}", [one.discriminator for one in each])
        | losses_of_critics(f"penalty_{b}", [one.penalty for one in each])
    )


def _total(losses: list[tuple[str, Tensor]]) -> Tensor:
    return sum_of([loss for _, loss in losses])


def _by_name(losses: list[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Losses by name, without their graphs; two of one name are added up."""
    named: dict[str, Tensor] = {}
    for name, loss in losses:
        named[name] = named[name] + loss.detach() if name in named else loss.detach()
    return named
