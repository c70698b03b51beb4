"""The options of any run, as a command line has them, and how a run goes on by its own."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from ganparts.training.checkpoint import load_checkpoint, newest_checkpoint

__all__ = ["RunOptions", "resumed"]

_FREE = {"workers", "paint", "log_every", "sample_every", "checkpoint_every", "time_limit", "tensorboard", "debug"}
_MAY_BE_ZERO = {"seed", "workers", "paint", "cycle_weight", "identity_weight"}


@dataclass(frozen=True)
class RunOptions:
    """Options of a run. None stands for what suits the device."""

    epochs: int | None = None
    """Length of the run; the learning rate's schedule is stretched over it."""
    steps: int | None = None
    """Length of the run in steps, instead of epochs."""
    time_limit: float | None = None
    """Minutes after which the run stops as if by Ctrl-C; painting comes on top."""
    seed: int = 0
    """Decides weights, pairs, crops, flips, replay and dropout."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    deterministic: bool = False
    """On a GPU, too, the same numbers in every run, at some cost in speed."""
    on_nonfinite: Literal["rollback", "skip", "stop"] = "rollback"
    """If a loss or gradient is not finite: go back to the last checkpoint's weights, leave the step out, or stop."""
    out: Path | None = None
    """The run folder. None: runs/ and the time."""
    resume: Path | None = None
    """A run folder to go on with, by its own options (workers, paint, time limit and intervals can be given anew)."""
    log_every: int = 10
    """Steps between two rows of losses.csv, and two looks at what may go wrong."""
    sample_every: int | None = None
    """Steps between two grids of samples. None: a tenth of the run."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; one is written at the end in any case."""
    tensorboard: bool = False
    """Write curves for TensorBoard, too (pip install "ganparts[tensorboard]")."""
    debug: bool = False
    """Show the whole trace of an error."""

    def __post_init__(self) -> None:
        if self.epochs and self.steps:
            raise ValueError(f"--epochs {self.epochs} and --steps {self.steps} exclude each other: give one")
        for name, value in vars(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and (value < 0 or (value == 0 and name not in _MAY_BE_ZERO)):
                raise ValueError(f"--{name.replace('_', '-')} {value} is too small")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.resume or self.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")


OptionsT = TypeVar("OptionsT", bound=RunOptions)


def resumed(options: OptionsT) -> OptionsT:
    """The options of the run that ``options.resume`` names, with those that were given anew; or as they are.

    Raises:
        ValueError: an option was given that a run which goes on cannot change, or no checkpoint can be read.
        FileNotFoundError: there is no checkpoint.
    """
    if options.resume is None:
        return options
    default = type(options)()
    given = {name: value for name, value in vars(options).items() if value != getattr(default, name)}
    if fixed := ", ".join(sorted(given.keys() - _FREE - {"resume"})):
        raise ValueError(f"--resume {options.resume} goes on by that run's own options: do not give {fixed}")
    saved = load_checkpoint(newest_checkpoint(options.resume / "checkpoint.pt"))[1]["options"]
    typed: dict[str, Any] = {}
    for field in fields(options):
        value = saved.get(field.name, getattr(default, field.name))
        typed[field.name] = Path(value) if value is not None and "Path" in str(field.type) else value
        if isinstance(value, list):
            typed[field.name] = tuple(value)
    return replace(options, **typed | given)
