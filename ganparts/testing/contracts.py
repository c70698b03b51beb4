"""What a check is, how the checks of a part are run, and the error that tells of broken contracts."""

from __future__ import annotations

import inspect
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.blocks import size_limits
from ganparts.registry import Registry

__all__ = ["Check", "ContractError", "Subject", "contract", "host_draws", "maps_of", "require", "run_checks", "subject"]


class ContractError(AssertionError):
    """A part breaks contracts. The message names each, what was found, and how to mend it."""


class _BrokenError(Exception):
    """What a check found."""


@dataclass(frozen=True)
class Subject:
    """A part under test.

    Args:
        kind: of the part, in the singular: ``"generator"``.
        name: of the part, for messages.
        build: makes a new one, from options if it takes any.
        options: names of the options that it takes.
        channels: of the images that a network takes.
        size: height and width of the images that networks get; None for what their attributes tell.
        objectives: channels of the logits that an adversarial loss gets; None for as many as its ``losses``.
    """

    kind: str
    name: str
    build: Callable[..., Any]
    options: frozenset[str] = frozenset()
    channels: int = 3
    size: int | None = None
    objectives: int | None = None

    def images(self, part: Any, batch: int = 2, *, wide: bool = False, device: str = "cpu") -> Tensor:
        """Random images [batch, channels, H, W] in [-1, 1] of a size that the part takes; ``wide``: W is 2 H."""
        multiple, smallest = size_limits(part)
        least = self.size or max(32, smallest)
        only = getattr(part, "size", None)  # of discriminators that take one size alone
        if self.size is None and isinstance(only, int):
            least = only
        side = -(-least // multiple) * multiple
        return torch.rand(batch, self.channels, side, side * (2 if wide else 1), device=device) * 2 - 1


@dataclass(frozen=True)
class Check:
    """One contract of one kind of part.

    Args:
        name: in one word.
        asks: what the contract asks, in one sentence.
        remedy: how a part that breaks it is mended.
        run: examines a part; ``require`` in it tells what was found.
    """

    name: str
    asks: str
    remedy: str
    run: Callable[[Subject], None]

    def finding(self, part: Subject) -> tuple[str, Exception] | None:
        """What is wrong with the part, in words, and the error behind it; None if it keeps the contract."""
        state = random.getstate()
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(0)
                self.run(part)
        except _BrokenError as error:
            return str(error), error
        except Exception as error:  # whatever a part of somebody's own raises
            return f"it raised {type(error).__name__}: {error}", error
        finally:
            random.setstate(state)
        return None


def contract(asks: str, *, remedy: str) -> Callable[[Callable[[Subject], None]], Check]:
    """Make a check of a function, under its own name."""
    return lambda run: Check(run.__name__, asks, remedy, run)


def require(condition: bool | Tensor, found: str) -> None:
    """Say what was found where a part breaks a contract."""
    if not condition:
        raise _BrokenError(found)


def run_checks(part: Subject, checks: Sequence[Check]) -> None:
    """Run all checks, and tell of all that fail in one error.

    Raises:
        ContractError: at least one fails.
    """
    findings = {check: finding for check in checks if (finding := check.finding(part)) is not None}
    if not findings:
        return
    many = f"{len(findings)} of {len(checks)} contracts" if len(findings) > 1 else "a contract"
    told = Counter(found for found, cause in findings.values() if not isinstance(cause, _BrokenError))
    lines = []
    for check, (found, _) in findings.items():
        if told[found] < 3:
            lines.append(f"  {check.name}: {check.asks}\n    Found: {found}\n    Remedy: {check.remedy}")
    for found in (found for found, times in told.items() if times > 2):
        alike = [check for check, finding in findings.items() if finding[0] == found]
        names = ", ".join(check.name for check in alike)
        lines.append(f"  {names}:\n    The first asks: {alike[0].asks}\n    Found: {found}\n    Remedy: {_SAME}")
    _, cause = next(iter(findings.values()))
    raise ContractError("\n".join([f"the {part.kind} {part.name} breaks {many}.", *lines])) from cause


_SAME = (
    "mend this first; if the part takes other inputs, the check's arguments (channels, size, objectives) tell which."
)


def subject(table: Registry[Any], part: str | Callable[..., Any], **sample: Any) -> Subject:
    """A part by its registered name, or by a builder that needs no arguments.

    Raises:
        TypeError: it is a part that is built already.
    """
    if not isinstance(part, str) and (isinstance(part, nn.Module) or not callable(part)):
        raise TypeError(
            f"a check builds the {table.kind} several times, but this is one that is built, a {type(part).__name__}: "
            "pass its class, a function without arguments that makes it, or a registered name"
        )
    if isinstance(part, str):
        part = partial(table.create, part)
    known = table.named(part)
    if known is not None:
        return Subject(table.kind, known[0], part, frozenset(table.options(known[0])), **sample)
    name = getattr(part, "__name__", None) or getattr(getattr(part, "func", None), "__name__", repr(part))
    return Subject(table.kind, name, part, _options(part), **sample)


def _options(builder: Callable[..., Any]) -> frozenset[str]:
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError):  # of what is written in C
        return frozenset()
    return frozenset(each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY))


def maps_of(logits: Any) -> tuple[Tensor, ...]:
    """A discriminator's maps of logits, be there one or several."""
    return logits if isinstance(logits, tuple) else (logits,)


@contextmanager
def host_draws(*, torch_too: bool) -> Iterator[list[str]]:
    """Fills a list with the random generators of the host that are used inside.

    Args:
        torch_too: whether PyTorch's generator of the CPU counts.
    """
    used: list[str] = []
    numpy = sys.modules.get("numpy.random")
    before = random.getstate(), repr(numpy.get_state()) if numpy else "", torch.get_rng_state()
    yield used
    if random.getstate() != before[0]:
        used.append("Python's module random")
    if numpy and repr(numpy.get_state()) != before[1]:
        used.append("NumPy's global generator")
    if torch_too and not torch.equal(torch.get_rng_state(), before[2]):
        used.append("PyTorch's generator of the CPU")
