"""Checkpoints: everything that a run needs to go on, in one file that runs no code when loaded."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_checkpoint", "save_checkpoint"]

FORMAT = 1


def save_checkpoint(path: Path | str, *, step: int, config: dict[str, Any], **stateful: Any) -> None:
    """Write a checkpoint under another name, flush it, and rename it: a stop leaves the previous one whole.

    Args:
        path: the file.
        step: steps done.
        config: of the run, plain values.
        stateful: objects with ``state_dict``: the model (its replay buffers are inside), the optimizers.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(
            {
                "format": FORMAT,
                "step": step,
                "config": config,
                "states": {name: thing.state_dict() for name, thing in stateful.items()},
                "random": {
                    "python": random.getstate(),
                    "torch": torch.get_rng_state(),
                    "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                },
                "versions": {"torch": str(torch.__version__)},
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


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
        if randomness["cuda"] and torch.cuda.device_count() == len(randomness["cuda"]):
            torch.cuda.set_rng_state_all(randomness["cuda"])
    return step, config


def _tuples(state: Any) -> Any:
    return tuple(map(_tuples, state)) if isinstance(state, list | tuple) else state
