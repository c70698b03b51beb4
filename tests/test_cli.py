"""The command ``ganparts``."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ganparts import cli
from ganparts.cli import doctor
from ganparts.training import DeviceError


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["ganparts", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out + captured.err


def test_it_is_installed():
    done = subprocess.run(["ganparts", "--help"], capture_output=True, text=True, check=True)
    assert "doctor" in done.stdout


def test_the_doctor_tells_what_the_recipe_would_do(monkeypatch, capsys):
    code, said = run(
        monkeypatch, capsys, "doctor", "--device", "cpu", "--width", "2", "--image-size", "32", "--generator", "resnet6"
    )
    assert code == 0
    assert f"torch {torch.__version__.split('+')[0]}" in said
    for part in (
        "Device cpu",
        "A convolution ran on it",
        "precision  fp32",
        "compile    off",
        "largest batch that fits",
    ):
        assert part in said, part
    rows = [line.split() for line in said.splitlines() if line.startswith(("fast", "low ", "lowest"))]
    assert [row[0] for row in rows] == ["fast", "low", "lowest"]
    assert int(rows[0][-1]) < int(rows[1][-1]) < int(rows[2][-1])
    assert run(monkeypatch, capsys, "doctor", "--precision", "bf16", "--device", "cpu", "--width", "2")[0] == 0


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
