"""Pretrained folders: a network's weights (safetensors), the configuration that rebuilds it (JSON), a model card."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ganparts.pretrained.card import ModelCard
from ganparts.pretrained.finding import CONFIG, WEIGHTS, find_pretrained
from ganparts.pretrained.hub import is_hub_name, upload
from ganparts.registry import DISCRIMINATORS, GENERATORS, Registry, UnknownPartError

__all__ = ["PretrainedModule", "describe_network", "from_pretrained", "push_to_hub", "save_pretrained"]

_TABLES: dict[str, Registry[Any]] = {table.kind: table for table in (GENERATORS, DISCRIMINATORS)}
_CARD = "README.md"
_PARTIAL = ".partial"  # a folder in the folder that is being written
_LONGEST_CONFIG = 2**20  # bytes


def describe_network(network: nn.Module) -> str:
    """The configuration that rebuilds a network, as JSON: its kind, name and options.

    If another module than ours registers the part, it says which. Paths are written as text. An option ``pretrained``
    is written as False: whatever weights the network started from, those beside the configuration replace them.

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
    if options.get("pretrained") is True:
        options = options | {"pretrained": False}
    config = {"kind": kind, "name": name, "options": options}
    module = getattr(_TABLES[kind].get(name), "__module__", None)
    if module is not None and module.partition(".")[0] != "ganparts":
        config["module"] = module
    try:
        return json.dumps(config, indent=2, default=_path_as_text)
    except TypeError as error:
        raise ValueError(f"the options {options} of {name!r} cannot be written as JSON: {error}") from None


def _path_as_text(value: object) -> str:
    """What JSON does not know: of that, only paths can be written."""
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    raise TypeError(f"{value!r:.200} is a {type(value).__name__}")


def save_pretrained(
    network: nn.Module,
    folder: Path | str,
    *,
    card: ModelCard | None = None,
    dtype: torch.dtype | None = None,
    name: str | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors``, from which :func:`from_pretrained` makes the network again.

    Beside them goes ``README.md``, the model card. Each file is written in full before it takes the place of an older
    one. So a folder that is written again never holds half a network: if the program is killed, it holds the old
    weights or the new ones.

    Args:
        network: built by name, as ``GENERATORS.create("resnet9", width=32)`` does, so that it knows its options.
        folder: made if it does not exist.
        card: what its reader should know beyond the network itself.
        dtype: of the weights on disk: ``torch.float16`` or ``torch.bfloat16`` halves the file. They are float32 again
            once they are loaded. None: as the network has them.
        name: by which the card loads it. None: the folder's.

    Raises:
        ValueError: as :func:`describe_network`; or ``dtype`` is not a type of floats, or too narrow for a weight.
        FileNotFoundError: the card's picture is not a file.
    """
    _write(network, Path(folder), card or ModelCard(), called=name or Path(folder).as_posix(), dtype=dtype)


def push_to_hub(
    network: nn.Module,
    name: str,
    *,
    card: ModelCard | None = None,
    private: bool = False,
    token: str | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Publish a network on the Hugging Face Hub, as :func:`save_pretrained` writes it; returns its address.

    Args:
        network: built by name.
        name: ``owner/model``, made if it does not exist.
        card: what its reader should know.
        private: whether a model that is made now is for its owner alone.
        token: of the Hub; None: the one that ``hf auth login`` left.
        dtype: of the weights, as for :func:`save_pretrained`.

    Raises:
        ValueError: as :func:`save_pretrained`, or the name is not of that form.
        OSError: the Hub cannot be reached, or it refuses.
    """
    if not is_hub_name(name):
        raise ValueError(f"{name!r} is not the name of a model on the Hugging Face Hub: write it as owner/model")
    with tempfile.TemporaryDirectory() as folder:
        _write(network, Path(folder), card or ModelCard(), called=name, dtype=dtype)
        return upload(folder, name, private=private, token=token)


class PretrainedModule(nn.Module):
    """A network with :func:`save_pretrained` and :func:`push_to_hub` as methods; all of ganparts' are.

    A network of your own need not be one: the functions take any that was built by name.
    """

    def save_pretrained(
        self,
        folder: Path | str,
        *,
        card: ModelCard | None = None,
        dtype: torch.dtype | None = None,
        name: str | None = None,
    ) -> None:
        """As the function :func:`save_pretrained`."""
        save_pretrained(self, folder, card=card, dtype=dtype, name=name)

    def push_to_hub(
        self,
        name: str,
        *,
        card: ModelCard | None = None,
        private: bool = False,
        token: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> str:
        """As the function :func:`push_to_hub`."""
        return push_to_hub(self, name, card=card, private=private, token=token, dtype=dtype)


def _write(network: nn.Module, folder: Path, card: ModelCard, *, called: str, dtype: torch.dtype | None) -> None:
    from safetensors.torch import save_model

    config = describe_network(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    stored = None if dtype is None else str(dtype).removeprefix("torch.")
    text = card.render(json.loads(config), parameters=parameters, name=called, stored=stored)
    saved = network if dtype is None else _in_type(network, dtype)
    partial = folder / _PARTIAL  # inside, since beside it may be another disk
    shutil.rmtree(partial, ignore_errors=True)  # of a program that was killed
    partial.mkdir(parents=True)
    try:
        card.copy_picture(partial)
        save_model(saved, str(partial / WEIGHTS))
        (partial / _CARD).write_text(text, encoding="utf-8")
        (partial / CONFIG).write_text(config + "\n", encoding="utf-8")
        for path in sorted(partial.iterdir(), key=lambda path: path.name == CONFIG):  # which makes it a whole folder
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _in_type(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the network with its floats in another type.

    Raises:
        ValueError: it is not a type of floats, or a weight is beyond its range.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"dtype={dtype}: weights are floats: torch.float16, torch.bfloat16 or torch.float32")
    narrow = copy.deepcopy(network).to(dtype)
    before = network.state_dict()
    for name, tensor in narrow.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().equal(before[name].isfinite()):
            largest = torch.finfo(dtype).max
            raise ValueError(f"dtype={dtype}: {name} holds values beyond {largest:,.0f}: take torch.bfloat16, or none")
    return narrow


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
        table, name, options = _TABLES[config["kind"]], config["name"], config["options"]
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
