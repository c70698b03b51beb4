from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from ganparts import GENERATORS, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.blocks import evaluating
from ganparts.data import open_images, sample
from ganparts.distributed import PeerLostError
from ganparts.generators import ResNetGenerator
from ganparts.pretrained import ModelCard, from_pretrained
from ganparts.training import (
    DeviceError,
    Monitor,
    NotFiniteError,
    RunFolder,
    StopSignals,
    fetch_later,
    load_checkpoint,
    newest_checkpoint,
    paint_grid,
    pick_device,
    sample_photos,
    save_checkpoint,
    save_grid,
    seed_everything,
)
from ganparts.training.monitor import append_row, drop_rows_beyond
from ganparts.training.report.reading import read_losses


class Negative(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return -images


def small_run() -> dict:
    model = build_cyclegan(generator=partial(ResNetGenerator, width=2, blocks=1, dropout=0.5), discriminator="pixel")
    return {"model": model, "optimizers": make_optimizers(model)}


def steps(run: dict, first: int, last: int) -> None:
    for step in range(first, last):
        pair = Pair(*torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(step)))
        train_step(run["model"], pair, run["optimizers"])


def test_a_loaded_checkpoint_goes_on_bit_for_bit(tmp_path: Path):
    whole = small_run()
    steps(whole, 0, 3)
    save_checkpoint(tmp_path / "c.pt", step=3, config={"preset": "paper"}, **whole)
    steps(whole, 3, 60)  # the replay buffers fill up and swap; dropout draws
    torch.manual_seed(99)
    again = small_run()
    assert load_checkpoint(tmp_path / "c.pt", **again) == (3, {"preset": "paper"})
    steps(again, 3, 60)
    states = [run[part].state_dict() for run in (whole, again) for part in ("model", "optimizers")]
    torch.testing.assert_close(states[0], states[2], rtol=0, atol=0)
    torch.testing.assert_close(states[1], states[3], rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_numpys_and_pythons_random_states_go_on_too(tmp_path: Path):
    def draw() -> tuple:
        return random.random(), float(np.random.standard_normal()), float(torch.rand(()))

    np.random.standard_normal()  # which keeps a second number for the next call
    save_checkpoint(tmp_path / "c.pt", step=0, config={}, model=torch.nn.Linear(1, 1))
    expected = [draw() for _ in range(3)]
    load_checkpoint(tmp_path / "c.pt", model=torch.nn.Linear(1, 1))
    assert [draw() for _ in range(3)] == expected


def test_a_seed_is_that_of_all_random_numbers():
    drawn = []
    for seed in (-1, -1, 5):
        seed_everything(seed)
        drawn.append([random.random(), float(np.random.standard_normal()), float(torch.rand(()))])
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path):
    path, model = tmp_path / "c.pt", torch.nn.Linear(1, 1)
    with pytest.raises(FileNotFoundError):
        newest_checkpoint(path)
    for step in (1, 2, 3):
        save_checkpoint(path, step=step, config={}, model=model)
    assert {file.name: load_checkpoint(file)[0] for file in tmp_path.iterdir()} == {"c.pt": 3, "c_before.pt": 2}
    assert (newest_checkpoint(path).path, newest_checkpoint(path).step) == (path, 3)
    whole = path.read_bytes()
    for damaged in (whole[:-50], b"", whole[:100] + b"x" * 200 + whole[300:]):
        path.write_bytes(damaged)
        with pytest.warns(
            UserWarning, match=r"c\.pt is not a checkpoint .*: going on from the one before, .*c_before\.pt"
        ):
            assert newest_checkpoint(path).path == tmp_path / "c_before.pt"
    path.unlink()  # killed between the two renamings
    with pytest.warns(UserWarning, match="going on from the one before"):
        assert newest_checkpoint(path).step == 2
    for file in (path, tmp_path / "c_before.pt"):
        file.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"c\.pt is not a checkpoint .*c_before\.pt is not a checkpoint"):
        newest_checkpoint(path)


def test_a_run_settles_on_the_same_words_in_every_process(tmp_path: Path):
    alive = []  # so that no two lie at one address

    def settled() -> dict:
        def schedule(step: int, steps: int) -> float:
            return 1.0

        alive.append(schedule)
        numbers = {"schedule": schedule, "augment": partial(schedule, 3), "betas": (0.5, 0.999), "data": tmp_path}
        return RunFolder(tmp_path, options={}, settled=numbers, **small_run()).config["settled"]

    kept = [settled() for _ in range(3)]  # three functions at three addresses
    assert kept[0] == kept[1] == kept[2]
    assert kept[0]["betas"] == [0.5, 0.999]
    assert kept[0]["data"] == str(tmp_path)
    assert "schedule" in kept[0]["schedule"]


def test_wrong_checkpoints_are_refused_and_run_no_code(tmp_path: Path):
    path = tmp_path / "c.pt"
    run = small_run()
    save_checkpoint(path, step=1, config={}, **run)
    other = build_cyclegan(generator=partial(ResNetGenerator, width=4, blocks=1), discriminator="pixel")
    with pytest.raises(ValueError, match=r"c\.pt was saved with other options; its model does not fit"):
        load_checkpoint(path, model=other)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"c\.pt is not a checkpoint that can be read"):
        load_checkpoint(path, **run)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": 1, "step": Evil()}, path)
    with pytest.raises(ValueError, match="not a checkpoint that can be read"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not a checkpoint that can be read"):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()
    torch.save({"format": 1}, path)
    with pytest.raises(ValueError, match="its format is 1, this version reads 2"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "absent.pt")


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path: Path):
    run = small_run()
    save_checkpoint(tmp_path / "c.pt", step=1, config={}, **run)

    code = f"""
import resource, sys, torch
from ganparts.training import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    save_checkpoint({str(tmp_path / "c.pt")!r}, step=2, config={{}}, model=torch.nn.Linear(1000, 1000))
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(r"cannot write the checkpoint .*c\.pt: .+\. The one before is whole", done.stdout), done
    assert load_checkpoint(tmp_path / "c.pt")[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def folder_of(path: Path, run: dict) -> RunFolder:
    return RunFolder(path, options={}, settled={"precision": "fp32", "data": "x"}, **run)


def test_a_folder_without_room_or_rights_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the run folder .*file/run: Not a directory; take another one"):
        folder_of(tmp_path / "file" / "run", small_run()).start(resume=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"its checkpoints need about \d+\.\d MiB, and 0\.0 are free; take another one"):
        folder_of(tmp_path / "run", small_run()).start(resume=False)


def test_a_new_run_has_a_checkpoint_from_the_start_and_is_not_overwritten(tmp_path: Path):
    assert folder_of(tmp_path / "run", small_run()).start(resume=False) is None
    with pytest.raises(ValueError, match="holds a run already"):
        folder_of(tmp_path / "run", small_run()).start(resume=False)
    run = small_run()
    again = folder_of(tmp_path / "run", run)
    assert step_of(again) == 0
    steps(run, 0, 2)
    assert again.save(2)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["versions"]["torch"] == str(torch.__version__)
    assert config["machine"]["cores"] > 0
    again.config["versions"]["torch"] = "0.1"
    with pytest.warns(UserWarning, match=r"the run began with PyTorch .* and goes on with 0\.1"):
        assert step_of(again) == 2
    again.config["settled"]["precision"] = "bf16"
    with pytest.raises(ValueError, match="of a run with precision fp32, but here it would go on with bf16"):
        again.start(resume=True)


def step_of(folder: RunFolder) -> int:
    found = folder.start(resume=True)
    assert found is not None
    return found.step


def test_numbers_that_a_run_settles_on_later_are_written_down(tmp_path: Path):
    folder = folder_of(tmp_path, small_run())
    folder.start(resume=False)
    folder.settle(steps=7)
    assert json.loads((tmp_path / "config.json").read_text())["settled"] == {
        "precision": "fp32",
        "data": "x",
        "steps": 7,
    }
    folder.save(1)
    found = folder_of(tmp_path, small_run()).start(resume=True)
    assert found is not None
    assert found.config["settled"]["steps"] == 7


def test_other_data_are_warned_of(tmp_path: Path):
    folder_of(tmp_path, small_run()).start(resume=False)
    again = folder_of(tmp_path, small_run())
    again.config["settled"] |= {"data": "y", "pairs": 3, "origin": "elsewhere"}
    with pytest.warns(UserWarning, match="the data are not those that the run began with .*names and sizes"):
        again.start(resume=True)


def poison(run: dict) -> None:
    with torch.no_grad():
        next(run["model"].generator_ab.parameters()).fill_(float("nan"))


def test_weights_that_are_not_finite_are_not_saved_and_are_gone_back_from(tmp_path: Path):
    run = small_run()
    folder = folder_of(tmp_path / "run", run)
    folder.start(resume=False)
    steps(run, 0, 2)
    assert folder.save(2)
    expected = deepcopy(run["model"].state_dict())
    for step in (3, 4, 5):
        poison(run)
        assert not folder.save(step)
        assert folder.recover(step, "rollback") == 2  # whose weights they are each time
        torch.testing.assert_close(run["model"].state_dict(), expected, rtol=0, atol=0)
        assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")[0] == step  # a stop now goes on from here
    with pytest.raises(NotFiniteError, match=r"at step 6 again, after going back 3 times.*checkpoint\.pt"):
        folder.recover(6, "rollback")
    assert folder.save(6)  # finite again: three new tries
    assert folder.recover(7, "rollback") == 6
    with pytest.raises(NotFiniteError, match=r"not finite at step 8 again, after .*"):
        folder.recover(8, "stop")
    with pytest.raises(NotFiniteError, match=r"not finite at step 8 again"):
        folder.recover(8, "skip")


def test_statistics_that_are_not_finite_are_not_saved(tmp_path: Path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    folder = RunFolder(tmp_path, options={}, settled={}, model=model)
    folder.start(resume=False)
    assert folder.save(1)
    model[1].running_var[2] = float("inf")
    assert not folder.save(2)
    assert load_checkpoint(tmp_path / "checkpoint.pt")[0] == 1


def test_the_best_score_is_written_down(tmp_path: Path):
    run, path = small_run(), tmp_path / "run"
    folder = folder_of(path, run)
    folder.start(resume=False)
    assert not folder.scores.begun
    for step, value, stale in ((1, 0.3, 0), (2, 0.4, 1), (3, 0.3, 2), (4, 0.2, 0), (5, 0.25, 1)):
        folder.save(step)
        assert folder.scores.since_best(value, metric="kid") == stale
        folder.scores.save(step, {"fid": 9.0 - step, "kid": value}, metric="kid", best=stale == 0)
        assert folder.scores.begun
    assert json.loads((path / "best.json").read_text()) == {"step": 4, "metric": "kid", "value": 0.2}
    folder.save(6)
    again = folder_of(path, run)
    assert step_of(again) == 6
    assert again.scores.begun
    assert again.scores.since_best(0.3, metric="kid") == 2
    again.scores.save(6, {"fid": 1.0, "kid": 0.3}, metric="kid", best=False)
    shutil.copy(path / "checkpoint_before.pt", path / "checkpoint.pt")
    assert step_of(folder_of(path, run)) == 5  # the sixth is done again
    with (path / "scores.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == list("12345")


def test_every_stage_is_exported_the_first_as_generator(tmp_path: Path):
    folder = folder_of(tmp_path / "run", small_run())
    folder.start(resume=False)
    stages = {name: GENERATORS.create("resnet6", width=width) for name, width in (("generator_ab", 2), ("back", 3))}
    folder.export(stages, ModelCard(steps=3))
    assert sum(p.numel() for p in from_pretrained(tmp_path / "run" / "generator").parameters()) == sum(
        p.numel() for p in stages["generator_ab"].parameters()
    )
    for name, exported in (("generator_ab", "generator"), ("back", "back")):
        states = (stages[name].state_dict(), from_pretrained(tmp_path / "run" / exported).state_dict())
        torch.testing.assert_close(*states, rtol=0, atol=0)
    assert not (tmp_path / "run" / "generator_ab").exists()


def test_samples_and_the_report_are_written_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = folder_of(tmp_path / "run", small_run())
    folder.start(resume=False)
    photos, went_on, threads = torch.zeros(2, 3, 16, 16), threading.Event(), []

    def slow(path: Path, grid: torch.Tensor) -> None:
        threads.append(threading.current_thread())
        assert went_on.wait(30)
        save_grid(path, grid)

    monkeypatch.setattr("ganparts.training.folder.save_grid", slow)
    with folder:
        folder.save_samples(3, photos, (Negative(),))
        went_on.set()  # which a write in this thread would wait for
        folder.state = "finished"
    assert threads[0] is not threading.current_thread()
    assert (tmp_path / "run" / "samples" / "step_0000003.png").exists()
    assert (
        "Finished" in (tmp_path / "run" / "report.html").read_text()
        or "finished" in (tmp_path / "run" / "report.html").read_text()
    )
    folder = folder_of(tmp_path / "run", small_run())
    monkeypatch.setattr("ganparts.training.folder.save_grid", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="a sample or the report could not be written: division by zero"), folder:
        folder.save_samples(4, photos, (Negative(),))
    with pytest.raises(KeyError), folder_of(tmp_path / "run", small_run()):
        raise KeyError
    assert '"crashed"' in (tmp_path / "run" / "report.html").read_text()


def test_the_cpu_is_picked_and_what_is_not_there_is_explained():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="'gpu' is not a device that PyTorch knows: use 'auto', 'cpu' or 'cuda'"):
        pick_device("gpu")
    with pytest.raises(DeviceError, match="None is not a device that PyTorch knows"):
        pick_device(None)  # pyright: ignore[reportArgumentType]
    for name in ("mps", "xpu", "meta"):  # where samples, random states or float64 are missing
        with pytest.raises(DeviceError, match=f"'{name}' is not supported: use 'cpu' or 'cuda'"):
            pick_device(name)
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(DeviceError, match="no CUDA device for 'cuda'"):
            pick_device("cuda")


def test_a_card_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        DeviceError, match=r"there is no cuda:1: this machine has 1 CUDA device\(s\), counted from cuda:0"
    ):
        pick_device("cuda:1")


def test_a_card_without_kernels_is_explained_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    # what PyTorch built for CUDA 12.8 says of a P100
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.functional, "conv2d", refuse)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100-PCIE-16GB")
    with pytest.raises(DeviceError) as caught:
        pick_device("auto")
    text = str(caught.value)
    assert "built for sm_75, sm_90) has no kernels for Tesla P100-PCIE-16GB (capability 6.0): pip install" in text
    assert "cu126" in text
    assert "\n" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_the_monitor_writes_the_logged_steps_and_shows_them(tmp_path: Path, terminal: bool):
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=terminal)
    with Monitor(tmp_path / "l.csv", steps=25, start=0, pairs=2, every=10, console=console) as monitor:
        for step in monitor.timed(range(1, 26)):
            if monitor.is_due(step):
                losses = {"gan_ab": torch.tensor(step / 2), "cycle_a": torch.tensor(1.0)}
                assert monitor.log(step, losses, 2e-4) == {"gan_ab": step / 2, "cycle_a": 1.0}
    with (tmp_path / "l.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "10", "20", "25"]
    assert [float(row["gan_ab"]) for row in rows] == [0.5, 5.0, 10.0, 12.5]
    assert list(rows[0]) == ["step", "learning_rate", "pairs_per_second", "data_wait", "gan_ab", "cycle_a"]
    assert all(float(row["pairs_per_second"]) > 0 for row in rows)
    assert all(0 <= float(row["data_wait"]) <= 1 for row in rows)
    shown = console.export_text()
    assert all(part in shown for part in ("25/25", "gan_ab 12.50", "pairs/s", "waiting for data"))


def test_a_resumed_runs_rows_are_those_of_the_steps_it_does_not_do_again(tmp_path: Path):
    def log(first: int, last: int, start: int) -> list[str]:
        monitor = Monitor(tmp_path / "l.csv", steps=9, start=start, pairs=1, every=1)
        for step in range(first, last + 1):
            monitor.log(step, {"gan_ab": torch.tensor(float(step))}, 1.0)
        with (tmp_path / "l.csv").open() as file:
            return [row["step"] for row in csv.DictReader(file)]

    assert log(1, 5, start=0) == list("12345")
    with (tmp_path / "l.csv").open("a") as file:
        file.write("6,")  # the run was killed as it wrote
    assert log(4, 6, start=3) == list("123456")
    assert log(1, 2, start=0) == list("12")


def test_a_column_that_comes_later_is_added_and_what_a_row_lacks_is_empty(tmp_path: Path):
    path = tmp_path / "l.csv"
    given = [
        {"step": 1, "gan_ab": 0.5},
        {"step": 2, "gan_ab": 0.25, "penalty_a": 7.0},
        {"step": 3, "gan_ab": 0.75},
        {"step": 4, "extra_a": 9.0, "gan_ab": 1.5},
        {"step": 5, "penalty_a": 3.0},
    ]
    for row in given:
        append_row(path, row)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items() if value} for row in rows] == given
    assert all(row.keys() == {"step", "gan_ab", "penalty_a", "extra_a"} for row in rows)  # no cell too many
    notes: list[str] = []
    read = read_losses(path, notes)
    assert notes == []
    assert read == {int(row["step"]): {n: v for n, v in row.items() if n != "step"} for row in given}
    assert [file.name for file in tmp_path.iterdir()] == ["l.csv"]
    drop_rows_beyond(path, 3)
    append_row(path, {"step": 4, "other": 1.0})
    with path.open() as file:
        assert [float(row["gan_ab"] or "nan") for row in csv.DictReader(file)][:3] == [0.5, 0.25, 0.75]
    assert read_losses(path, notes)[4] == {"other": 1.0}
    with path.open("a") as file:
        file.write("4,0.1")  # and then the disk was full
    drop_rows_beyond(path, 4)
    assert path.read_text().splitlines()[-1].startswith("4,")
    assert "4,0.1" not in path.read_text()
    drop_rows_beyond(path, 0)
    append_row(path, {"step": 1, "new": 1.0})
    assert path.read_text().splitlines() == ["step,new", "1,1.0"]


def test_a_penalty_that_comes_every_third_step_has_a_column(tmp_path: Path):
    for start in (0, 4):  # stopped, and gone on with
        monitor = Monitor(tmp_path / "l.csv", steps=9, start=start, pairs=1, every=1)
        for step in range(start + 1, 7):
            penalty = {"penalty_a": torch.tensor(float(step))} if step % 3 == 0 else {}
            monitor.log(step, {"gan_ab": torch.tensor(1.0)} | penalty, 1.0)
    notes: list[str] = []
    rows = read_losses(tmp_path / "l.csv", notes)
    assert notes == []
    assert list(rows) == [1, 2, 3, 4, 5, 6]
    assert {step: row["penalty_a"] for step, row in rows.items() if "penalty_a" in row} == {3: 3.0, 6: 6.0}


def test_tensorboard_gets_the_same_curves(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = {"steps": 9, "pairs": 1, "every": 1, "tensorboard": tmp_path / "board"}
    for start, last in ((0, 5), (3, 6)):  # stopped, and gone on with from step 3
        with Monitor(tmp_path / "l.csv", start=start, **arguments) as monitor:
            for step in range(start + 1, last + 1):
                monitor.log(step, {"gan_ab": torch.tensor(float(10 * start + step))}, 1.0)
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    scalars = {event.step: event.value for event in events.Scalars("gan_ab")}
    assert scalars == {1: 1, 2: 2, 3: 3, 4: 34, 5: 35, 6: 36}
    assert "pairs_per_second" in events.Tags()["scalars"]


def test_without_tensorboard_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'ganparts\[tensorboard\]'"):
        Monitor(tmp_path / "l.csv", steps=1, start=0, pairs=1, every=1, tensorboard=tmp_path)


def test_a_grid_has_a_column_a_photo_and_a_row_a_stage(tmp_path: Path):
    photos = sample_photos(open_images(sample() / "testA"), count=4, size=32)
    assert photos.shape == (4, 3, 32, 32)
    save_grid(tmp_path / "g.png", fetch_later(paint_grid(photos, (Negative(), Negative())))())
    grid = np.array(Image.open(tmp_path / "g.png")).astype(int)
    assert grid.shape == (3 * 36 + 4, 4 * 36 + 4, 3)
    first, second, third = (grid[4 + 36 * row : 36 + 36 * row, 40:72] for row in range(3))
    assert np.abs(first + second - 255).max() <= 1
    assert np.array_equal(first, third)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_why(how: signal.Signals):
    with StopSignals() as stop:
        assert stop.reason is None
        os.kill(os.getpid(), how)
        assert stop.requested
    assert stop.reason == how.name


def test_a_process_that_lost_another_may_say_so_before_it_is_terminated(request: pytest.FixtureRequest):
    before = signal.getsignal(signal.SIGTERM)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
    with pytest.raises(KeyError), StopSignals():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(PeerLostError), StopSignals():
        raise PeerLostError("another process ended")
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_time_limit_is_a_stop(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with StopSignals(time_limit=2.0) as stop:
        now[0] += 119
        assert not stop.requested
        now[0] += 2
        assert stop.requested
    assert stop.reason == "the time limit"
    with StopSignals() as stop:
        now[0] += 1e9
        assert not stop.requested


def test_evaluating_comes_back_to_training():
    model = torch.nn.Dropout()
    with evaluating(model):
        assert not model.training
    assert model.training
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals to itself")
def test_the_first_signal_asks_and_the_second_acts(request: pytest.FixtureRequest):
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
