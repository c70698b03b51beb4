"""Options of runs, on a command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from ganparts.training import EvaluationOptions, PolicyOptions, RunOptions, parse_options, save_checkpoint, setting


@dataclass(frozen=True)
class Cut(RunOptions, EvaluationOptions, PolicyOptions):
    """The options of another recipe."""

    flip_probability: float = 0.0
    """A field of its own, whose default is 0."""
    layers: tuple[int, ...] = (0, 4)
    """Anything else."""
    queue: int = setting(0, least=0)
    """A number with a limit."""
    temperature: float = setting(0.07, above=0, on_resume=True)
    """Another."""
    target: Path | None = None
    """A path."""


def parsed(*words: str) -> Cut:
    return parse_options(Cut, description="", arguments=list(words))


def test_a_recipe_has_options_of_its_own_with_limits_of_their_own(tmp_path: Path):
    options = parsed("--out", str(tmp_path))
    assert (options.flip_probability, options.layers, options.queue) == (0.0, (0, 4), 0)
    assert parsed("--flip-probability", "-1", "--layers", "-2").layers == (-2,)
    for values, message in (
        ({"queue": -1}, "--queue -1 is too small: give 0 or more"),
        ({"temperature": 0.0}, r"--temperature 0\.0 is too small: give more than 0"),
        ({"steps": 0}, "--steps 0 is too small: give 1 or more"),
        ({"hours": math.nan}, "--hours nan is not a finite number"),
        ({"hours": math.inf}, "--hours inf is not a finite number"),
        ({"time_limit": 0}, "--time-limit 0 is too small"),
        ({"steps": 3, "hours": 1.0}, r"--steps 3 and --hours 1\.0 exclude each other: give one"),
    ):
        with pytest.raises(ValueError, match=message):
            Cut(**values)


def test_a_run_without_a_name_gets_one_folder(monkeypatch: pytest.MonkeyPatch):
    options = parsed()
    assert options.folder == options.out
    assert options.folder.parent == Path("runs")


def test_a_run_that_starts_in_the_same_second_gets_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Now(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Now:
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganparts.training.options.datetime", Now)
    for name in ("20260102-030405", "20260102-030405-2", "20260102-030405-3"):
        assert parsed().folder == Path("runs") / name
        (Path("runs") / name).mkdir(parents=True)


def test_a_run_without_a_length_is_short_on_a_cpu_alone():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert parsed().for_device(cpu).hours == 0.06
    assert parsed().for_device(cuda).hours is None
    for length in ("--steps", "--epochs", "--hours"):
        given = parsed(length, "2")
        assert given.for_device(cpu) is given


def test_a_checkpoint_does_not_choose_which_modules_are_imported(tmp_path: Path):
    began = parsed("--out", str(tmp_path), "--imports", "my_parts", "others")
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(began).items()}
    save_checkpoint(tmp_path / "checkpoint.pt", step=1, config={"options": options}, model=torch.nn.Linear(1, 1))
    with pytest.raises(
        ValueError, match=r"imported my_parts, others\. If you trust .* again: --imports my_parts others"
    ):
        parsed("--resume", str(tmp_path))
    assert parsed("--resume", str(tmp_path), "--imports", "my_parts").imports == ("my_parts",)


def test_what_a_run_began_with_is_the_default_of_its_resumption(tmp_path: Path):
    began = parsed("--out", str(tmp_path), "--steps", "9", "--layers", "1", "2", "--target", "a/b", "--log-every", "1")
    config = {
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(began).items()}
    }
    save_checkpoint(tmp_path / "checkpoint.pt", step=1, config=config, model=torch.nn.Linear(1, 1))
    again = parsed("--resume", str(tmp_path))
    assert vars(again) == vars(began) | {"resume": tmp_path}
    assert again.folder == tmp_path
    changed = parsed("--resume", str(tmp_path), "--log-every", "10", "--temperature", "0.1", "--epochs", "3")
    assert (changed.log_every, changed.temperature, changed.steps, changed.epochs) == (10, 0.1, None, 3)
    for words in (("--layers", "0", "4"), ("--flip-probability", "0.5"), ("--target", "b"), ("--hours", "2")):
        with pytest.raises(ValueError, match=f"continues that run, .* leave out {words[0]} .*--init {tmp_path}"):
            parsed("--resume", str(tmp_path), *words)
    same = parsed("--resume", str(tmp_path), "--layers", "1", "2", "--flip-probability", "0", "--target", "a/b")
    assert same == again
