"""Published checkpoint files.

A file may hold one network, bare or beside others and what trained them. Reading runs no code in it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganparts.interchange.published import from_published, has_known_names

__all__ = ["Published", "load_published"]


class Published(NamedTuple):
    """A network, and where in its file it was found: "" if the file holds nothing else."""

    network: nn.Module
    key: str


def load_published(file: Path | str, *, key: str | None = None) -> Published:
    """The network in a published checkpoint file, by :func:`from_published`.

    The file may hold the weights themselves, dictionaries of them (``{"netG_A": ...}``, ``{"state_dict": ...}``), or
    those of several networks under one roof (``netG_A.model.1.weight``); ``module.`` of ``nn.DataParallel`` is dropped.

    Args:
        file: what ``torch.save`` wrote.
        key: which of its networks; None: the only one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint, holds no network or several, or none called so; or the weights do not fit.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever PyTorch raises on damaged files
        reason = textwrap.shorten(str(error).partition("\n")[0], 200) or type(error).__name__
        raise ValueError(f"{file} is not a checkpoint that can be read without running code in it: {reason}") from None
    found = _networks(content)
    names = textwrap.shorten(", ".join(name or "(the whole file)" for name in found), 300)
    if not found:
        raise ValueError(f"{file} holds no weights by name but {_told(content)}: give a saved state_dict")
    if key is None and len(found) > 1:
        raise ValueError(f"{file} holds several networks: choose one by --key, of {names}")
    if key is not None and key not in found:
        raise ValueError(f"{file} holds nothing called {key!r:.100}, but: {names}")
    chosen = next(iter(found)) if key is None else key
    try:
        return Published(from_published(found[chosen]), chosen)
    except ValueError as error:
        raise ValueError(f"{file}{f', {chosen}' if chosen else ''}: {error}") from None


def _networks(content: Any, place: str = "", depth: int = 2) -> dict[str, dict[str, Tensor]]:
    """The state dicts in what a file holds, by where they are; optimizers' tensors have numbers for names."""
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, dict[str, Tensor]] = {}
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    owners = _owners(tensors)
    for name, value in content.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, Tensor):
            first, _, after = _plain(name).partition(".")
            owner, rest = (first, after) if first in owners else _split(name)
            found.setdefault(".".join(filter(None, (place, owner))), {})[rest] = value
        elif depth:
            found |= _networks(value, ".".join(filter(None, (place, name))), depth - 1)
    return found


_OWNER = re.compile(r"(?:(.+?)\.)??((?:_body|_head|model|net|mlp_\d+)\..*)")
"""A network's own name, and what comes after it: names of layers that several published networks begin with."""


def _plain(name: str) -> str:
    return re.sub(r"(^|\.)module\.", r"\1", name)


def _owners(tensors: Mapping[str, Tensor]) -> set[str]:
    """First words of names that are those of networks, where the names of layers do not tell.

    What comes after such a word are the names of a published network.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    unclear: set[str] = set()
    for name, tensor in tensors.items():
        first, _, rest = _plain(name).partition(".")
        groups.setdefault(first, {})[rest] = tensor
        if not _OWNER.match(_plain(name)):
            unclear.add(first)
    return {owner for owner in unclear if has_known_names(groups[owner])}


def _split(name: str) -> tuple[str, str]:
    """``netG_A.module.model.1.weight`` as ``netG_A`` and ``model.1.weight``."""
    name = _plain(name)
    match = _OWNER.match(name)
    return (match[1] or "", match[2]) if match else ("", name)


def _told(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary of {textwrap.shorten(', '.join(map(repr, content)), 200) or 'nothing'}"
    return f"a {type(content).__name__}"
