"""The command-line options of every run, and how a run is resumed with its own options."""

from __future__ import annotations

import os
import typing
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ganparts.adversarial.options import check_numbers
from ganparts.distributed import restarts
from ganparts.training.checkpoint import CHECKPOINT, newest_checkpoint, previous_checkpoint

if TYPE_CHECKING:
    import torch

    from ganparts.adversarial import TrainingSettings

__all__ = ["EvaluationOptions", "RunOptions", "parse_options", "setting"]

OptionsT = TypeVar("OptionsT", bound="RunOptions")

_LENGTHS = ("epochs", "steps", "hours")
_CPU_HOURS = 0.06  # a first look, painting included


def setting(default: Any, *, least: float | None = None, above: float | None = None, on_resume: bool = False) -> Any:
    """A dataclass field that is an option of a run.

    Args:
        default: of the option.
        least: the smallest number that is allowed.
        above: numbers must be larger than this.
        on_resume: whether a run that is resumed may change it.
    """
    return field(default=default, metadata={"least": least, "above": above, "on_resume": on_resume})


@dataclass(frozen=True)
class RunOptions:
    """Options of a run. None stands for what suits the device."""

    epochs: int | None = setting(None, least=1, on_resume=True)
    """Length of the run; the learning rate's schedule is stretched over it. Without a length a CPU trains for about
    four minutes, a GPU for the preset's epochs."""
    steps: int | None = setting(None, least=1, on_resume=True)
    """Length of the run in steps, instead of epochs."""
    hours: float | None = setting(None, above=0)
    """Length of the run in hours, painting included: steps are timed, and the number of steps follows."""
    time_limit: float | None = setting(None, above=0, on_resume=True)
    """Minutes after which training stops, wherever it is; it still evaluates and paints. --resume goes on."""
    seed: int = setting(0, least=0)
    """Decides weights, pairs, crops, flips, replay and dropout."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    deterministic: bool = False
    """On a GPU, too, compute the same numbers in every run, at some cost in speed."""
    memory: Literal["auto", "fast", "low", "lowest"] = "auto"
    """fast, or slower with less memory; auto: the fastest that fits."""
    on_nonfinite: Literal["rollback", "skip", "stop"] = "rollback"
    """If a loss or gradient is not finite: go back to the last checkpoint's weights, skip the step, or stop."""
    init: tuple[str, ...] = ()
    """Trained generators to start from: folders, run folders or Hub names, photo to painting first."""
    init_discriminators: Path | None = None
    """A run folder whose discriminators to start from, too: new ones soon undo what trained generators have learned."""
    imports: tuple[str, ...] = setting((), on_resume=True)
    """Modules to import first, which register parts of your own; Python must find them (PYTHONPATH)."""
    out: Path | None = None
    """The run folder. None: runs/ and the time."""
    resume: Path | None = setting(None, on_resume=True)
    """A run folder to continue, with the options it was started with; those for which it makes sense can be changed."""
    sync_batch_norm: bool = False
    """Where several processes train together, take batch norms' statistics over all of them."""
    workers: int | None = setting(None, least=0, on_resume=True)
    """Processes that decode images. None: up to 4 for a GPU, 0 for a CPU."""
    log_every: int = setting(10, least=1, on_resume=True)
    """Steps between two rows of losses.csv, and two looks at what may go wrong."""
    sample_every: int | None = setting(None, least=1, on_resume=True)
    """Steps between two grids of samples. None: a tenth of the run."""
    checkpoint_every: int = setting(1000, least=1, on_resume=True)
    """Steps between two checkpoints; one is written at the end in any case."""
    tensorboard: bool = setting(False, on_resume=True)
    """Write curves for TensorBoard, too (pip install "ganparts[tensorboard]")."""
    debug: bool = setting(False, on_resume=True)
    """Show the whole trace of an error."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.resume or self.out or _new_folder()

    def for_device(self: OptionsT, device: torch.device) -> OptionsT:
        """These options; on a CPU a run for which no length was given takes about four minutes."""
        given = any(getattr(self, name) is not None for name in _LENGTHS)
        return self if given or device.type != "cpu" else replace(self, hours=_CPU_HOURS)

    def total_steps(self, settings: TrainingSettings, *, pairs: int) -> int | None:
        """The steps of the whole run on so many pairs; None if ``hours`` decides."""
        if self.hours is not None:
            return None
        return self.steps or (self.epochs or settings.epochs) * settings.epoch_steps(pairs)

    def loading_processes(self, device: torch.device) -> int:
        """How many processes decode images."""
        if self.workers is not None:
            return self.workers
        return min(4, os.cpu_count() or 1) if device.type == "cuda" else 0

    def __post_init__(self) -> None:
        lengths = [name for name in _LENGTHS if getattr(self, name) is not None]
        if len(lengths) > 1:
            given = " and ".join(f"--{name} {getattr(self, name)}" for name in lengths)
            raise ValueError(f"{given} exclude each other: give one")
        check_numbers(self)


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of runs that score what they make while they train."""

    evaluate_every: int | None = setting(None, least=1, on_resume=True)
    """Steps between two evaluations; the best generator is kept."""
    evaluate_photos: int = setting(500, least=2)
    """Images to translate for each evaluation, always the same; they are compared with all target images."""
    metric: Literal["kid", "fid", "mifid"] = "kid"
    """Decides which generator is the best."""
    extractor: str = "auto"
    """Whose features are compared: inception, efficientnet_lite0, _lite1 or _lite2, clip, dino, timm:MODEL."""
    patience: int | None = setting(None, least=1, on_resume=True)
    """Stop when this many evaluations in a row were no better."""


def parse_options(kind: type[OptionsT], *, description: str, arguments: list[str] | None = None) -> OptionsT:
    """Options from a command line. A resumed run keeps its own options, except those that are given again.

    A run that torchrun starts again (``--max-restarts``) goes on from its last checkpoint, if it has one.

    Args:
        kind: a frozen dataclass of options.
        description: the program's, for ``--help``.
        arguments: of the command line; None for the program's.

    Raises:
        ValueError: an option was given that a resumed run cannot change, or no checkpoint can be read. Or torchrun may
            start the run again, but would not find its folder.
        FileNotFoundError: there is no checkpoint.
    """
    import tyro

    options = tyro.cli(kind, description=description, args=arguments)
    if options.resume is None and any(restarts()):
        options = _going_on(options)
    if options.resume is None:
        return options if options.out else replace(options, out=_new_folder())
    saved = _saved_options(kind, options.resume)
    modules, saved = saved.imports, replace(saved, imports=())  # a checkpoint must not name the code that runs
    # with the run's own options as defaults, an option counts as given even at its usual default
    lengths = {name: getattr(saved, name) for name in _LENGTHS}  # of which one replaces another
    own = replace(saved, resume=options.resume, **dict.fromkeys(lengths))
    options = tyro.cli(kind, description=description, args=arguments, default=own)
    if all(getattr(options, name) is None for name in lengths):
        options = replace(options, **lengths)
    if modules and not options.imports:
        raise ValueError(
            f"--resume {options.resume}: that run imported {', '.join(modules)}. If you trust what is there, give it "
            f"again: --imports {' '.join(modules)}"
        )
    changed = [
        each.name
        for each in fields(options)
        if getattr(options, each.name) != getattr(saved, each.name)
        and not (each.name in lengths and getattr(options, each.name) is None)
    ]
    fixed = [name for name in changed if not _field(kind, name).metadata.get("on_resume")]
    if fixed:
        given = ", ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in fixed)
        raise ValueError(
            f"--resume {options.resume} continues that run, which began with other options: leave out {given}. "
            f"To train on with other options, start a new run from its weights (--init {options.resume})"
        )
    return options


def _going_on(options: OptionsT) -> OptionsT:
    if options.out is None:
        raise ValueError("--max-restarts goes on in the run folder, so it must have a name: give --out FOLDER")
    checkpoint = options.out / CHECKPOINT
    begun = restarts()[0] and (checkpoint.exists() or previous_checkpoint(checkpoint).exists())
    return replace(options, resume=options.out) if begun else options


def _new_folder() -> Path:
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    endings = ("", *(f"-{number}" for number in range(2, 1000)))
    return next(folder for ending in endings if not (folder := Path("runs") / f"{name}{ending}").exists())


def _field(kind: type, name: str) -> Any:
    return next(each for each in fields(kind) if each.name == name)


def _saved_options(kind: type[OptionsT], folder: Path) -> OptionsT:
    saved = newest_checkpoint(folder / CHECKPOINT).config["options"]
    hints, default, values = typing.get_type_hints(kind), kind(), {}
    for each in fields(kind):
        value = saved.get(each.name, getattr(default, each.name))
        if isinstance(value, str) and Path in (hints[each.name], *typing.get_args(hints[each.name])):
            value = Path(value)
        values[each.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
