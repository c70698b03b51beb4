"""Pretrained folders, read: a network is planned from its configuration, and refused if the weights cannot fit it."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ganparts.pretrained.finding import CONFIG, TABLES, WEIGHTS, find_pretrained
from ganparts.registry import Registry, UnknownPartError

__all__ = ["as_generator", "from_pretrained"]

_LONGEST_CONFIG = 2**20  # bytes


def from_pretrained(
    folder: Path | str, *, device: str = "cpu", revision: str | None = None, kind: str | None = None
) -> nn.Module:
    """The network that :func:`save_pretrained` or :func:`push_to_hub` wrote, in ``eval()`` mode.

    Its weights are float32 (torch's default type), whatever type they have on disk.

    It is planned on the meta device first: what the weights cannot fit is refused before it takes memory. In a block
    ``with torch.device("meta")`` that is all: the network has no weights.

    Args:
        folder: where it is; or a run folder, for its ``generator/``; or a painter's name, as ``"monet"``, unless a
            folder of this name holds a model; or a name on the Hugging Face Hub, ``owner/model``, if there is no folder
            ``owner`` here.
        device: where it goes.
        revision: on the Hub, a branch, tag or commit.
        kind: what it must be, ``"generator"`` or ``"discriminator"``; None: either.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no network; the text says what it holds.
        OSError: it is not on the Hub either, or the Hub or the painter's address cannot be reached.
        ValueError: a file does not hold what it should, or the folder holds another kind.
        TypeError: ``folder`` is no path and no name.
        UnknownPartError: the network's name is not registered; import the module that registers it first.
    """
    from safetensors.torch import load_model

    given, folder = folder, find_pretrained(folder, revision=revision)
    table, name, options, module = _described(folder / CONFIG)
    if kind not in (None, table.kind):
        raise ValueError(f"{given} holds a {table.kind}, and this takes a {kind}")
    misfit = textwrap.shorten(f"does not hold the weights of {name!r} with {options}", 500)
    try:
        tensors, numbers = _held(folder / WEIGHTS)
    except Exception as error:  # whatever safetensors raises on damaged files
        raise ValueError(f"{folder / WEIGHTS} {misfit}: {textwrap.shorten(str(error), 500)}") from None
    try:
        planned = _planned(table, name, options, most=10 * tensors + 1000)
    except UnknownPartError as error:
        raise UnknownPartError(
            f"{folder / CONFIG}: {textwrap.shorten(str(error), 1000)}; {_how_to_import(module)}"
        ) from None
    except Exception as error:  # whatever a part raises on values of other kinds
        raise _not_buildable(folder, error) from None
    if planned > numbers:
        raise ValueError(f"{folder / WEIGHTS} {misfit}: those are {planned:,} numbers, but it holds {numbers:,}")
    try:
        network = table.create(name, **options)
    except Exception as error:  # what only initial weights show, as layers without channels
        raise _not_buildable(folder, error) from None
    if torch.empty(0).is_meta:  # PyTorch 2.6 does not tell the default device within a block
        return network.eval()
    try:
        load_model(network, str(folder / WEIGHTS))
    except Exception as error:  # as above
        raise ValueError(f"{folder / WEIGHTS} {misfit}: {textwrap.shorten(str(error), 500)}") from None
    return network.to(device).eval()


def as_generator(generator: Callable[..., Any] | Path | str) -> Callable[..., Any]:
    """A generator as it is, or the one that :func:`from_pretrained` finds by a name or a folder, on the CPU."""
    return from_pretrained(generator, kind="generator") if isinstance(generator, str | Path) else generator


def _not_buildable(folder: Path, error: Exception) -> ValueError:
    reason = textwrap.shorten(str(error), 500) or type(error).__name__
    return ValueError(f"{folder / CONFIG} describes no network that can be built: {reason}")


def _how_to_import(module: str) -> str:
    """What registers a part that is not known, and why that did not happen by itself."""
    if not module:
        return "import the module that registers it first (in a command: --imports MODULE)"
    return (
        f"the module {module} registers it. It was not imported, because that runs its code, and whoever wrote this "
        f"folder chose it: if you trust it, import {module} first (in a command: --imports {module})"
    )


def _described(path: Path) -> tuple[Registry[Any], str, dict[str, Any], str]:
    """Table, name and options of the network that a configuration describes, and the module that registers it."""
    try:
        if (size := path.stat().st_size) > _LONGEST_CONFIG:
            raise ValueError(f"it has {size:,} bytes, more than the {_LONGEST_CONFIG:,} that are read")
        config = json.loads(path.read_text(encoding="utf-8"))
        table, name, options = TABLES[config["kind"]], config["name"], config["options"]
        module = str(config.get("module") or "")
        if not (isinstance(name, str) and isinstance(options, dict)):
            raise ValueError("its name is not a text, or its options are not an object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = textwrap.shorten(repr(error), 300)
        raise ValueError(f"{path} does not describe a network: {reason}") from None
    return table, name, options, textwrap.shorten(module, 100)


def _held(path: Path) -> tuple[int, int]:
    """How many tensors a file claims, and how many numbers in them; only its header is read."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return len(shapes), sum(map(math.prod, shapes))


def _planned(table: Registry[Any], name: str, options: dict[str, Any], *, most: int) -> int:
    """How many numbers the network has: built on the meta device, where they take no memory.

    Raises:
        ValueError: it goes beyond ``most`` parameters.
    """
    registered = 0

    def count(*_: object) -> None:
        nonlocal registered
        registered += 1
        if registered > most:
            raise ValueError(f"it has more than {most:,} parameters, far more than there are weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            network = table.create(name, **options)
    finally:
        hook.remove()
    return sum(parameter.numel() for parameter in network.parameters())
