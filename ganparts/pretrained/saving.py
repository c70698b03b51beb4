"""Pretrained folders, written: weights (safetensors), the configuration that rebuilds the network (JSON), a card."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from ganparts.disk import naming_file
from ganparts.pretrained.card import ModelCard
from ganparts.pretrained.finding import CONFIG, TABLES, WEIGHTS
from ganparts.pretrained.hub import is_hub_name, upload

__all__ = ["PretrainedModule", "describe_network", "push_to_hub", "save_pretrained"]

_CARD = "README.md"
_PARTIAL = ".partial"  # a folder in the folder that is being written


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
    module = getattr(TABLES[kind].get(name), "__module__", None)
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
        OSError: the folder cannot be written, for instance since the disk is full; what it held before is whole.
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
    config = describe_network(network)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    stored = None if dtype is None else str(dtype).removeprefix("torch.")
    text = card.render(json.loads(config), parameters=parameters, name=called, stored=stored)
    saved = network if dtype is None else _in_type(network, dtype)
    partial = folder / _PARTIAL  # inside, since beside it may be another disk
    shutil.rmtree(partial, ignore_errors=True)  # of a program that was killed
    partial.mkdir(parents=True)
    try:
        with naming_file(folder):
            card.copy_picture(partial)
            _write_weights(saved, partial / WEIGHTS)
            (partial / _CARD).write_text(text, encoding="utf-8")
            (partial / CONFIG).write_text(config + "\n", encoding="utf-8")
            shutil.copymode(partial / CONFIG, partial / WEIGHTS)  # which safetensors lets only its owner read
        for path in sorted(partial.iterdir(), key=lambda path: path.name == CONFIG):  # which makes it a whole folder
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_weights(network: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    try:
        save_model(network, str(path))
    except SafetensorError as error:  # which holds the system's error as text
        if (number := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


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
