"""Folders from and to the Hugging Face Hub; its own library does the work."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection
from pathlib import Path

__all__ = ["download", "is_hub_name", "upload"]


def is_hub_name(text: str) -> bool:
    """Whether it is written as the Hub's names are: ``owner/model``."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) is not None


def download(name: str, files: Collection[str], *, revision: str | None = None) -> Path:
    """A folder with those files of a model, from the Hub or from what is kept of it here.

    Args:
        name: ``owner/model``.
        files: which.
        revision: a branch, tag or commit.

    Raises:
        OSError: it is not there, or the Hub cannot be reached.
        FileNotFoundError: it lacks one of the files.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the Hub's library has a dozen, beside those of its HTTP client
        raise OSError(
            f"{name} is not a folder here and could not be fetched from the Hugging Face Hub (check the name and the "
            f"network): {_reason(error)}"
        ) from error
    if missing := [file for file in files if not (folder / file).exists()]:
        raise FileNotFoundError(
            f"the model {name} on the Hugging Face Hub has no {', '.join(missing)}: this library did not save it"
        )
    return folder


def upload(folder: Path | str, name: str, *, private: bool = False, token: str | None = None) -> str:
    """Put a folder on the Hub as the model ``name``, which is made if need be; its address.

    Raises:
        OSError: the Hub cannot be reached, or it refuses.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="A network of ganparts")
    except Exception as error:  # as above
        raise OSError(f"{name} could not be published on the Hugging Face Hub: {_reason(error)}") from error
    return str(address)


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error), 200) or type(error).__name__
