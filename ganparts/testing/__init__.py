"""Checks that a part keeps its contracts, whoever wrote it. The parts of this package pass the same ones.

Each function builds a part several times and examines it. An error names the contracts that it breaks, what was found,
and how to mend them::

    from ganparts.testing import check_generator

    check_generator("tint")  # a registered name, or a builder without arguments

With pytest each contract can be a test of its own: :func:`parametrize_with_checks`. Nothing here needs pytest
otherwise.
"""

from ganparts.testing.contracts import Check, ContractError
from ganparts.testing.discriminators import check_discriminator
from ganparts.testing.generators import check_generator
from ganparts.testing.losses import check_adversarial_loss, check_consistency_loss
from ganparts.testing.parametrize import checks_of, parametrize_with_checks
from ganparts.testing.penalties import check_penalty
from ganparts.testing.replay import check_replay_buffer

__all__ = [
    "Check",
    "ContractError",
    "check_adversarial_loss",
    "check_consistency_loss",
    "check_discriminator",
    "check_generator",
    "check_penalty",
    "check_replay_buffer",
    "checks_of",
    "parametrize_with_checks",
]
