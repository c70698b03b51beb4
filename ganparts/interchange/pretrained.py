"""Pretrained folders: a network's weights (safetensors) beside the configuration that rebuilds it (JSON)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from ganparts.registry import DISCRIMINATORS, GENERATORS, Registry

__all__ = ["describe_network", "from_pretrained", "save_pretrained"]

_TABLES: dict[str, Registry[Any]] = {table.kind: table for table in (GENERATORS, DISCRIMINATORS)}
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def describe_network(network: nn.Module) -> str:
    """The configuration that rebuilds a network, as JSON.

    Raises:
        ValueError: the network was not built by name, or an option of it cannot be written as JSON.
    """
    built_from = getattr(network, "built_from", None)
    if built_from is None:
        raise ValueError(
            f"this {type(network).__name__} was not built by name, so what rebuilds it is not known: build it with "
            "GENERATORS.create(name, **options), in build_cyclegan by partial(GENERATORS.create, name, **options)"
        )
    kind, name, options = built_from
    try:
        return json.dumps({"kind": kind, "name": name, "options": options}, indent=2)
    except TypeError as error:
        raise ValueError(f"the options {options} of {name!r} cannot be written as JSON: {error}") from None


def save_pretrained(network: nn.Module, folder: Path | str) -> None:
    """Write ``config.json`` and ``model.safetensors``, from which :func:`from_pretrained` makes the network again.

    Args:
        network: built by name, as ``GENERATORS.create("resnet9", width=32)`` does, so that it knows its options.
        folder: made if it does not exist.

    Raises:
        ValueError: as :func:`describe_network`.
    """
    from safetensors.torch import save_model

    config = describe_network(network)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(network, str(folder / _WEIGHTS))
    (folder / _CONFIG).write_text(config + "\n")


def from_pretrained(folder: Path | str, *, device: str = "cpu") -> nn.Module:
    """The network that :func:`save_pretrained` wrote to ``folder``, in ``eval()`` mode.

    Raises:
        FileNotFoundError: the folder lacks one of the two files.
        ValueError: a file does not hold what it should.
        UnknownPartError: the network's name is not registered; import the module that registers it first.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    folder = Path(folder)
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            hint = f"; {folder / 'generator'} may be one" if (folder / "generator" / name).is_file() else ""
            raise FileNotFoundError(f"{folder} is no pretrained folder: it has no {name}{hint}")
    try:
        config = json.loads((folder / _CONFIG).read_text())
        table, name, options = _TABLES[config["kind"]], config["name"], dict(config["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / _CONFIG} does not describe a network: {error!r}") from None
    network = table.create(name, **options)
    try:
        load_model(network, str(folder / _WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder / _WEIGHTS} does not hold the weights of {name!r} with {options}: {reason}"
        ) from None
    return network.to(device).eval()
