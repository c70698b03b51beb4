"""The checks of several parts as tests of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ganparts.registry import (
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    REPLAY_BUFFERS,
    Registry,
)
from ganparts.testing.contracts import Check, run_checks, subject
from ganparts.testing.discriminators import DISCRIMINATOR_CHECKS
from ganparts.testing.generators import GENERATOR_CHECKS
from ganparts.testing.losses import ADVERSARIAL_CHECKS, CONSISTENCY_CHECKS
from ganparts.testing.penalties import PENALTY_CHECKS
from ganparts.testing.replay import REPLAY_CHECKS

__all__ = ["checks_of", "parametrize_with_checks"]

_CHECKS: dict[str, tuple[Check, ...]] = {
    GENERATORS.kind: GENERATOR_CHECKS,
    DISCRIMINATORS.kind: DISCRIMINATOR_CHECKS,
    ADVERSARIAL_LOSSES.kind: ADVERSARIAL_CHECKS,
    CONSISTENCY_LOSSES.kind: CONSISTENCY_CHECKS,
    PENALTIES.kind: PENALTY_CHECKS,
    REPLAY_BUFFERS.kind: REPLAY_CHECKS,
}


def checks_of(table: Registry[Any]) -> tuple[Check, ...]:
    """The checks of a table's kind of part.

    Raises:
        ValueError: there are none for this kind.
    """
    if table.kind not in _CHECKS:
        raise ValueError(f"there are no checks of a {table.kind}: there are of {', '.join(_CHECKS)}")
    return _CHECKS[table.kind]


def parametrize_with_checks(
    table: Registry[Any], parts: Iterable[str | Callable[..., Any]] | Mapping[str, Callable[..., Any]], **sample: Any
) -> Any:
    """Decorate a pytest function so that it runs each check of each part as a test of its own::

        @parametrize_with_checks(GENERATORS, ["tint", partial(Tint, strength=0.2)])
        def test_my_generators(check):
            check()

    Args:
        table: of the parts' kind, such as ``GENERATORS``.
        parts: registered names and builders; or builders by names for the tests.
        sample: further arguments of the kind's check function: ``channels``, ``size``, ``objectives``.

    Raises:
        ValueError: there are no checks for this kind of part.
        ImportError: pytest is not installed.
    """
    import pytest

    checks = checks_of(table)
    if isinstance(parts, Mapping):
        named = [(name, subject(table, part, **sample)) for name, part in parts.items()]
    else:
        named = [(each.name, each) for each in (subject(table, part, **sample) for part in parts)]
    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(partial(run_checks, part, [check]), id=f"{name}-{check.name}")
            for name, part in named
            for check in checks
        ],
    )
