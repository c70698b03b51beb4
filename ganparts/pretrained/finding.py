"""Where a model is: a pretrained folder, a run folder that holds one, a painter, or on the Hugging Face Hub."""

from __future__ import annotations

import difflib
import os
import textwrap
from pathlib import Path
from typing import Any

from ganparts.pretrained.hub import download, is_hub_name
from ganparts.pretrained.painters import find_painter, list_painters
from ganparts.registry import DISCRIMINATORS, GENERATORS, Registry

__all__ = ["CONFIG", "GENERATOR", "TABLES", "WEIGHTS", "find_pretrained", "is_pretrained"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
GENERATOR = "generator"  # the pretrained folder in a run folder
TABLES: dict[str, Registry[Any]] = {table.kind: table for table in (GENERATORS, DISCRIMINATORS)}  # of what it holds
_CHECKPOINT = "checkpoint.pt"  # of a run folder


def is_pretrained(model: Path | str) -> bool:
    """Whether this is a pretrained folder, a run folder with one, or the name of a model; nothing is fetched.

    ``owner/model`` is a name on the Hub unless there is a folder ``owner`` here. A painter's name is one unless there
    is such a file or folder here: ``ganparts evaluate`` then takes it for images.
    """
    folder = Path(model)
    if _on_hub(model) or any(_is_whole(place) for place in (folder, folder / GENERATOR)):
        return True
    return isinstance(model, str) and not folder.exists() and model in list_painters()


def find_pretrained(model: Path | str, *, revision: str | None = None) -> Path:
    """The folder with a model's configuration and weights.

    A folder that holds a model, or a part of one, comes before a painter of the same name; any other file or folder
    does not. So ``ganparts translate monet photos -o monet`` works twice. To mean a folder, write ``./monet``.

    Args:
        model: a pretrained folder; a run folder, which stands for its ``generator/``; a painter's name
            (:func:`~ganparts.pretrained.list_painters`), which is fetched if it does not ship with the package; or
            ``owner/model`` on the Hub, if there is no folder ``owner`` here.
        revision: on the Hub, a branch, tag or commit.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no model; the text says what it holds.
        OSError: it is not on the Hub either, or the Hub or the painter's address cannot be reached.
        TypeError: ``model`` is no path and no name.
    """
    if not isinstance(model, str | os.PathLike) or not os.fspath(model):
        raise TypeError(f"a model is a folder or a name such as 'monet', but this is {model!r}")
    if _on_hub(model):
        return download(str(model), (CONFIG, WEIGHTS), revision=revision)
    folder = Path(model)
    for place in (folder, folder / GENERATOR):
        if _is_whole(place):
            return place
    painters = list_painters()
    if isinstance(model, str) and model in painters and not _is_begun(folder):
        return find_painter(painters[model])
    remedy = (
        f"give a pretrained folder ({CONFIG} and {WEIGHTS}), a run folder with one ({GENERATOR}/), a name on the "
        "Hugging Face Hub (owner/model), or a painter's name (ganparts list painters)"
    )
    if folder.is_file():
        raise FileNotFoundError(f"{folder} is a file: {remedy}")
    if not folder.is_dir():
        shadowed = isinstance(model, str) and is_hub_name(model)
        note = f" (and the Hub was not asked, since there is a folder {folder.parent})" if shadowed else ""
        near = difflib.get_close_matches(str(model).lower(), painters, n=1)
        hint = f" (did you mean the painter {near[0]!r}?)" if near else ""
        raise FileNotFoundError(f"there is no folder {folder}{note}{hint}: {remedy}")
    place = folder / GENERATOR if (folder / GENERATOR).is_dir() else folder
    missing = " and no ".join(name for name in (CONFIG, WEIGHTS) if not (place / name).is_file())
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = textwrap.shorten(", ".join(names), 200, placeholder=" ...") or "nothing"
    resume = f". A run that was killed writes its {GENERATOR}/ when it is resumed" if _CHECKPOINT in names else ""
    raise FileNotFoundError(
        f"{place} is not a pretrained folder: it has no {missing}; {folder} holds {found}: {remedy}{resume}"
    )


def _on_hub(model: Path | str) -> bool:
    return isinstance(model, str) and is_hub_name(model) and not Path(model).parent.exists()


def _is_whole(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _is_begun(folder: Path) -> bool:
    """Whether somebody meant to keep a model there."""
    return any((folder / name).exists() for name in (CONFIG, WEIGHTS, GENERATOR, _CHECKPOINT))
