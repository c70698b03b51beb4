"""The command ``ganparts``."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ganparts import DISCRIMINATORS, GENERATORS, PRESETS, cli
from ganparts.adversarial.choices import parse_choice
from ganparts.cli import doctor, parts
from ganparts.data import sample
from ganparts.interchange import save_pretrained
from ganparts.interchange.costs import choice_in_words
from ganparts.metrics import Scores
from ganparts.submission import mirrored
from ganparts.training import DeviceError, choose_policy


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["ganparts", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out + captured.err


def test_it_is_installed():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ganparts"), "--help"], capture_output=True, text=True, check=True
    )
    assert "doctor" in done.stdout


def test_an_interrupted_command_shows_no_trace(monkeypatch, capsys):
    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app, "cli", interrupt)
    assert run(monkeypatch, capsys, "list") == (130, "Interrupted.\n")


def test_the_doctor_tells_what_the_recipe_would_do(monkeypatch, capsys):
    code, said = run(
        monkeypatch,
        capsys,
        "doctor",
        "--preset",
        "paper",
        "--device",
        "cpu",
        "--width",
        "2",
        "--crop",
        "32",
        "--generator",
        "resnet6",
    )
    assert code == 0
    assert f"torch {torch.__version__.split('+')[0]}" in said
    for part in (
        "Device cpu",
        "A convolution ran on it",
        "precision  " + choose_policy(torch.device("cpu")).precision,
        "compile    off",
        "largest batch that fits",
    ):
        assert part in said, part
    rows = [line.split() for line in said.splitlines() if line.startswith(("fast", "low ", "lowest"))]
    assert [row[0] for row in rows] == ["fast", "low", "lowest"]
    assert int(rows[0][-1]) < int(rows[1][-1]) < int(rows[2][-1])
    monkeypatch.setattr(doctor, "MEMORY_LEVELS", ("fast",))
    small = ("--preset", "paper", "--device", "cpu", "--width", "2", "--crop", "32", "--generator", "resnet6")
    assert run(monkeypatch, capsys, "doctor", "--precision", "bf16", *small)[0] == 0


def test_the_doctor_explains_a_card_without_kernels(monkeypatch, capsys):
    def refuse(name: str) -> torch.device:
        raise DeviceError("no kernels for Tesla P100: pip install torch of cu126")

    monkeypatch.setattr(doctor, "pick_device", refuse)
    code, said = run(monkeypatch, capsys, "doctor")
    assert code == 1
    assert "error: no kernels for Tesla P100: pip install torch of cu126" in said


def test_a_mistake_is_one_line(monkeypatch, capsys):
    for arguments, message in (
        (("--generator", "resnet8"), "error: there is no generator named 'resnet8' (did you mean 'resnet9'?)"),
        (("--precision", "tf32", "--device", "cpu"), "error: --precision tf32 is not possible on a CPU"),
        (("--preset", "papr"), "error: there is no preset named 'papr'"),
    ):
        code, said = run(monkeypatch, capsys, "doctor", *arguments)
        assert code == 1
        assert message in said.splitlines()[-1]
        assert "Traceback" not in said


def test_images_are_scored_and_the_scores_written(monkeypatch, capsys, tmp_path):
    folders = (str(sample() / "trainB"), str(sample() / "testA"))
    out = tmp_path / "scores.json"
    arguments = ("--limit", "6", "--photos", str(sample() / "testA"), "--workers", "0", "-o", str(out))
    code, said = run(monkeypatch, capsys, "evaluate", *folders, *arguments)
    assert code == 0
    assert "KID" in said
    scores = Scores.read_json(out)
    assert (scores.real_count, scores.fake_count) == (69, 6)
    assert scores.content_ssim == pytest.approx(1)
    save_pretrained(GENERATORS.create("unet128", width=2), tmp_path / "model")
    code, said = run(monkeypatch, capsys, "evaluate", folders[0], str(tmp_path / "model"), *arguments)
    assert code == 0
    scores = Scores.read_json(out)
    assert scores.content_ssim < 0.99
    (tmp_path / "run").mkdir()
    (tmp_path / "model").rename(tmp_path / "run" / "generator")
    code, said = run(monkeypatch, capsys, "evaluate", folders[0], str(tmp_path / "run"), *arguments)
    assert code == 0
    assert Scores.read_json(out).content_ssim == scores.content_ssim
    code, said = run(monkeypatch, capsys, "evaluate", str(tmp_path / "absent"), folders[0])
    assert code == 1
    assert "absent" in said


def test_a_submission_is_written_and_checked(monkeypatch, capsys, tmp_path):
    save_pretrained(GENERATORS.create("unet128", width=2), tmp_path / "model")
    out = tmp_path / "images.zip"
    code, said = run(
        *(monkeypatch, capsys, "submission", str(tmp_path / "model"), str(sample() / "testA"), "-o", str(out)),
        *("--mirror", "--quality", "75", "--subsampling", "4:4:4", "--squash", "--precision", "bf16"),
    )
    assert code == 1
    assert "42 images, where 7,000 to 10,000 are taken, 6,958 too few (ganparts submission --mirror" in said
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        with Image.open(archive.open(names[0])) as image:
            assert isinstance(image, JpegImageFile)
            assert image.layer[0][1] == 1
            assert image.quantization[0][0] == 8  # 16 at quality 50, 2 at 95
    assert len(names) == 42
    assert sum(name.endswith("_mirrored.jpg") for name in names) == 21
    code, said = run(monkeypatch, capsys, "submission", str(out))
    assert code == 1
    assert "42 images" in said
    code, said = run(monkeypatch, capsys, "submission", str(tmp_path / "model"))
    assert code == 1
    assert "give a folder of photos" in said
    code, said = run(monkeypatch, capsys, "submission", "monet")
    assert code == 1
    assert "there is no archive monet to check: to paint with a model, give a folder of photos as well" in said
    with zipfile.ZipFile(out) as archive:
        encoded = archive.read(names[0])
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(7000):
            archive.writestr(f"{number}.jpg", encoded)
    monkeypatch.setattr(warnings, "showwarning", lambda *_, **__: None)
    with pytest.warns(UserWarning, match="the same to the byte"):
        code, said = run(monkeypatch, capsys, "submission", str(out))
    assert code == 0
    assert "is valid: 7,000 images" in said


def test_mirrored_photos_fill_up_to_the_count_and_no_further():
    photos = [(str(number), torch.full((1, 1, 2), number).cumsum(-1)) for number in range(5)]
    assert [name for name, _ in mirrored(photos, 7)] == ["0", "1", "2", "3", "4", "0_mirrored", "1_mirrored"]
    assert [name for name, _ in mirrored(photos, 3)] == list("01234")
    assert len(list(mirrored(photos, 100))) == 10
    assert torch.equal(dict(mirrored(photos, 7))["1_mirrored"], photos[1][1].flip(-1))


def test_every_part_is_listed_with_its_size(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "list")
    assert code == 0
    rows = {tuple(line.split()[:2]): line for line in said.splitlines()}
    for table in parts.TABLES:
        assert {(name, table.kind.split()[0]) for name in table} <= rows.keys()
    assert rows["resnet9", "generator"].split()[2:4] == ["11,378,179", "0.0991"]  # 49.6 billion multiplications
    for table in parts.NETWORKS:
        for name in table:
            told = int(rows[name, table.kind].split()[2].replace(",", ""))
            if told < 2e7:  # larger ones take seconds to initialise, and their counts have tests of their own
                assert told == sum(parameter.numel() for parameter in table.create(name).parameters())
    code, said = run(monkeypatch, capsys, "list", "resnet?")
    assert [line.split()[0] for line in said.splitlines()] == ["name", "resnet6", "resnet9"]
    code, said = run(monkeypatch, capsys, "list", "gpt*")
    assert (code, said) == (1, "error: no part has a name like 'gpt*': ganparts list, by itself, shows all\n")


def test_a_part_is_shown_with_its_options_and_layers(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "show", "two_objective")
    assert code == 0
    for part in ("discriminator two_objective", "adversarial loss two_objective", "preset two_objective"):
        assert part in said.splitlines()
    words = [" ".join(line.split()) for line in said.splitlines()]
    for line in ("layers 3 int", "model.11 Conv2d 512 to 2, 4x4, stride 1x1 2x30x30 16,386", "batch_size 5"):
        assert line in words, line
    code, said = run(monkeypatch, capsys, "show", "resnt9")
    assert code == 1
    assert said == (
        "error: there is no part named 'resnt9' (did you mean 'resnet9'?): ganparts list shows all; parts of your own "
        "need --imports MODULE\n"
    )


def test_a_preset_is_shown_as_a_command_line_writes_it_and_a_painter_of_its_name_too(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "show", "monet")
    values = dict(line.split(maxsplit=1) for line in said.splitlines() if len(line.split()) > 1)
    discriminators = "patchgan(width=48), projected(image_size=128)+patchgan(width=48)+munit(width=32)"
    assert (code, values["discriminator"].strip(), values["cycle"].strip()) == (0, discriminators, "l1")
    assert values["painter"] == "monet: ganparts translate monet photo.jpg -o paintings"
    assert values["licence"].startswith("apache-2.0")
    code, said = run(monkeypatch, capsys, "show", "restyle")
    assert "generator                    trained_painter('monet')" in said
    assert "painter restyle" not in said


@pytest.mark.parametrize("name", PRESETS)
def test_the_parts_of_a_preset_are_shown_as_they_are_parsed(name: str):
    preset = PRESETS.create(name)
    for field, table in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        choice = getattr(preset, field, None)
        pair = choice if isinstance(choice, tuple) else (choice,)
        for each in [part for side in pair for part in (side if isinstance(side, list) else [side])]:
            if isinstance(each, partial) and table.named(each) is not None:
                assert table.named(parse_choice(choice_in_words(each), table)) == table.named(each)


def test_a_painter_is_shown(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "show", "vangogh")
    assert (code, said.splitlines()[0]) == (0, "painter vangogh: ganparts translate vangogh photo.jpg -o paintings")


def test_names_are_printed_as_they_are(monkeypatch, capsys):
    assert "there is no part named ':cat:'" in run(monkeypatch, capsys, "show", ":cat:")[1]


def test_scores_that_would_go_to_a_folder_are_refused_before_they_are_computed(monkeypatch, capsys, tmp_path: Path):
    said = run(monkeypatch, capsys, "evaluate", str(tmp_path / "no"), "nor.zip", "-o", str(tmp_path))
    assert said == (1, f"error: {tmp_path} is a folder: give a file for the scores (-o)\n")


def test_a_part_of_ones_own_is_listed(monkeypatch, capsys, tmp_path: Path):
    lines = ("from torch import nn", "from ganparts import GENERATORS", '@GENERATORS.register("odd")', "def odd():")
    (tmp_path / "odd_parts.py").write_text("\n".join((*lines, '    "Flips."', "    return nn.Linear(2, 2)\n")))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        code, said = run(monkeypatch, capsys, "list", "odd", "--imports", "odd_parts")
        assert (code, said.splitlines()[-1].split()) == (0, ["odd", "generator", "Flips."])
    finally:
        GENERATORS.remove("odd")


def test_the_doctor_knows_parts_of_ones_own(monkeypatch, capsys, tmp_path: Path):
    lines = ("from ganparts import GENERATORS", "from ganparts.generators import resnet6")
    (tmp_path / "own_parts.py").write_text("\n".join((*lines, 'GENERATORS.register("own")(resnet6)\n')))
    (tmp_path / "lacking_parts.py").write_text("import no_such_package\n")
    command = (
        "doctor",
        "--preset",
        "paper",
        "--device",
        "cpu",
        "--crop",
        "32",
        "--generator",
        "own",
        "--width",
        "2",
        "--imports",
    )
    code, said = run(monkeypatch, capsys, *command, "own_parts")
    assert code == 1
    assert "error: --imports own_parts: Python finds no module of this name." in said
    assert "for the current folder PYTHONPATH=." in said
    monkeypatch.syspath_prepend(tmp_path)
    code, said = run(monkeypatch, capsys, *command, "lacking_parts")
    assert (code, said) == (1, "error: No module named 'no_such_package'\n")
    monkeypatch.setattr(doctor, "MEMORY_LEVELS", ("fast",))
    try:
        code, said = run(monkeypatch, capsys, *command, "own_parts")
        assert code == 0, said
    finally:
        GENERATORS.remove("own")


def test_a_published_file_becomes_a_folder_and_an_export(monkeypatch, capsys, tmp_path: Path):
    weights = GENERATORS.create("resnet6", width=2).state_dict()  # pyright: ignore[reportAttributeAccessIssue]
    torch.save({"netG_A": weights, "epoch": 3}, tmp_path / "x.pth")
    folder = str(tmp_path / "monet")
    code, said = run(monkeypatch, capsys, "import", str(tmp_path / "x.pth"), folder)
    assert code == 0
    assert f"Took netG_A of {tmp_path / 'x.pth'}: the generator resnet6 (in_channels=3" in said
    assert "`x.pth`" in (tmp_path / "monet" / "README.md").read_text()
    code, said = run(monkeypatch, capsys, "import", str(tmp_path / "x.pth"), folder)
    assert (code, said) == (1, f"error: {folder} is there already, and not empty: choose another folder\n")
    code, said = run(monkeypatch, capsys, "export", folder, str(tmp_path / "monet.pt2"))
    assert code == 0
    assert "monet.pt2: resnet6, " in said
    save_pretrained(DISCRIMINATORS.create("pixel", width=2), tmp_path / "d")
    code, said = run(monkeypatch, capsys, "export", str(tmp_path / "d"), str(tmp_path / "d.onnx"))
    assert "holds a discriminator, and this takes a generator" in said


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_an_export_in_eight_bits_says_what_it_costs_and_gains(monkeypatch, capsys, tmp_path: Path):
    save_pretrained(GENERATORS.create("unet128", width=4), tmp_path / "model")
    command = ("export", str(tmp_path / "model"), str(tmp_path / "x.onnx"), "--int8", str(sample() / "testA"))
    code, said = run(monkeypatch, capsys, *command)
    assert code == 0
    assert re.search(r"x\.onnx: 0\.\d MiB, \d+\.\d\d times as fast here as in 32 bits", said)
    assert re.search(r"PSNR to those in 32 bits is \d\d\.\d dB", said)
    code, said = run(monkeypatch, capsys, *command, "--fp16")
    assert code == 1
    assert "error: --fp16 and --int8 exclude each other" in said
