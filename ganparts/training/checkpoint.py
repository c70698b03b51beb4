"""Checkpoints: everything that a run needs to go on, in one file that runs no code when loaded."""

from __future__ import annotations

import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_checkpoint", "newest_checkpoint", "previous_checkpoint", "save_checkpoint"]

FORMAT = 1


def save_checkpoint(path: Path | str, *, step: int, config: dict[str, Any], **stateful: Any) -> None:
    """Write a checkpoint under another name, flush it, and rename it: a stop leaves the previous one whole.

    The one that was there is kept as :func:`previous_checkpoint`.

    Args:
        path: the file.
        step: steps done.
        config: of the run, plain values.
        stateful: objects with ``state_dict``: the model (its replay buffers are inside), the optimizers.

    Raises:
        OSError: the file cannot be written; the one before is whole.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    states = {name: thing.state_dict() for name, thing in stateful.items()}
    content = {"format": FORMAT, "step": step, "config": config, "states": states, "random": _random_states()}
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, previous_checkpoint(path))
        os.replace(partial, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # PyTorch's writer raises RuntimeError on a full disk
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
        raise OSError(
            f"cannot write the checkpoint {path}: {reason}. The one before is whole; make room or take another folder"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_name(f"{path.stem}_before{path.suffix}")


def newest_checkpoint(path: Path) -> Path:
    """``path`` if it can be read, else the one before it, with a warning.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: neither can be read.
    """
    before = previous_checkpoint(path)
    try:
        load_checkpoint(path)
    except (FileNotFoundError, ValueError) as error:
        if not before.exists():
            raise
        try:
            load_checkpoint(before)
        except ValueError as another:
            raise ValueError(f"{error}; and {another}") from None
        warnings.warn(f"{error}: going on from the one before, {before}", stacklevel=2)
        return before
    return path


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    if numpy := sys.modules.get("numpy"):  # if nobody imported it, nobody drew from it
        kind, keys, *rest = numpy.random.get_state()
        states["numpy"] = (str(kind), keys.tolist(), *rest)
    return states


def _flush_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # so that the renaming outlives a power cut; Windows has no such thing
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_checkpoint(path: Path | str, **stateful: Any) -> tuple[int, dict[str, Any]]:
    """Put back what :func:`save_checkpoint` wrote, random states included.

    Args:
        path: the file.
        stateful: the objects that were saved, under the same names; with none, only step and config are read.

    Returns:
        The steps done, and the run's configuration.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a checkpoint of ours, or one that does not fit the objects.
    """
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        if saved["format"] != FORMAT:
            raise ValueError(f"its format is {saved['format']}, this version reads {FORMAT}")
        states, step, config, randomness = saved["states"], saved["step"], saved["config"], saved["random"]
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no checkpoint {path}: a run writes one at its end, and before if asked"
        ) from None
    except OSError:
        raise
    except Exception as error:  # torch.load raises almost anything on a foreign or damaged file
        raise ValueError(f"{path} is no checkpoint that can be read: {str(error).splitlines()[0]}") from None
    for name, thing in stateful.items():
        try:
            thing.load_state_dict(states[name])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path} was saved with other options; its {name} does not fit: {reason}") from None
    if stateful:
        random.setstate(_tuples(randomness["python"]))
        torch.set_rng_state(randomness["torch"])
        if "numpy" in randomness:
            import numpy

            numpy.random.set_state(randomness["numpy"])
        if randomness["cuda"] and torch.cuda.device_count() == len(randomness["cuda"]):
            torch.cuda.set_rng_state_all(randomness["cuda"])
    return step, config


def _tuples(state: Any) -> Any:
    return tuple(map(_tuples, state)) if isinstance(state, list | tuple) else state
