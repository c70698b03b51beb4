"""Checkpoints: everything that a run needs to continue, in one file. Loading it runs no code from it."""

from __future__ import annotations

import errno
import os
import pickletools
import re
import shutil
import textwrap
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.training.randomness import random_states, set_random_states

__all__ = [
    "CHECKPOINT",
    "Checkpoint",
    "load_checkpoint",
    "newest_checkpoint",
    "own_state",
    "previous_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]

CHECKPOINT = "checkpoint.pt"  # in a run folder
FORMAT = 2
MAX_VALUES = 1_000_000  # in a checkpoint; lists that hold one another would go on without end
# What the pickle of a state may call. PyTorch's own list has more, some of which take memory without end.
_CALLED = re.compile(
    r"collections (OrderedDict|Counter)|(builtins|__builtin__) (set|complex)|_codecs encode"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)|torch\.storage UntypedStorage"
    r"|torch (Size|device|\w+Storage|b?float\w+|u?int\w+|complex\w+|bool|half|double|long)"
)


def save_checkpoint(
    path: Path | str,
    *,
    step: int,
    config: dict[str, Any],
    ranks: Sequence[dict[str, Any]] | None = None,
    **stateful: Any,
) -> None:
    """Write a checkpoint under another name, flush it, and rename it: a stop leaves the previous one whole.

    The one that was there is kept as :func:`previous_checkpoint`.

    Args:
        path: the file.
        step: steps done.
        config: of the run, plain values.
        ranks: what :func:`own_state` gave in each process, if several train together.
        stateful: objects with ``state_dict``: the model (its replay buffers are inside), the optimizers.

    Raises:
        OSError: the file cannot be written; the one before is whole.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    states = {name: thing.state_dict() for name, thing in stateful.items()}
    content = {"format": FORMAT, "step": step, "config": config, "states": states, "random": random_states()}
    if ranks is not None and len(ranks) > 1:
        content["ranks"] = list(ranks)
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
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif shutil.disk_usage(path.parent).free < 2**20:  # PyTorch's words tell of positions in the file
            reason = os.strerror(errno.ENOSPC)
        else:
            reason = str(error).partition("\n")[0]
        raise OSError(
            f"cannot write the checkpoint {path}: {reason}. The one before is whole; make room or take another folder"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_name(f"{path.stem}_before{path.suffix}")


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`save_checkpoint` wrote, read and checked.

    Args:
        path: the file.
        step: steps done.
        config: of the run.
        states: of each object, by name.
        randomness: states of the random number generators.
        ranks: what was each process's own, if several trained together.
    """

    path: Path
    step: int
    config: dict[str, Any]
    states: dict[str, Any]
    randomness: dict[str, Any]
    ranks: tuple[dict[str, Any], ...] = ()

    def of_rank(self, rank: int) -> Checkpoint:
        """The checkpoint as process ``rank`` needs it: with its own buffers and random states.

        One that the run did not have before takes the first one's buffers, and the random states that it has now.
        """
        if rank < len(self.ranks):
            own = self.ranks[rank]
            states = self.states | {"model": self.states["model"] | own["buffers"]}
            return replace(self, states=states, randomness=own["random"], ranks=())
        return replace(self, randomness=random_states() if rank else self.randomness, ranks=())

    def restore(self, **stateful: Any) -> None:
        """Put the states back into the objects that were saved under these names.

        Raises:
            ValueError: a state does not fit its object.
        """
        for name, thing in stateful.items():
            try:
                thing.load_state_dict(self.states[name])
            except Exception as error:  # values of other kinds make it raise almost anything
                reason = textwrap.shorten(str(error), 500) or type(error).__name__
                raise ValueError(
                    f"{self.path} was saved with other options; its {name} does not fit: {reason}"
                ) from None

    def restore_random_states(self) -> None:
        """Restore the random states of Python, NumPy and PyTorch.

        Do this last, since building networks draws random numbers.

        Raises:
            ValueError: they are damaged.
        """
        try:
            set_random_states(self.randomness)
        except Exception as error:  # as above
            reason = textwrap.shorten(str(error), 300) or type(error).__name__
            raise ValueError(f"{self.path} holds no random states that can be put back: {reason}") from None


def newest_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path`` if it can be read, else the one before it, with a warning.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: neither can be read.
    """
    before = previous_checkpoint(path)
    try:
        return read_checkpoint(path)
    except (FileNotFoundError, ValueError) as error:
        if not before.exists():
            raise
        try:
            found = read_checkpoint(before)
        except ValueError as another:
            raise ValueError(f"{error}; and {another}") from None
        warnings.warn(f"{error}: going on from the one before, {before}", stacklevel=2)
        return found


def own_state(model: nn.Module) -> dict[str, Any]:
    """What differs between processes that train a model together: random states and buffers (replay, statistics)."""
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    state = model.state_dict().items()
    buffers = {name: value.cpu() for name, value in state if name not in trained and isinstance(value, Tensor)}
    return {"random": random_states(), "buffers": buffers}


def _flush_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # so that the renaming outlives a power cut; Windows has no such thing
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint; no code from the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a checkpoint of ours.
    """
    try:
        _check_archive(Path(path))
        # mapped, a tensor can neither reach beyond the file nor claim memory that the file has not
        saved = _owned(torch.load(path, weights_only=True, map_location="cpu", mmap=True))
        if saved["format"] != FORMAT:
            raise ValueError(f"its format is {saved['format']}, this version reads {FORMAT}")
        states, step, config, randomness = saved["states"], saved["step"], saved["config"], saved["random"]
        if not (isinstance(states, dict) and isinstance(config, dict) and isinstance(step, int) and step >= 0):
            raise ValueError(f"its states, step or configuration are of another kind: {step!r:.50}, {config!r:.50}")
        ranks = saved.get("ranks", [])
        model = states.get("model", {})
        if not (isinstance(ranks, list) and all(map(_is_own_state, ranks)) and (isinstance(model, dict) or not ranks)):
            raise ValueError("what belongs to each process is of another kind")
        return Checkpoint(Path(path), step, config, states, randomness, tuple(ranks))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no checkpoint {path}: a run writes one at its end, and before if asked"
        ) from None
    except Exception as error:  # torch.load raises almost anything on a foreign or damaged file
        if isinstance(error, OSError) and error.filename is not None:  # not of what is in the file, but of the file
            raise
        reason = textwrap.shorten(str(error).partition("\n")[0], 300) or type(error).__name__
        raise ValueError(f"{path} is not a checkpoint that can be read: {reason}") from None


def _is_own_state(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), dict) for name in ("random", "buffers"))


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
    checkpoint = read_checkpoint(path)
    if stateful:
        checkpoint.restore(**stateful)
        checkpoint.restore_random_states()
    return checkpoint.step, checkpoint.config


def _check_archive(path: Path) -> None:
    """Refuse, before anything is unpacked, an archive that ``torch.save`` would not have written."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        claimed = sum(entry.file_size for entry in entries)
        if claimed > size:
            raise ValueError(f"it has {size:,} bytes, but claims to hold {claimed:,}")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, which torch.save does not do")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):  # PyTorch finds it in any case
                for operation, argument, _ in pickletools.genops(archive.read(entry)):
                    if operation.name == "GLOBAL" and not _CALLED.fullmatch(str(argument)):
                        raise ValueError(f"it would call {argument!r:.100}, which no state needs")


def _owned(saved: Any) -> Any:
    """What was loaded, its tensors copied out of the file.

    Raises:
        ValueError: a tensor claims more numbers than are stored, or there is no end of values.
    """
    left = MAX_VALUES

    def own(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values, or some that hold one another")
        if isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f"a tensor of the shape {list(value.shape)} claims more than is stored")
            return value.detach().clone()
        if isinstance(value, dict):
            for key in value:
                value[key] = own(value[key])
        elif isinstance(value, list):
            value[:] = [own(item) for item in value]
        elif type(value) is tuple:
            return tuple(own(item) for item in value)
        return value

    return own(saved)
