"""The training loop on an assembly that is no GAN: one network that learns to give numbers back."""

from __future__ import annotations

import csv
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganparts import GENERATORS
from ganparts.adversarial import Optimizers, TrainingSettings, trained_parameters
from ganparts.pretrained import from_pretrained
from ganparts.training import (
    EvaluationOptions,
    Loop,
    NotFiniteError,
    PolicyOptions,
    RunOptions,
    loop,
    planning,
    read_checkpoint,
)
from ganparts.training.budget import changed_length


@dataclass(frozen=True)
class Options(RunOptions, EvaluationOptions, PolicyOptions):
    """All that a recipe offers."""


class Killed(BaseException):
    """Stands for a kill: nothing more is done."""


class Line(nn.Module):
    """A 1x1 convolution that is trained on noise, so that every random number counts."""

    def __init__(self) -> None:
        super().__init__()
        self.network = GENERATORS.create("line")
        self.at: dict[int, Callable[[], float]] = {}
        """What happens in a step, by its number from 0; gives a factor on its loss."""

    def networks(self) -> dict[str, dict[str, nn.Module]]:
        return {"all": self.stages()}

    def stages(self) -> dict[str, nn.Module]:
        return {"line": self.network}

    def parts(self) -> dict[str, object]:
        return {"line": self.network, "target": "noise"}

    def phase(self, step: int) -> int:
        return 0

    def train_step(
        self,
        batch: Tensor,
        optimizers: Optimizers,
        *,
        step: int | None = None,
        low_memory: Any,
        side_stream: Any = None,
    ) -> dict[str, Tensor]:
        factor = self.at[step]() if step in self.at else 1.0
        optimizers.zero_grad()
        loss = factor * (self.network(batch) - torch.rand_like(batch)).square().mean()
        optimizers.backward(loss, trained_parameters(self.network))
        optimizers.step()
        return {"square": loss.detach()}


@pytest.fixture(autouse=True)
def _line() -> Iterator[None]:
    GENERATORS.register("line")(lambda: nn.Conv2d(3, 3, 1))
    yield
    GENERATORS.remove("line")


def batches(*, start: int, steps: int | None) -> Iterator[Tensor]:
    torch.rand(3)  # what makes batches may draw numbers when it begins
    numbers = itertools.count(start) if steps is None else range(start, steps)
    return (torch.full((1, 3, 8, 8), float(number % 7)) for number in numbers)


def score_of(values: Iterator[float], calls: list[Any] | None = None) -> Callable[[], Any]:
    """Makes something that scores, draws random numbers, and gives these values."""

    def make() -> Any:
        torch.rand(7)

        def score(generator: nn.Module) -> Any:
            torch.rand(5)
            value = next(values)
            if calls is not None:
                calls.append("score")
            return SimpleNamespace(values=lambda: {"kid": value}, told=lambda: {"KID": f"{value:.4f}"})

        return score

    return make


def make_loop(out: Path | None, *, model: Line | None = None, settings: Any = None, **options: Any) -> Loop:
    more = {name: options.pop(name) for name in ("score", "after", "clock") if name in options}
    torch.manual_seed(0)
    return Loop(
        model or Line(),
        Options(**({} if out is None else {"out": out}), **{"log_every": 1} | options),
        settings=settings or TrainingSettings(batch_size=1, learning_rate=0.01),
        device=torch.device("cpu"),
        example=lambda size: torch.empty(size, 3, 8, 8),
        samples=torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8),
        settled={"data": "numbers"},
        **more,
    )


def train(trained: Loop, steps: int | None = None) -> Any:
    with trained.folder:
        return trained.run(batches, steps=steps if steps is not None else trained.options.steps)


def states(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "checkpoint.pt").states


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_any_assembly_is_trained(tmp_path: Path):
    out = tmp_path / "run"
    ended = train(make_loop(out, steps=3))
    assert ended == (3, 3, None, False)
    config = json.loads((out / "config.json").read_text())
    assert config["parts"] == {"line": "line()", "target": "noise"}
    assert config["settled"]["steps"] == 3
    assert next(list(row)[4:] for row in rows(out / "losses.csv")) == ["square", "grad_norm_line"]
    torch.testing.assert_close(
        from_pretrained(out / "generator").state_dict()["weight"], states(out)["model"]["network.weight"]
    )
    assert '"finished"' in (out / "report.html").read_text()


def recorded(trained: Loop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that a loop makes between steps, in order."""
    calls: list[str] = []

    def note(thing: Any, method: str, name: str) -> None:
        original = getattr(thing, method)
        monkeypatch.setattr(thing, method, lambda *a, **k: (calls.append(name), original(*a, **k))[1])

    note(trained.model, "train_step", "step")
    note(trained, "_log", "log")
    note(trained.watch, "pictures", "look")
    note(trained.folder, "save_samples", "sample")
    note(trained.folder, "save", "save")
    note(trained.folder.scores, "save", "keep scores")
    note(trained.folder, "export", "export")
    note(trained.folder, "recover", "recover")
    return calls


def test_what_happens_between_steps_has_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "LOOK_EVERY", 2)
    scores: list[str] = []
    trained = make_loop(
        tmp_path / "run",
        score=score_of(iter((0.4, 0.5, 0.2, 0.3, 0.9)), scores),
        **{"steps": 20, "log_every": 2, "sample_every": 4, "checkpoint_every": 2, "evaluate_every": 4},
    )
    calls = recorded(trained, monkeypatch)
    trained.model.at[13] = lambda: float("nan")  # in step 14
    ended = train(trained)
    assert len(scores) == 5
    expected = dict.fromkeys(range(21), "") | {0: "save", 1: "log", 2: "log look save export"}
    expected |= dict.fromkeys((6, 10, 18), "log look save")
    expected[4] = "log look sample save export export keep scores"  # the first, and the best
    expected |= dict.fromkeys((8, 16, 20), "log look sample save keep scores")
    expected[12] = "log look sample save export keep scores"  # the best
    expected[14] = "log look recover"
    assert {number: " ".join(each) for number, each in enumerate(grouped(calls))} == expected
    assert ended == (20, 20, None, False)


def test_weights_that_were_gone_back_to_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As they are by a run that goes on from that checkpoint."""
    options = {"steps": 6, "evaluate_every": 2, "sample_every": 10, "checkpoint_every": 10}
    trained = make_loop(tmp_path / "run", score=score_of(iter((0.4, 0.5, 0.6))), **options)
    calls = recorded(trained, monkeypatch)
    trained.model.at[3] = lambda: float("nan")
    train(trained)
    assert " ".join(grouped(calls)[4]) == "log recover keep scores"
    assert [row["step"] for row in rows(tmp_path / "run" / "scores.csv")] == ["2", "4", "6"]


def grouped(calls: list[str]) -> list[list[str]]:
    """The calls before the first step, and after each."""
    groups: list[list[str]] = [[]]
    for call in calls:
        groups.append([]) if call == "step" else groups[-1].append(call)
    return groups


def test_patience_stops_at_once_and_the_best_generator_is_kept(tmp_path: Path):
    out = tmp_path / "run"
    trained = make_loop(out, score=score_of(iter((0.4, 0.2, 0.3, 0.25))), steps=20, evaluate_every=2, patience=2)
    kept: dict[int, Tensor] = {}
    trained.model.at = {number: lambda n=number: kept.update({n: weight(trained)}) or 1.0 for number in range(20)}
    ended = train(trained)
    assert (ended.step, ended.reason) == (8, "patience (kid has not improved in 2 evaluations)")
    assert [row["kid"] for row in rows(out / "scores.csv")] == ["0.4", "0.2", "0.3", "0.25"]
    exported = from_pretrained(out / "generator").state_dict()["weight"]
    assert torch.equal(exported, kept[4])  # as step 4 left it
    assert torch.equal(trained.exported().state_dict()["weight"], kept[4])
    assert not torch.equal(exported, weight(trained))
    assert "| KID | 0.2000 |" in (out / "generator" / "README.md").read_text()
    assert read_checkpoint(out / "checkpoint.pt").step == 8


def weight(trained: Loop) -> Tensor:
    return trained.model.network.weight.detach().clone()


def kill() -> float:
    raise Killed


@pytest.mark.parametrize("evaluate_every", [None, 2])
@pytest.mark.parametrize("killed_at", [1, 4, 7])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path, evaluate_every: int | None, killed_at: int):
    options = {"steps": 9, "checkpoint_every": 3, "evaluate_every": evaluate_every, "precision": "bf16"}
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    settings = TrainingSettings(batch_size=1, learning_rate=0.01, ema_decay=0.9)
    scores = [0.4, 0.5, 0.2, 0.3, 0.9]
    train(make_loop(whole, score=score_of(iter(scores)), settings=settings, **options))
    first = make_loop(parted, score=score_of(iter(scores)), settings=settings, **options)
    first.model.at[killed_at] = kill
    with pytest.raises(Killed):
        train(first)
    done = read_checkpoint(parted / "checkpoint.pt").step
    again = score_of(iter(scores[done // 2 :]))
    train(make_loop(None, resume=parted, score=again, settings=settings, **options))
    torch.testing.assert_close(states(parted), states(whole), rtol=0, atol=0)
    for name in ("losses.csv", "scores.csv") if evaluate_every else ("losses.csv",):
        told = [
            [{n: v for n, v in row.items() if n not in ("pairs_per_second", "data_wait")} for row in rows(out / name)]
            for out in (whole, parted)
        ]
        assert told[0] == told[1]
    painted = [from_pretrained(out / "generator").state_dict()["weight"] for out in (whole, parted)]
    assert torch.equal(*painted)


def test_evaluating_does_not_change_training(tmp_path: Path):
    train(make_loop(tmp_path / "a", steps=5))
    train(make_loop(tmp_path / "b", steps=5, evaluate_every=2, score=score_of(itertools.repeat(0.5))))
    torch.testing.assert_close(states(tmp_path / "a"), states(tmp_path / "b"), rtol=0, atol=0)


@pytest.mark.parametrize("where", ["step", "_log", "pictures", "save_samples", "save", "score", "last step"])
def test_a_signal_leaves_a_checkpoint_and_a_generator_and_nothing_slow(tmp_path: Path, monkeypatch, where: str):
    monkeypatch.setattr(loop, "LOOK_EVERY", 1)
    out, calls = tmp_path / "run", []

    def send(*_: Any) -> float:
        if len(rows(out / "losses.csv") if (out / "losses.csv").exists() else []) >= 2:
            signal.raise_signal(signal.SIGTERM)
            calls.append("signal")
        return 1.0

    options: dict[str, Any] = {"sample_every": 1, "checkpoint_every": 3 if where == "save" else 1000}
    if where == "score":
        values = (send() and 0.5 for _ in itertools.count())
        options |= {"evaluate_every": 3, "score": score_of(values, calls)}
    elif where == "step":
        options |= {"evaluate_every": 4, "score": score_of(itertools.repeat(0.5), calls)}
    trained = make_loop(out, steps=3 if where == "last step" else 9, **options)
    if where in ("step", "last step"):
        trained.model.at = {2 if where == "last step" else 3: send}
    elif where != "score":
        thing = {"_log": trained, "pictures": trained.watch}.get(where, trained.folder)
        original = getattr(thing, where)
        monkeypatch.setattr(thing, where, lambda *a, **k: (not calls and send(), original(*a, **k))[1])
    ended = train(trained)
    assert (ended.reason, ended.by_signal) == ("SIGTERM", True)
    assert calls == ["signal", "score"] if where == "score" else calls == ["signal"]
    assert read_checkpoint(out / "checkpoint.pt").step == ended.step <= 4
    last = states(out)["model"]["network.weight"]
    assert torch.equal(from_pretrained(out / "generator").state_dict()["weight"], last)
    assert '"stopped"' in (out / "report.html").read_text()
    assert len(list((out / "samples").iterdir())) <= 3


def test_data_that_fail_keep_what_was_learned(tmp_path: Path):
    out = tmp_path / "run"

    def failing(*, start: int, steps: int | None) -> Iterator[Tensor]:
        yield from itertools.islice(batches(start=start, steps=steps), 2)
        raise ValueError("cannot read the image x.png")

    trained = make_loop(out, steps=9)
    with pytest.raises(ValueError, match=r"x\.png"), trained.folder:
        trained.run(failing, steps=9)
    assert read_checkpoint(out / "checkpoint.pt").step == 2
    assert torch.equal(from_pretrained(out / "generator").state_dict()["weight"], weight(trained))
    trained = make_loop(tmp_path / "scored", steps=9, evaluate_every=1, score=score_of(iter((0.1, 0.2))))
    trained.model.at[1] = lambda: before.append(weight(trained)) or 1.0
    before: list[Tensor] = []
    with pytest.raises(ValueError, match=r"x\.png"), trained.folder:
        trained.run(failing, steps=9)
    assert torch.equal(from_pretrained(tmp_path / "scored" / "generator").state_dict()["weight"], before[0])


def test_an_error_in_a_step_is_no_step(tmp_path: Path):
    trained = make_loop(tmp_path / "run", steps=9)
    trained.model.at[2] = lambda: int("x")
    with pytest.raises(ValueError, match="invalid literal"):
        train(trained)
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 0


@pytest.mark.parametrize("how", ["stop", "skip"])
def test_a_stop_for_numbers_that_are_not_finite_keeps_the_last_good_state(tmp_path: Path, how: str):
    out = tmp_path / "run"
    trained = make_loop(out, steps=60, checkpoint_every=2, on_nonfinite=how)
    trained.model.at = {number: lambda: float("nan") for number in range(3, 60)}
    with pytest.raises(NotFiniteError, match=f"not finite at step {4 if how == 'stop' else 23}"):
        train(trained)
    assert from_pretrained(out / "generator").state_dict()["weight"].isfinite().all()
    assert read_checkpoint(out / "checkpoint.pt").step == (2 if how == "stop" else 22)
    assert '"crashed"' in (out / "report.html").read_text()


@pytest.mark.parametrize("how", ["stop", "rollback", "skip"])
def test_losses_that_stay_nan_end_a_run_in_fp16(tmp_path: Path, how: str):
    out = tmp_path / "run"
    trained = make_loop(out, steps=60, precision="fp16", on_nonfinite=how)
    trained.model.at = {number: lambda: float("nan") for number in range(2, 60)}
    with pytest.raises(NotFiniteError, match="losses, gradients or weights are not finite at step"):
        train(trained)
    told = rows(out / "losses.csv")
    assert {row["square"] for row in told[2:]} == {"nan"}
    assert float(told[0]["loss_scale"]) == 65536.0
    assert float(told[-1]["loss_scale"]) < 65536.0
    assert len(told) == {"stop": 3, "rollback": 6}.get(how, len(told)) <= 22
    assert '"crashed"' in (out / "report.html").read_text()


def test_a_rollback_in_the_last_step_still_leaves_a_generator(tmp_path: Path):
    trained = make_loop(tmp_path / "run", steps=3)
    start = weight(trained)
    trained.model.at[2] = lambda: float("nan")
    assert train(trained).reason is None
    assert torch.equal(trained.exported().state_dict()["weight"], start)


def test_batches_are_made_anew_once_the_length_is_known(tmp_path: Path):
    now, asked = [0.0], []

    def later() -> float:
        now[0] += 3
        return 1.0

    def recorded(*, start: int, steps: int | None) -> Iterator[Tensor]:
        asked.append((start, steps))
        return batches(start=start, steps=steps)

    trained = make_loop(tmp_path / "run", hours=0.02, clock=lambda: now[0])
    trained.model.at = dict.fromkeys(range(100), later)
    with trained.folder:
        ended = trained.run(recorded, steps=None)
    (first, (step, steps)) = asked
    assert first == (0, None)
    assert 0 < step < steps == ended.steps == ended.step


def test_batches_that_end_early_are_an_error_and_nothing_is_lost(tmp_path: Path):
    trained = make_loop(tmp_path / "run", steps=9)
    with (
        trained.folder,
        pytest.raises(ValueError, match=r"^the batches ended after step 4 of 9: "),
    ):
        trained.run(lambda **_: batches(start=0, steps=4), steps=9)
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 4


@pytest.mark.parametrize("hours", [0.2, 1.0])
def test_hours_are_turned_into_steps_which_end_in_time(tmp_path: Path, capsys: Any, hours: float):
    out, now = tmp_path / "run", [1000.0]

    def later(seconds: float) -> float:
        now[0] += seconds
        return 1.0

    def new(**options: Any) -> Loop:
        values = (later(30) and 0.5 for _ in itertools.count())
        options |= {"evaluate_every": 10, "after": 30 * 8 * 8, "log_every": 1}
        made = make_loop(options.pop("out", None), hours=hours, clock=lambda: now[0], score=score_of(values), **options)
        made.model.at = {number: lambda: later(3) for number in range(2000)}
        return made

    trained = new(out=out)

    def paint(*_: Any) -> None:
        if not torch.is_grad_enabled():  # two images, a second each
            later(2)

    trained.model.network.register_forward_hook(paint)
    trained.model.at[0] = lambda: later(40)  # a graph is recorded
    trained.model.at[25] = kill  # 20 steps after the first five were timed
    with pytest.raises(Killed):
        train(trained)
    steps = json.loads((out / "config.json").read_text())["settled"]["steps"]
    assert read_checkpoint(out / "checkpoint.pt").config["settled"]["steps"] == steps
    settled = f"{hours:g} hours are enough for {steps} steps."
    assert settled in capsys.readouterr().out
    assert read_checkpoint(out / "checkpoint.pt").step == 25
    again = new(resume=out)
    assert train(again)[:3] == (steps, steps, None)
    needed = now[0] - 1000 + 30  # the photos are painted after it; nothing was lost by the kill
    assert 0.9 * 3600 * hours < needed <= 3600 * hours
    told = rows(out / "losses.csv")
    assert [int(row["step"]) for row in told] == list(range(1, steps + 1))
    expected = [0.01 * again.settings.schedule(number, steps) for number in (0, steps // 2, steps - 1)]
    assert [float(told[n]["learning_rate"]) for n in (0, steps // 2, steps - 1)] == pytest.approx(expected)
    assert expected[-1] < 0.001


@pytest.mark.parametrize(("first", "then"), [(3.0, 1.0), (1.0, 2.0), (1.0, 3.0)])
def test_the_length_is_planned_anew_while_the_rates_are_constant(
    tmp_path: Path, capsys: Any, first: float, then: float
):
    now, asked = [0.0], []

    def later(seconds: float) -> float:
        now[0] += seconds
        return 1.0

    def recorded(*, start: int, steps: int | None) -> Iterator[Tensor]:
        asked.append((start, steps))
        return batches(start=start, steps=steps)

    def new(out: Path | None, **options: Any) -> Loop:
        made = make_loop(out, hours=0.15, clock=lambda: now[0], log_every=1, **options)
        made.model.at = {number: lambda: later(first) for number in range(30)}
        made.model.at |= {number: lambda: later(then) for number in range(30, 500)}
        return made

    out = tmp_path / "run"
    trained = new(out)
    trained.model.at[80] = kill
    with trained.folder, pytest.raises(Killed):
        trained.run(recorded, steps=None)
    starts, lengths = zip(*asked, strict=True)
    assert (starts[:2], lengths[0]) == ((0, 25), None)
    assert f"0.15 hours are enough for {lengths[2]} steps, not {lengths[1]}." in capsys.readouterr().out
    resumed, last = new(None, resume=out), lengths[-1]
    assert train(resumed)[:3] == (last, last, None)
    assert 0.9 * 540 < 30 * first + (last - 30) * then <= 540
    told = [float(row["learning_rate"]) for row in rows(out / "losses.csv")]
    assert told == pytest.approx([0.01 * resumed.settings.schedule(n, last) for n in range(last)])


@pytest.mark.parametrize(
    ("steps", "planned", "length"),
    [
        (None, 70, 70),
        (100, 150, 150),
        (100, 96, 100),  # too little to be worth it
        (100, 85, 85),
        (100, 70, 79),  # 40 of these 79 have the full rate
        (100, 10, 79),
        (60, 300, 60),  # the rate has begun to fall
        (60, 20, 60),
    ],
)
def test_a_planned_length_changes_only_as_its_rates_allow(steps: int | None, planned: int, length: int):
    def halved(step: int, total: int) -> float:
        if step >= total:
            raise ValueError("beyond the run")
        return 1.0 if step < total / 2 else 0.5 - step / total / 4

    assert changed_length(steps, planned, halved, done=32, until=40) == length


def test_a_moment_in_which_the_machine_was_busy_does_not_end_a_run_early(tmp_path: Path):
    now = [0.0]

    def later(seconds: float) -> float:
        now[0] += seconds
        return 1.0

    trained = make_loop(tmp_path / "run", hours=0.1, clock=lambda: now[0])
    trained.model.at = dict.fromkeys(range(400), partial(later, 1)) | {60: partial(later, 40)}
    assert train(trained).reason is None
    assert 0.95 * 360 < now[0] <= 360


def test_a_run_that_is_resumed_before_its_length_was_known_measures_its_own_steps(tmp_path: Path):
    out, now = tmp_path / "run", [500_000.0]  # a machine that has been up for long

    def later() -> float:
        now[0] += 2
        return 1.0

    trained = make_loop(out, hours=0.1, clock=lambda: now[0], checkpoint_every=12)
    trained.model.at = dict.fromkeys(range(400), later) | {12: kill}
    with pytest.raises(Killed):
        train(trained)
    again = make_loop(None, resume=out, hours=0.1, clock=lambda: now[0])
    again.model.at, began = dict.fromkeys(range(400), later), now[0]
    assert train(again)[:2] == (12 + 176, 12 + 176)
    assert now[0] - began == 2 * 176


def test_a_run_gets_longer_where_its_schedule_agrees(tmp_path: Path):
    out = tmp_path / "run"
    constant = TrainingSettings(batch_size=1, learning_rate=0.01, schedule=lambda step, steps: 1.0)
    train(make_loop(out, steps=4, settings=constant))
    train(make_loop(tmp_path / "whole", steps=7, settings=constant))
    assert train(make_loop(None, resume=out, steps=7, settings=constant))[:2] == (7, 7)
    torch.testing.assert_close(states(out), states(tmp_path / "whole"), rtol=0, atol=0)
    assert json.loads((out / "config.json").read_text())["settled"]["steps"] == 7


@pytest.mark.parametrize(("done", "wished"), [(60, 200), (60, 40), (99, 300)])
def test_a_run_whose_rates_would_have_been_others_is_refused(tmp_path: Path, done: int, wished: int):
    out = tmp_path / "run"
    options = {"steps": 100, "log_every": 1000, "checkpoint_every": 1}
    trained = make_loop(out, **options)
    trained.model.at[done] = kill
    with pytest.raises(Killed):
        train(trained)
    with pytest.raises(ValueError, match=rf"had 100 steps, and its learning rates up to step {done} .* \(--init "):
        train(make_loop(None, resume=out, **options | {"steps": wished}))
    assert train(make_loop(None, resume=out, **options))[:2] == (100, 100)


def test_an_unchanged_length_stays_whatever_the_data_are_now(tmp_path: Path):
    out = tmp_path / "run"
    trained = make_loop(out, epochs=2)
    trained.model.at[7] = lambda: signal.raise_signal(signal.SIGTERM) or 1.0
    assert train(trained, steps=10)[:2] == (8, 10)
    assert train(make_loop(None, resume=out, epochs=2), steps=8)[:2] == (10, 10)


def test_a_need_that_cannot_be_estimated_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise planning.MemoryEstimateError("the memory of a step cannot be estimated (no)")

    monkeypatch.setattr(planning, "plan_memory", refuse)
    for wished, level in (("auto", "fast"), ("lowest", "lowest")):
        with pytest.warns(UserWarning, match=rf"cannot be estimated \(no\): training with --memory {level}"):
            trained = make_loop(tmp_path / wished, steps=1, memory=wished)
        assert trained.describe()[-1] == f"memory {level}: the need could not be estimated"
        assert not trained.fits_beside(0)
        train(trained)


def test_a_resumed_run_keeps_its_memory_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    too_large: set[str] = set()
    plan = planning.plan_memory

    def planned(*given: Any, level: str, **options: Any) -> Any:
        asked.append(level)
        if level in too_large:
            raise ValueError("a batch needs more")
        return plan(*given, level=level, **options)

    monkeypatch.setattr(planning, "plan_memory", planned)
    out = tmp_path / "run"
    train(make_loop(out, steps=4, memory="low", time_limit=1e-9))
    resumed = make_loop(None, resume=out, steps=4, memory="auto")
    assert (asked, resumed.plan.level) == (["low", "low"], "low")
    too_large.add("low")
    with pytest.warns(UserWarning, match=r"--memory low, which does not fit any more: it goes on with fast, and last"):
        resumed = make_loop(None, resume=out, steps=4, memory="auto")
    assert (asked[2:], resumed.plan.level) == (["low", "auto"], "fast")
    assert train(resumed)[:2] == (4, 4)
    assert json.loads((out / "config.json").read_text())["settled"]["memory"] == "fast"
    (out / "config.json").write_text("{}")  # the checkpoint counts, and what a run that died at once wrote does not
    too_large.clear()
    assert make_loop(None, resume=out, steps=4, memory="auto").plan.level == "fast"


def test_averages_that_are_not_finite_are_not_saved(tmp_path: Path):
    settings = TrainingSettings(batch_size=1, learning_rate=0.01, ema_decay=0.9)
    trained = make_loop(tmp_path / "run", steps=1, settings=settings)
    train(trained)
    assert trained.averages is not None
    assert trained.folder.save(1)
    next(trained.averages.parameters()).data.fill_(float("nan"))
    assert not trained.folder.save(2)


def test_a_skipped_step_leaves_no_trace_in_averages_of_statistics(tmp_path: Path):
    class Endless(Line):
        def __init__(self) -> None:
            super().__init__()
            self.network = GENERATORS.create("normed")

        def train_step(self, batch: Tensor, *given: Any, **options: Any) -> dict[str, Tensor]:
            return super().train_step(batch / (options.get("step") != 1), *given, **options)

    GENERATORS.register("normed")(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    try:
        settings = TrainingSettings(batch_size=1, learning_rate=0.01, ema_decay=0.9)
        trained = make_loop(tmp_path / "run", model=Endless(), settings=settings, steps=3, on_nonfinite="skip")
        assert train(trained)[:2] == (3, 3)
        assert trained.averages is not None
        for network in (trained.model, trained.averages):
            statistics = {name: value for name, value in network.named_buffers() if "running_mean" in name}
            assert all(value.isfinite().all() and value.any() for value in statistics.values())
            assert statistics
    finally:
        GENERATORS.remove("normed")


def test_a_network_that_could_not_be_saved_is_refused_before_training(tmp_path: Path):
    model = Line()
    model.network = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="was not built by name"):
        make_loop(tmp_path / "run", model=model, steps=1)
    assert not (tmp_path / "run").exists()
