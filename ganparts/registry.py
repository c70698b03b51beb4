"""Tables that find parts by name.

A table is a mapping from a name to a builder: a function, or a class, whose keyword arguments are the part's
options. Registering takes a decorator::

    @GENERATORS.register("mine")
    def mine(*, width: int = 64) -> nn.Module:
        return MyGenerator(width)

From then on the name works wherever a built-in one does. If the part lacks a method of the table's protocol, a type
checker reports it at the decorator.
"""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Any, ParamSpec, Protocol, TypeVar, get_args, get_type_hints

from torch import nn

from ganparts.protocols import (
    AdversarialLoss,
    Augment,
    ConsistencyLoss,
    Discriminator,
    Generator,
    Penalty,
    ReplayBuffer,
)

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AUGMENTATIONS",
    "BACKBONES",
    "CONSISTENCY_LOSSES",
    "DISCRIMINATORS",
    "GENERATORS",
    "PENALTIES",
    "PRESETS",
    "REPLAY_BUFFERS",
    "Registry",
    "UnknownPartError",
]

PartT = TypeVar("PartT")
Options = ParamSpec("Options")


def _kept(value: Any) -> Any:
    """Options as they are now, whatever the caller does to a list of them later."""
    if isinstance(value, dict):
        return {key: _kept(each) for key, each in value.items()}
    return [_kept(each) for each in value] if isinstance(value, list) else value


class UnknownPartError(KeyError):
    """A name that a table does not have. The message proposes the nearest name and lists the rest."""

    def __str__(self) -> str:  # KeyError would show the text in quotes
        return str(self.args[0])


class _Registrar(Protocol[PartT]):
    def __call__(self, builder: Callable[Options, PartT], /) -> Callable[Options, PartT]: ...


class Registry(Mapping[str, Callable[..., PartT]]):
    """A mapping from names to builders of one kind of part.

    Args:
        kind: of the parts, in the singular, for error messages ("generator").
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._builders: dict[str, Callable[..., PartT]] = {}

    def register(self, name: str) -> _Registrar[PartT]:
        """A decorator that registers a builder under ``name`` and returns it unchanged.

        Raises:
            ValueError: the name is taken.
            TypeError: ``name`` is not a string: write ``register("mine")``.
        """
        if not (isinstance(name, str) and name):
            raise TypeError(f'a {self.kind} is registered under a name, as register("mine"), not under {name!r}')

        def add(builder: Callable[Options, PartT], /) -> Callable[Options, PartT]:
            if name in self._builders:
                taken = self._builders[name]
                owner = f"{taken.__module__}.{getattr(taken, '__qualname__', taken)}"
                raise ValueError(
                    f"the {self.kind} {name!r} is already registered by {owner}: "
                    f"choose another name, or remove({name!r}) first"
                )
            self._builders[name] = builder
            return builder

        return add

    def remove(self, name: str) -> None:
        """Forget ``name``, for a notebook cell that is run again.

        Raises:
            UnknownPartError: there is no such name.
        """
        del self._builders[self._known(name)]

    def names(self, pattern: str = "*") -> list[str]:
        """The registered names that match a shell pattern such as ``"*unet*"``, sorted."""
        return sorted(fnmatch.filter(self._builders, pattern))

    def options(self, name: str) -> Mapping[str, inspect.Parameter]:
        """The options that the part called ``name`` takes.

        Raises:
            UnknownPartError: there is no such name.
        """
        return inspect.signature(self[name]).parameters

    def create(self, name: str, /, **options: Any) -> PartT:
        """Build the part called ``name``.

        A module built here remembers its origin: ``part.built_from`` is ``(kind, name, options)``, which
        :func:`ganparts.save_pretrained` writes beside the weights.

        Raises:
            UnknownPartError: there is no such name.
            TypeError: the part has no such option (the message names the option, the part and its options), or the
                option takes another type, as its annotation says.
        """
        builder = self[name]
        parameters = self.options(name)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for option in options:
                if option not in parameters:
                    raise TypeError(
                        f"the {self.kind} {name!r} has no option {option!r}{_nearest(option, parameters)}; "
                        f"it takes: {', '.join(parameters) or 'none'}"
                    )
        hints = _type_hints(builder)
        for option, value in options.items():
            is_default = option in parameters and value is parameters[option].default
            if not is_default and (wanted := _unfit(value, hints.get(option))) is not None:
                raise TypeError(f"the {self.kind} {name!r} takes {wanted} for {option}, but was given {value!r}")
        part = builder(**options)
        if isinstance(part, nn.Module):
            vars(part)["built_from"] = (self.kind, name, _kept(options))
        return part

    def named(self, choice: object) -> tuple[str, dict[str, Any]] | None:
        """Name and options of a choice: a registered name, or ``partial(table.create, name, ...)``; else None."""
        if isinstance(choice, str):
            return choice, {}
        if isinstance(choice, partial) and choice.func == self.create and len(choice.args) == 1:
            return choice.args[0], dict(choice.keywords)
        return None

    def _known(self, name: str) -> str:
        if name not in self._builders:
            raise UnknownPartError(
                f"there is no {self.kind} named {name!r}{_nearest(str(name), self._builders)}; "
                f"there are: {', '.join(self.names()) or 'none'}"
            )
        return name

    def __getitem__(self, name: str) -> Callable[..., PartT]:
        return self._builders[self._known(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._builders)

    def __repr__(self) -> str:
        return f"<{self.kind} table: {', '.join(self.names())}>"


_PLAIN = {bool: "True or False", int: "a whole number", float: "a number", str: "text", NoneType: "None"}


def _type_hints(builder: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(builder.__init__ if isinstance(builder, type) else builder)
    except Exception:  # annotations may be any text, and names that are imported for type checkers only
        return {}


def _unfit(value: object, hint: Any) -> str | None:
    """What an option takes, in words, if ``value`` is none of that; None if it is, or if the hint is no plain type."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if not set(kinds) <= _PLAIN.keys():
        return None
    number = isinstance(value, Real) and not isinstance(value, bool)
    fits = {float: number, int: number and isinstance(value, Integral), str: isinstance(value, str | PathLike)}
    if any(fits.get(kind, isinstance(value, kind)) for kind in kinds):
        return None
    return " or ".join(_PLAIN[kind] for kind in kinds)


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


GENERATORS: Registry[Generator] = Registry("generator")
DISCRIMINATORS: Registry[Discriminator] = Registry("discriminator")
ADVERSARIAL_LOSSES: Registry[AdversarialLoss] = Registry("adversarial loss")
CONSISTENCY_LOSSES: Registry[ConsistencyLoss] = Registry("consistency loss")
REPLAY_BUFFERS: Registry[ReplayBuffer] = Registry("replay buffer")
AUGMENTATIONS: Registry[Augment] = Registry("augmentation")
PENALTIES: Registry[Penalty] = Registry("penalty")
BACKBONES: Registry[nn.Module] = Registry("backbone")
PRESETS: Registry[Any] = Registry("preset")
