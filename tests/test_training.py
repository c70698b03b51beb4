from __future__ import annotations

import csv
import io
import os
import pickle
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from ganparts import Pair, build_cyclegan, make_optimizers, train_step
from ganparts.data import open_images, sample
from ganparts.generators import ResNetGenerator
from ganparts.training import (
    DeviceError,
    Monitor,
    RunFolder,
    StopSignals,
    evaluating,
    load_checkpoint,
    pick_device,
    sample_photos,
    save_checkpoint,
    save_grid,
)


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
    with pytest.raises(ValueError, match=r"c\.pt is no checkpoint that can be read"):
        load_checkpoint(path, **run)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": 1, "step": Evil()}, path)
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()
    torch.save({"format": 2}, path)
    with pytest.raises(ValueError, match="its format is 2, this version reads 1"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "absent.pt")


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path: Path):
    run = small_run()
    save_checkpoint(tmp_path / "c.pt", step=1, config={}, **run)

    class Broken:
        def state_dict(self):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        save_checkpoint(tmp_path / "c.pt", step=2, config={}, broken=Broken())
    assert load_checkpoint(tmp_path / "c.pt")[0] == 1


def test_the_cpu_is_picked_and_what_is_not_there_is_explained():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="'gpu' is no device that PyTorch knows: use 'auto', 'cpu' or 'cuda'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(DeviceError, match="no CUDA device for 'cuda'"):
            pick_device("cuda")


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
            monitor.log(step, {"gan_ab": torch.tensor(step / 2), "cycle_a": torch.tensor(1.0)}, 2e-4)
    with (tmp_path / "l.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "10", "20", "25"]
    assert [float(row["gan_ab"]) for row in rows] == [0.5, 5.0, 10.0, 12.5]
    assert list(rows[0]) == ["step", "learning_rate", "images_per_second", "data_wait", "gan_ab", "cycle_a"]
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    assert all(0 <= float(row["data_wait"]) <= 1 for row in rows)
    shown = console.export_text()
    assert all(part in shown for part in ("25/25", "gan_ab 12.50", "images/s", "waiting for data"))


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


def test_between_logged_steps_no_loss_is_fetched(tmp_path: Path):
    monitor = Monitor(tmp_path / "l.csv", steps=25, start=0, pairs=1, every=10)
    unreadable = torch.zeros((), device="meta")
    monitor.log(2, {"gan_ab": unreadable}, 1.0)
    with pytest.raises(RuntimeError):
        monitor.log(10, {"gan_ab": unreadable}, 1.0)


def test_a_grid_has_a_column_a_photo_and_a_row_a_stage(tmp_path: Path):
    photos = sample_photos(open_images(sample() / "testA"), count=4, size=32)
    assert photos.shape == (4, 3, 32, 32)
    save_grid(tmp_path / "g.png", photos, (Negative(), Negative()))
    grid = np.array(Image.open(tmp_path / "g.png")).astype(int)
    assert grid.shape == (3 * 36 + 4, 4 * 36 + 4, 3)
    first, second, third = (grid[4 + 36 * row : 36 + 36 * row, 40:72] for row in range(3))
    assert np.abs(first + second - 255).max() <= 1
    assert np.array_equal(first, third)


def test_evaluating_comes_back_to_training():
    model = torch.nn.Dropout()
    with evaluating(model):
        assert not model.training
    assert model.training
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals to itself")
def test_the_first_signal_asks_and_the_second_acts():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
