"""A full disk: one sentence names the file, what was there before is whole, and nothing half written stays."""

from __future__ import annotations

import errno
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from ganparts.disk import replace_file
from ganparts.registry import GENERATORS
from ganparts.training import RunOptions, run_recipe, save_checkpoint, write_report
from ganparts.training.checkpoint import CHECKPOINT
from ganparts.training.monitor import append_row, drop_rows_beyond
from ganparts.training.samples import save_grid
from ganparts.training.watch import Watch
from ganparts.translate import translate_files, translate_to_zip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: Path):
    path = disk / "checkpoint.pt"
    save_checkpoint(path, step=1, config={}, model=nn.Linear(4, 4))
    before = path.read_bytes()
    with pytest.raises(
        OSError, match=rf"cannot write the checkpoint {path}: No space left on device. The one before is"
    ):
        save_checkpoint(path, step=2, config={}, model=nn.Linear(400, 400))
    assert [file.name for file in disk.iterdir()] == ["checkpoint.pt"]
    assert path.read_bytes() == before


def test_a_network_that_does_not_fit_leaves_the_one_before(disk: Path):
    GENERATORS.create("resnet6", width=2).save_pretrained(disk / "generator")
    before = {file.name: file.read_bytes() for file in (disk / "generator").iterdir()}
    with pytest.raises(OSError, match=rf"No space left on device: '{disk}/generator'"):
        GENERATORS.create("resnet6", width=32).save_pretrained(disk / "generator")
    assert {file.name: file.read_bytes() for file in (disk / "generator").iterdir()} == before


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.mark.parametrize("name", ["losses.csv", "warnings.jsonl", "config.json", "step_0000001.png", "report.html"])
def test_each_file_of_a_run_that_does_not_fit_is_named_and_keeps_what_it_held(disk: Path, name: str):
    path = disk / name
    write: dict[str, Callable[[], object]] = {
        "losses.csv": lambda: append_row(path, {"step": 1, **{f"loss{number}": 0.5 for number in range(2000)}}),
        "warnings.jsonl": lambda: Watch(path, say=print).numbers(1, {"x" * 5000: math.nan}),
        "config.json": lambda: replace_file(path, bytes(5000)),
        "step_0000001.png": lambda: save_grid(path, torch.randint(0, 255, (3, 99, 99), dtype=torch.uint8)),
        "report.html": lambda: write_report(disk),
    }
    path.write_text("step\n")
    fill(disk)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write[name]()
    kept = path.read_text()
    assert kept.startswith("step\n") if name == "warnings.jsonl" else kept == "step\n"  # a line is appended, in parts


def test_a_run_that_goes_on_keeps_its_rows_on_a_full_disk(disk: Path):
    losses = disk / "losses.csv"
    for step in range(1, 1000):
        append_row(losses, {"step": step, "loss": 0.5})
    fill(disk)
    before = losses.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        drop_rows_beyond(losses, 990)
    assert losses.read_bytes() == before


def test_a_run_that_meets_a_full_disk_says_how_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def train(options: RunOptions) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "images.zip")

    (tmp_path / CHECKPOINT).touch()
    assert run_recipe(train, RunOptions, description="", arguments=["--out", str(tmp_path)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "No space left on device: 'images.zip': the last checkpoint in" in said
    assert f"is whole, and --resume {tmp_path} goes on" in said


def noisy(images: torch.Tensor) -> torch.Tensor:
    return torch.rand_like(images) * 2 - 1  # which makes large files


def test_an_archive_that_does_not_fit_is_named_and_removed(disk: Path):
    photos = [(f"photo{number}", torch.zeros(3, 256, 256, dtype=torch.uint8)) for number in range(20)]
    with pytest.raises(OSError, match=rf"No space left on device: '{disk}/images.zip'"):
        translate_to_zip(noisy, photos, disk / "images.zip")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("target", ["folder", "all.zip", "all.tar"])
def test_paintings_that_do_not_fit_are_named_and_whole_ones_stay(disk: Path, tmp_path: Path, target: str):
    for number in range(9):
        Image.new("RGB", (200, 200)).save(tmp_path / f"photo{number}.png")
    with pytest.raises(OSError, match=rf"No space left on device: '{disk}/{target}(/photo\d.png)?'"):
        translate_files(noisy, [tmp_path], disk / target, format="png", workers=1)
    written = [file for file in disk.rglob("*") if file.is_file()]
    for file in written:
        with Image.open(file) as image:
            image.load()  # fails where the file is cut short
    assert bool(written) == (target == "folder")
