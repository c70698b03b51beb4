"""Parts as a command line names them: ``pixel,patchgan(layers=2)+pixel``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import partial
from typing import Any

from ganparts.registry import Registry

__all__ = ["parse_choice", "with_options"]


def parse_choice(
    text: str,
    table: Registry[Any],
    *,
    given: Mapping[str, Any] = {},
    wished: Mapping[str, Any] = {},
    notes: list[str] | None = None,
) -> Any:
    """Parts as a command line names them.

    ``patchgan`` is one for both domains, ``pixel,patchgan`` a pair, and ``pixel,patchgan+pixel`` a pair whose second
    domain has two. Options go in parentheses: ``patchgan(layers=2)``. ``none`` is a part if the table has one of that
    name, else None.

    Args:
        text: the user's.
        table: of the parts.
        given: options that every part must take; those in parentheses come before them.
        wished: upper limits of numbers, for parts that have such options and larger defaults.
        notes: a line is appended for each limit that was applied.

    Raises:
        UnknownPartError: a name that is not registered.
        TypeError: an option that a part does not have.
        ValueError: a text of another form.
    """

    def one(word: str) -> Any:
        word = word.strip()
        if word == "none" and word not in table:
            return None
        name, options = _split_options(word, table.kind)
        return _builder(name, options, table, given, wished, [] if notes is None else notes)

    def domain(words: str) -> Any:
        parts = [one(word) for word in _split(words, "+")]
        return parts if len(parts) > 1 else parts[0]

    both = [domain(words) for words in _split(text, ",")]
    if len(both) > 2:
        raise ValueError(f"{text!r} names {len(both)} {table.kind}s, but there are two domains: give one or two")
    return tuple(both) if len(both) == 2 else both[0]


def _split(text: str, separator: str) -> list[str]:
    """The pieces between separators that are outside of parentheses."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == separator and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def _split_options(word: str, kind: str) -> tuple[str, dict[str, Any]]:
    name, bracket, _ = word.partition("(")
    if not bracket:
        return word, {}
    try:
        call = ast.parse(word, mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(word)
        return name.strip(), {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"{word!r} is no {kind} with options: write it as name(option=value, option='text')") from None


def _builder(
    name: str,
    options: dict[str, Any],
    table: Registry[Any],
    given: Mapping[str, Any],
    wished: Mapping[str, Any],
    notes: list[str],
    preset: Mapping[str, Any] | None = None,
) -> Any:
    """The name, or a builder with the given options and with each wished option that lowers a default.

    A preset's own options are defaults, too.
    """
    known = table.options(name)
    defaults = {option: parameter.default for option, parameter in known.items()} | dict(preset or {})
    asked = {**given, **options}
    lowered = {o: v for o, v in wished.items() if _exceeds(defaults.get(o), v) and o not in asked}
    notes.extend(f"{option} {value} of {name}" for option, value in lowered.items())
    unknown = [option for option in asked if option not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        table.create(name, **{unknown[0]: None})  # raises, and names what there is
    whole = {**(preset or {}), **lowered, **asked}
    return partial(table.create, name, **whole) if whole else name


def _exceeds(default: Any, limit: Any) -> bool:
    return isinstance(default, int) and default > limit


def with_options(
    choice: Any, table: Registry[Any], given: dict[str, Any], wished: dict[str, Any], notes: list[str]
) -> Any:
    """A preset's or a user's choice with options in it. Builders that no table knows, and modules, have their own."""
    if isinstance(choice, tuple):
        return tuple(with_options(each, table, given, wished, notes) for each in choice)
    if isinstance(choice, list):
        return [with_options(each, table, given, wished, notes) for each in choice]
    if isinstance(choice, str):
        return parse_choice(choice, table, given=given, wished=wished, notes=notes)
    named = table.named(choice)
    if named is None:
        return choice
    name, options = named
    return _builder(name, {}, table, given, wished, notes, preset=options)
