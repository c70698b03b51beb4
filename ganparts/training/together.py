"""What several processes settle before they train together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ganparts.adversarial import copy_from_first, share_draws, synchronize_batch_norms
from ganparts.distributed import processes, rank, share
from ganparts.training.policy import Policy, PolicyOptions, choose_policy
from ganparts.training.randomness import seed_everything

__all__ = ["agree_on_policy", "join_others"]


def agree_on_policy(device: torch.device, options: PolicyOptions, *, sync_batch_norm: bool) -> Policy:
    """How steps are computed, the same in all processes.

    Args:
        device: of this process.
        options: the user's.
        sync_batch_norm: whether batch norms ask the other processes.

    Raises:
        ValueError: this process would choose otherwise than the first one, or the device cannot do what is asked.
    """
    policy = choose_policy(device, options)
    if processes() > 1 and sync_batch_norm and policy.compile:
        reason = "batch norms that ask other processes are not compiled"
        policy = replace(policy, compile=False, reasons=policy.reasons | {"compile": reason})
    mine = {name: choice for name, choice, _ in policy.describe()}
    first = share(mine)
    if different := [name for name in mine if mine[name] != first[name]]:
        raise ValueError(
            f"process {rank()} would train with {', '.join(f'{name} {mine[name]}' for name in different)} and the "
            f"first one with {', '.join(first[name] for name in different)}: choose for all "
            f"({', '.join(f'--{name}' for name in different)})"
        )
    return policy


def join_others(model: Any, *, sync_batch_norm: bool) -> None:
    """Begin with the first process's weights, and with random numbers of one's own."""
    copy_from_first([*model.parameters(), *model.buffers()])
    share_draws(model)
    if sync_batch_norm:
        synchronize_batch_norms(model)
    seed_everything(torch.initial_seed() + rank())
