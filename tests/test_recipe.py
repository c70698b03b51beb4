"""The recipe through its command line."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import Recipe
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ganparts import ADVERSARIAL_LOSSES, GENERATORS, PRESETS
from ganparts.data import sample
from ganparts.losses import LSGAN
from ganparts.pretrained import from_pretrained
from ganparts.translate import translate

RECIPE = Path(__file__).parent.parent / "recipes" / "cyclegan_monet.py"
QUICK = ("--preset", "paper", "--width", "2", "--device", "cpu", "--paint", "2", "--log-every", "1")
TINY = (*QUICK, "--generator", "resnet6", "--resize", "32", "--crop", "32")


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(RECIPE), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "400"},
    )


def run(*arguments: object, code: int = 0) -> str:
    process = start(*arguments)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "losses.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_on_the_sample_leaves_everything(tmp_path: Path):
    out = tmp_path / "run"
    said = run(*QUICK, "--steps", 4, "--sample-every", 2, "--out", out)
    assert "114 photos, 69 paintings (the sample that ganparts ships" in said
    assert "Scaled down for a CPU, where no option was given: a U-Net with learning rate 5e-4 and identity" in said
    assert "128 pixels" in said
    assert "32 channels" not in said  # --width chose them
    assert "Painting 2 photos (all 135: --paint 135)" in said
    assert {path.name for path in out.iterdir()} == {
        *("checkpoint.pt", "checkpoint_before.pt", "config.json", "generator", "generator_ba", "images.zip"),
        *("losses.csv", "report.html", "samples"),
    }
    config = json.loads((out / "config.json").read_text())
    assert config["options"]["steps"] == 4
    assert config["parts"]["generator_ab"] == "unet128(width=2, upsample='resize_conv')"
    assert config["parts"]["adversarial_b"] == "LSGAN(weight=1.0)"
    assert config["settled"]["crop"] == 128
    assert "memory fast: needs about" in said
    assert "precision fp32: this CPU has no" in said or "precision bf16: this CPU computes in it" in said
    assert '"finished"' in (out / "report.html").read_text()
    assert [row["step"] for row in rows(out)] == ["1", "2", "3", "4"]
    assert all(float(row["grad_norm_generator_ab"]) > 0 for row in rows(out))
    assert all(float(row["cycle_a"]) > 0 and float(row["disc_b"]) > 0 for row in rows(out))
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["step_0000002.png", "step_0000004.png"]
    with Image.open(out / "samples" / "step_0000004.png") as grid:
        assert grid.size == (6 * 132 + 4, 3 * 132 + 4)
    with zipfile.ZipFile(out / "images.zip") as archive:
        assert len(archive.namelist()) == 2
        for name in archive.namelist():
            assert (sample() / "testA" / name).exists()
            with Image.open(io.BytesIO(archive.read(name))) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))
    generator = from_pretrained(out / "generator")
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 4
    assert saved["states"].keys() == {"model", "optimizers", "watch"}
    assert saved["states"]["model"]["critics_a.0.replay.images"].shape == (50, 3, 128, 128)
    trained = load_file(out / "generator" / "model.safetensors")
    assert all(torch.equal(saved["states"]["model"][f"generator_ab.{n}"], t) for n, t in trained.items())
    assert translate(generator, sample() / "testA" / "pontduGard_0.jpg").size == (256, 256)
    assert "![Sample](sample.png)" in (out / "generator" / "README.md").read_text()
    picture = (out / "generator" / "sample.png").read_bytes()
    assert picture == (out / "samples" / "step_0000004.png").read_bytes()


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path, recipe: Recipe):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    options = (*TINY, "--steps", 6, "--preset", "keras_monet", "--replay", "history(size=2)", "--checkpoint-every", 3)
    recipe(*options, "--out", whole)
    said = recipe("--resume", tmp_path / "nowhere", code=1)
    assert f"error: there is no checkpoint {tmp_path / 'nowhere' / 'checkpoint.pt'}" in said
    said = recipe(*options, "--out", whole, code=1)
    assert f"error: {whole} holds a run already: go on with it (--resume {whole}), or take another folder" in said
    recipe.during(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    said = recipe(*options, "--out", parted)
    assert f"Stopped by SIGINT after step 2 of 6; --resume {parted} goes on." in said
    assert (parted / "generator" / "model.safetensors").exists()
    assert not (parted / "images.zip").exists()
    assert "2 of 6 steps are done" in recipe("--resume", parted, "--paint", 3)
    with zipfile.ZipFile(parted / "images.zip") as archive:
        assert len(archive.namelist()) == 3
    assert [row["step"] for row in rows(parted)] == list("123456")
    for row, expected in zip(rows(parted), rows(whole), strict=True):
        assert {n: v for n, v in row.items() if n not in ("pairs_per_second", "data_wait")} == {
            n: v for n, v in expected.items() if n not in ("pairs_per_second", "data_wait")
        }
    states = [torch.load(folder / "checkpoint.pt", weights_only=True)["states"] for folder in (whole, parted)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        ("--preset", "two_objective", "--batch-size", 2, "--workers", 1),
        ("--discriminator", "pixel", "--adversarial", "hinge", "--augment", "diffaugment", "--replay", "none"),
        ("--discriminator", "pixel,patchgan(layers=2)+pixel", "--adversarial", "bce", "--cycle", "l1"),
        ("--identity-weight", 0, "--epochs", 1, "--discriminator-learning-rate", 1e-4),
    ],
)
def test_parts_are_swapped_by_a_word(tmp_path: Path, recipe: Recipe, options):
    data = tmp_path / "data"
    for folder in ("trainA", "trainB"):
        (data / folder).mkdir(parents=True)
        for number in range(2):
            Image.effect_noise((64, 64), 50).convert("RGB").save(data / folder / f"{number}.png")
    steps = () if "--epochs" in options else ("--steps", 2)
    recipe(*TINY, *steps, *options, "--data", data, "--out", tmp_path / "run")
    told = rows(tmp_path / "run")
    assert len(told) == 2
    assert ("identity_a" in told[0]) == ("--identity-weight" not in options)
    assert ("disc_b_1" in told[0]) == ("pixel,patchgan(layers=2)+pixel" in options)
    parts = json.loads((tmp_path / "run" / "config.json").read_text())["parts"]
    assert any(name.startswith("adversarial_a") for name in parts)


def test_help_explains_every_option_with_its_default():
    said = run("--help")
    for option in (
        *("--data", "--preset", "--generator", "--discriminator", "--adversarial", "--replay", "--resize", "--crop"),
        *("--batch-size", "--epochs", "--steps", "--seed", "--device", "--paint", "--out"),
    ):
        assert re.search(rf"{option} .*?\(default: ", said, re.DOTALL), option
    assert "ganilla, keras_unet256" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--generator", "resnet8"), "there is no generator named 'resnet8' (did you mean 'resnet9'?)"),
        (("--generator", "keras_unet256", "--upsample", "resize_conv"), "'keras_unet256' has no option 'upsample'"),
        (("--generator", "unet256", "--crop", "128"), "256"),
        (("--discriminator", "patchgan", "--adversarial", "two_objective"), "take a discriminator with objectives=2"),
        (("--data", "nowhere"), "there is no folder nowhere"),
        (("--device", "gpu"), "'gpu' is not a device that PyTorch knows"),
        (("--resume", "nowhere"), "there is no checkpoint nowhere"),
        (("--out", str(RECIPE)), f"cannot write the run folder {RECIPE}: Not a directory; take another one"),
        (("--photos", str(sample() / "testA")), "photos alone do not make pairs: give a folder of paintings too"),
        (("--paintings", str(RECIPE), "--data", str(sample())), "cyclegan_monet.py is a file: give the folder"),
        (
            ("--imports", "no_such_module"),
            "--imports no_such_module: Python finds no module of this name. Put the folder that holds it on PYTHONPATH",
        ),
        (("--imports", "no_such_module"), "(PYTHONPATH=FOLDER; "),
        (("--device", "mps"), "'mps' is not supported: use 'cpu' or 'cuda'"),
        (("--init", "nowhere/at_all"), "nowhere/at_all"),
        (("--patience", "2"), "--patience 2 needs evaluations: give --evaluate-every, too"),
    ],
)
def test_a_mistake_ends_in_one_clear_sentence(tmp_path: Path, recipe: Recipe, options, message):
    steps = () if "--steps" in options else ("--steps", 1)
    out = () if "--out" in options or "--resume" in options else ("--out", tmp_path / "run")
    said = recipe(*QUICK, *steps, *out, *options, code=1)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert message in error
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "2", "--steps", "2"), "--epochs 2 and --steps 2 exclude each other: give one"),
        (("--batch-size", "0"), "--batch-size 0 is too small"),
        (("--paint", "-3"), "--paint -3 is too small"),
        (("--stps", "2"), "--steps"),
    ],
)
def test_wrong_options_are_a_usage_error(recipe: Recipe, options, message):
    said = recipe(*options, code=2)
    assert message in said
    assert "Traceback" not in said


def test_an_unreadable_image_keeps_what_was_learnt_or_is_skipped(tmp_path: Path, recipe: Recipe):
    for folder in ("photos", "paintings"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / folder / f"{number}.png")
    (tmp_path / "photos" / "1.png").write_bytes(b"broken")
    folders = ("--photos", tmp_path / "photos", "--paintings", tmp_path / "paintings")
    # the grid of samples is what meets it first
    said = recipe(*TINY, *folders, "--steps", 3, "--out", tmp_path / "a", code=1)
    assert re.search(r"error: cannot read the image .*1\.png: .*--skip-unreadable", said)
    said = recipe(*TINY, *folders, "--steps", 3, "--out", tmp_path / "b", "--skip-unreadable")
    assert re.search(
        r"^warning: skipped: cannot read the image .*1\.png: it is not an image that Pillow knows$", said, re.MULTILINE
    )
    assert len(rows(tmp_path / "b")) == 3


def test_parts_and_presets_of_ones_own_are_imported_first(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_parts.py").write_text(
        "from functools import partial\n"
        "from torch import nn\n"
        "from ganparts import GENERATORS, PRESETS\n"
        "from ganparts.cyclegan import Preset\n"
        "from ganparts.generators import ResNetGenerator\n"
        "@GENERATORS.register('tint')\n"
        "def tint(*, strength: float = 0.1) -> nn.Module:\n"
        "    return nn.Conv2d(3, 3, 1)\n"
        "@PRESETS.register('mine')\n"
        "def mine() -> Preset:\n"
        "    return Preset(generator=('tint', 'resnet6'), discriminator=('pixel', 'patchgan'))\n"
        "@PRESETS.register('nameless')\n"
        "def nameless() -> Preset:\n"
        "    return Preset(generator=partial(ResNetGenerator, width=2), discriminator='pixel')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        quick = (*QUICK[4:], "--steps", 1, "--resize", 32, "--crop", 32, "--imports", "my_parts")
        recipe(*quick, "--generator", "tint", "--out", tmp_path / "a")
        recipe(*quick, "--preset", "mine", "--out", tmp_path / "b")
        said = recipe(*quick, "--preset", "nameless", "--out", tmp_path / "c", code=1)
        assert "was not built by name" in said
        assert not (tmp_path / "c").exists()
        assert json.loads((tmp_path / "a" / "config.json").read_text())["parts"]["generator_ab"] == "tint()"
        parts = json.loads((tmp_path / "b" / "config.json").read_text())["parts"]
        assert parts["generator_ba"] == "resnet6(width=32)"
    finally:
        GENERATORS.remove("tint")
        PRESETS.remove("mine")
        PRESETS.remove("nameless")
        del sys.modules["my_parts"]


BROKEN = """
import json
from ganparts import ADVERSARIAL_LOSSES, GENERATORS, PRESETS
from ganparts.losses import LSGAN
@ADVERSARIAL_LOSSES.register("broken")
def broken():
    class Broken(LSGAN):
        def generator(self, fake, real=None):
            return json.loads(3)
    return Broken()
"""


def test_an_error_in_a_part_of_ones_own_says_where(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_parts.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "run"
    quick = (*TINY, "--steps", 1, "--imports", "broken_parts", "--adversarial", "broken")
    try:
        said = recipe(*quick, "--out", out, code=1)
        (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
        where = f"({tmp_path / 'broken_parts.py'}, line 9, in generator)"
        assert error.startswith("error: TypeError: the JSON object must be")
        assert error.endswith(where)
        assert f"The whole trace is in {out / 'error.txt'}." in said
        trace = (out / "error.txt").read_text()
        assert "Traceback" in trace
        assert "json.loads(3)" in trace
        assert "Traceback" not in said
        assert '"crashed"' in (out / "report.html").read_text()
        with pytest.raises(TypeError):
            recipe(*quick, "--debug", "--out", tmp_path / "again")
    finally:
        ADVERSARIAL_LOSSES.remove("broken")
        del sys.modules["broken_parts"]


@pytest.fixture
def poison() -> Iterator[Callable[[Callable[[int], bool]], None]]:
    """An adversarial loss whose generator's half is NaN at the calls, from 1, that a function names."""
    state = SimpleNamespace(calls=0, bad=lambda call: False)

    class Poison(LSGAN):
        def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
            state.calls += 1
            return super().generator(fake, real) * (float("nan") if state.bad(state.calls) else 1.0)

    ADVERSARIAL_LOSSES.register("poison")(lambda: Poison())
    yield lambda bad: setattr(state, "bad", bad)
    ADVERSARIAL_LOSSES.remove("poison")


@pytest.mark.parametrize("how", ["rollback", "skip", "stop"])
def test_a_run_recovers_from_numbers_that_are_not_finite_as_its_option_says(
    tmp_path: Path, recipe: Recipe, poison, how: str
):
    poison(lambda call: call == 9)  # two a step: in step 5
    out = tmp_path / "run"
    options = (*TINY, "--adversarial", "poison", "--checkpoint-every", 2, "--on-nonfinite", how)
    said = recipe(*options, "--steps", 8, "--out", out, code=how == "stop")
    assert "warning: not finite at step 5, since step 5: " in said
    (warning,) = [json.loads(line) for line in (out / "warnings.jsonl").read_text().splitlines()]
    assert warning["kind"] == "not finite"
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    assert saved["step"] == (4 if how == "stop" else 8)
    assert all(torch.isfinite(tensor).all() for tensor in saved["states"]["model"].values())
    assert ("Not finite at step 5: going on with the weights of step 4." in said) == (how == "rollback")
    if how == "stop":
        assert "error: losses, gradients or weights are not finite at step 5. The last state that was is in" in said
        assert "not finite" in (out / "report.html").read_text()
        assert '"crashed"' in (out / "report.html").read_text()
    else:
        assert (out / "images.zip").exists()


def test_going_back_that_does_not_help_ends_the_run(tmp_path: Path, recipe: Recipe, poison):
    poison(lambda call: call >= 9)
    options = (*TINY, "--adversarial", "poison", "--checkpoint-every", 2)
    said = recipe(*options, "--steps", 50, "--out", tmp_path / "run", code=1)
    assert said.count("going on with the weights of step") == 3
    assert "not finite at step 8 again, after going back 3 times" in said.splitlines()[-1]


def test_a_run_that_skips_too_much_ends(tmp_path: Path, recipe: Recipe, poison):
    poison(lambda call: call >= 5)
    options = (*TINY, "--adversarial", "poison", "--on-nonfinite", "skip")
    said = recipe(*options, "--steps", 50, "--out", tmp_path / "run", code=1)
    assert "warning: nothing is learned at step 22, since step 22: 20 logged steps in a row were skipped" in said
    assert "error: losses, gradients or weights are not finite at step 22." in said


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_termination_of_the_whole_group_and_a_time_limit_end_runs_cleanly(tmp_path: Path, recipe: Recipe):
    out = tmp_path / "run"
    options = (*TINY, "--steps", 5000, "--workers", 1, "--paint", 1)
    process = subprocess.Popen(
        [sys.executable, str(RECIPE), *map(str, options), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    while len(rows(out) if (out / "losses.csv").exists() else []) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm does
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "Stopped by SIGTERM after step" in said
    assert "Traceback" not in said
    assert '"stopped"' in (out / "report.html").read_text()
    done = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    said = recipe("--resume", out, "--time-limit", 0.002)
    assert "Stopped by the time limit after step" in said
    assert done < torch.load(out / "checkpoint.pt", weights_only=True)["step"] < 5000


def test_a_clock_that_jumps_stops_nothing(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    clock, jumps = time.time, itertools.cycle((-1e8, 1e8))  # three years
    monkeypatch.setattr(time, "time", lambda: clock() + next(jumps))
    said = recipe(*TINY, "--steps", 4, "--time-limit", 60, "--out", tmp_path / "run")
    assert "Stopped by" not in said
    assert [row["step"] for row in rows(tmp_path / "run")][-1] == "4"


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, recipe: Recipe):
    recipe(*TINY, "--steps", 4, "--checkpoint-every", 2, "--out", tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    expected = torch.load(checkpoint, weights_only=True)["states"]
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    said = recipe("--resume", tmp_path)
    assert said.count("going on from the one before") == 1
    assert "2 of 4 steps are done" in said
    torch.testing.assert_close(torch.load(checkpoint, weights_only=True)["states"], expected, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])  # whose first steps overflow and are left out
def test_every_way_of_computing_can_be_asked_for_and_goes_on(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, precision: str
):
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked := Mock())  # for this process
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    more = ("--memory", "lowest", "--ema-decay", 0.9, "--hold-data", "on", "--tensorboard", "--deterministic")
    options = (*TINY, "--precision", precision, "--layout", "channels_last", *more, "--checkpoint-every", 1)
    said = recipe(*options, "--steps", 4, "--out", whole)
    for part in (f"precision {precision}: as asked", "layout channels_last: as asked"):
        assert part in said
    assert asked.call_args.args == (True,)
    assert list((whole / "tensorboard").iterdir())
    states = torch.load(whole / "checkpoint.pt", weights_only=True)["states"]
    painted = load_file(whole / "generator" / "model.safetensors")
    for name, tensor in painted.items():
        assert torch.equal(tensor, states["averages"][f"average.generator_ab.{name}"])
    recipe.killed(2, *options, "--steps", 4, "--out", parted)
    assert ("loss_scale" in rows(parted)[0]) == (precision == "fp16")
    recipe("--resume", parted)
    again = torch.load(parted / "checkpoint.pt", weights_only=True)["states"]
    torch.testing.assert_close(again, states, rtol=0, atol=0)


def test_notes_on_what_was_scaled_down_come_where_it_was(tmp_path: Path, recipe: Recipe):
    def note(*options: object) -> str | None:
        said = recipe(
            "--device",
            "cpu",
            "--steps",
            1,
            "--paint",
            0,
            *options,
            "--out",
            tmp_path / str(len(list(tmp_path.iterdir()))),
        )
        return next((line for line in said.splitlines() if line.startswith("Scaled down")), None)

    assert note(*TINY[:4], *TINY[10:]) is None
    narrow = note("--width", 2, "--generator", "resnet6", "--discriminator", "pixel", "--replay", "none")
    assert narrow is not None
    assert "128 pixels" in narrow
    assert "U-Net" not in narrow
    assert "channels" not in narrow


def test_evaluation_without_its_packages_is_said_before_training(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    for name in ["torch_fidelity", *(name for name in sys.modules if name.startswith("torch_fidelity."))]:
        monkeypatch.setitem(sys.modules, name, None)
    evaluating = ("--evaluate-every", 1, "--extractor", "inception")
    said = recipe(*TINY, "--steps", 2, *evaluating, "--out", tmp_path / "run", code=1)
    assert "pip install 'ganparts[metrics]'" in said.splitlines()[-1]
    assert "Traceback" not in said
