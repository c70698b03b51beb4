"""Find the files of a data set of the Hugging Face Hub, or of a folder in its layout.

The library ``datasets`` knows a data set's configurations and splits. Its files are then read here, by blocks, because
its own streams go on after a stop only by reading again what came before within a shard, and shuffle in the process
that reads.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ganparts.data.errors import DataError
from ganparts.data.parquet import require_stream

__all__ = ["resolve"]


def resolve(name: str, *, config: str | None = None, revision: str | None = None) -> dict[str, list[str]]:
    """The paths or addresses of the files of each split of a data set.

    Args:
        name: ``owner/name`` on the Hub, or a folder.
        config: configuration, if it has several.
        revision: branch, tag or commit; None for the newest.

    Raises:
        DataError: there is no such data set or configuration, or the Hub cannot be reached.
        UnavailableError: the library ``datasets`` is not installed.
    """
    require_stream("datasets", "data sets of the Hub")
    import datasets

    if not Path(name).is_dir() and name.count("/") != 1:
        raise DataError(f"hf:{name} is not a data set: give hf:owner/name, or hf: and a folder that exists")
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        builder = datasets.load_dataset_builder(name, config, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"cannot open the data set hf:{name}: {reason}. Check its name and the network; a private or gated one "
            "needs a login (hf auth login)"
        ) from None
    splits = {str(split): list(map(str, files)) for split, files in (builder.config.data_files or {}).items()}
    if not splits:
        raise DataError(f"hf:{name} has no data files: it is made by a program of its own, which is not run")
    return splits
