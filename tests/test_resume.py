"""What a run of the recipe keeps when it stops, is killed, resumed, or started from another's weights."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Recipe
from PIL import Image
from torch import Tensor, nn

from ganparts import GENERATORS, build_cut
from ganparts.inpainting import build_inpainting
from ganparts.metrics import FEATURE_EXTRACTORS
from ganparts.pretrained import from_pretrained, save_pretrained
from ganparts.training.starting import start_discriminators_from, start_from

SMALL = ("--generator", "resnet6", "--width", 2, "--resize", 32, "--crop", 32, "--device", "cpu")
QUICK = (*SMALL, "--paint", 1, "--log-every", 1)


def noise(folder: Path, count: int, *, side: int = 40) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.effect_noise((side, side), 50 + number).convert("RGB").save(folder / f"{number}.png")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[object, ...]:
    """Options for small domains of one's own."""
    noise(tmp_path / "photos", 3)
    noise(tmp_path / "paintings", 3)
    return ("--photos", tmp_path / "photos", "--paintings", tmp_path / "paintings")


@pytest.fixture
def extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An extractor that draws random numbers when it is made, and when it works."""

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Buffer(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))
            torch.rand(5)

        def forward(self, images: Tensor) -> Tensor:
            torch.rand(5)
            return images.float().mean((2, 3)) @ self.weight

    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "cache"))
    FEATURE_EXTRACTORS.register("tiny")(lambda: Tiny())
    yield "tiny"
    FEATURE_EXTRACTORS.remove("tiny")


def checkpoint(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def states(out: Path) -> dict[str, Any]:
    """What a checkpoint holds of the training itself."""
    return {name: state for name, state in checkpoint(out)["states"].items() if name != "watch"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


RANDOM = (
    *("--generator", "resnet6(dropout=0.5)", "--replay", "history(size=2)", "--augment", "diffaugment"),
    *("--ema-decay", 0.9, "--checkpoint-every", 2, "--batch-size", 2),
)


@pytest.mark.parametrize("killed_at", [1, 5])
def test_a_killed_run_that_evaluates_ends_as_an_uninterrupted_one(
    tmp_path: Path, recipe: Recipe, extractor: str, killed_at: int
):
    options = (*QUICK, *RANDOM, "--steps", 7, "--evaluate-every", 3, "--evaluate-photos", 3, "--extractor", extractor)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    recipe(*options, "--out", whole)
    recipe.killed(killed_at, *options, "--out", parted)
    recipe("--resume", parted)
    torch.testing.assert_close(checkpoint(parted)["states"], checkpoint(whole)["states"], rtol=0, atol=0)
    assert rows(parted / "scores.csv") == rows(whole / "scores.csv")
    painted = [from_pretrained(out / "generator").state_dict() for out in (whole, parted)]
    torch.testing.assert_close(painted[0], painted[1], rtol=0, atol=0)
    # and evaluating changes nothing
    recipe(*options[:-6], "--out", tmp_path / "plain")
    torch.testing.assert_close(states(tmp_path / "plain"), states(whole), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("killed_in", "call"), [("_evaluate", 0), ("_evaluate", 1), ("_evaluate", 2), ("_export", 1), ("_keep_scores", 1)]
)
def test_a_run_killed_after_a_checkpoint_makes_up_for_what_it_missed(
    tmp_path: Path, recipe: Recipe, extractor: str, killed_in: str, call: int
):
    options = (*QUICK, *RANDOM, "--steps", 7, "--evaluate-every", 3, "--evaluate-photos", 3, "--extractor", extractor)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    recipe(*options, "--out", whole)
    recipe.killed_in(killed_in, call, *options, "--out", parted)
    recipe("--resume", parted)
    assert rows(parted / "scores.csv") == rows(whole / "scores.csv")
    torch.testing.assert_close(states(parted), states(whole), rtol=0, atol=0)
    painted = [from_pretrained(out / "generator").state_dict() for out in (whole, parted)]
    torch.testing.assert_close(painted[0], painted[1], rtol=0, atol=0)


def test_a_run_killed_before_the_export_of_its_best_generator_exports_it(
    tmp_path: Path, recipe: Recipe, extractor: str, monkeypatch: pytest.MonkeyPatch
):
    from dataclasses import replace

    from ganparts.metrics import Evaluator

    values, whole = iter((0.4, 0.2, 0.2, 0.3)), Evaluator.__call__  # each evaluation is better, until the last
    monkeypatch.setattr(Evaluator, "__call__", lambda self, network: replace(whole(self, network), kid=next(values)))
    out = tmp_path / "run"
    options = (*QUICK, "--steps", 6, "--evaluate-every", 2, "--evaluate-photos", 3, "--extractor", extractor)
    recipe.killed_in("_export", 2, *options, "--out", out)  # the third: at step 2 there were two
    assert [row["step"] for row in rows(out / "scores.csv")] == ["2"]
    recipe("--resume", out)
    assert [(row["step"], row["kid"]) for row in rows(out / "scores.csv")] == [("2", "0.4"), ("4", "0.2"), ("6", "0.3")]
    assert json.loads((out / "best.json").read_text())["step"] == 4
    assert "| KID | 0.2000" in (out / "generator" / "README.md").read_text()


def test_patience_that_ended_in_the_evaluation_that_was_killed_ends_the_run(
    tmp_path: Path, recipe: Recipe, extractor: str
):
    evaluation = ("--evaluate-every", 2, "--evaluate-photos", 3, "--patience", 1, "--extractor", extractor)
    options = (*QUICK, *evaluation, "--steps", 20, "--learning-rate", 1e-9)  # no evaluation is better than the first
    recipe.killed_in("_evaluate", 1, *options, "--out", tmp_path / "run")
    assert "Stopped by patience (kid has not improved in 1 evaluations) after step 4 of 20" in recipe(
        "--resume", tmp_path / "run"
    )


def test_a_run_killed_before_its_first_export_has_a_generator_once_it_is_resumed(tmp_path: Path, recipe: Recipe):
    recipe.killed_in("_export", 0, *QUICK, "--steps", 2, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "generator").exists()
    assert "1 paintings" in recipe("--resume", tmp_path / "run")
    newest = checkpoint(tmp_path / "run")["states"]["model"]
    saved = from_pretrained(tmp_path / "run" / "generator").state_dict()
    torch.testing.assert_close(saved, {name: newest[f"generator_ab.{name}"] for name in saved}, rtol=0, atol=0)


def test_the_best_generator_is_exported_and_paints(tmp_path: Path, recipe: Recipe, extractor: str, monkeypatch):
    from dataclasses import replace

    from ganparts.metrics import Evaluator

    values, seen, whole = iter((0.4, 0.2, 0.3, 0.25)), [], Evaluator.__call__

    def scored(self: Evaluator, generator: nn.Module) -> Any:
        seen.append({name: value.clone() for name, value in generator.state_dict().items()})
        return replace(whole(self, generator), kid=next(values))

    monkeypatch.setattr(Evaluator, "__call__", scored)
    out = tmp_path / "run"
    evaluation = ("--evaluate-every", 2, "--evaluate-photos", 3, "--patience", 2, "--extractor", extractor)
    said = recipe(*QUICK, *evaluation, "--steps", 20, "--sample-every", 20, "--out", out)
    assert "Stopped by patience (kid has not improved in 2 evaluations) after step 8 of 20" in said
    generator = from_pretrained(out / "generator")
    torch.testing.assert_close(generator.state_dict(), seen[1], rtol=0, atol=0)
    from_pretrained(out / "generator_ba")
    from ganparts.translate import translate_to_zip

    (name, photo), *_ = recipe_photos(recipe)
    translate_to_zip(generator, [(name, photo)], tmp_path / "expected.zip")
    with zipfile.ZipFile(tmp_path / "expected.zip") as expected, zipfile.ZipFile(out / "images.zip") as painted:
        (entry,) = painted.namelist()
        assert painted.read(entry) == expected.read(entry)
    assert json.loads((out / "best.json").read_text()) == {"step": 4, "metric": "kid", "value": 0.2}
    assert "KID, lower is better" in (out / "report.html").read_text()
    assert "best generator, step 4" in (out / "report.html").read_text()
    assert "| KID | 0.2000 (" in (out / "generator" / "README.md").read_text()
    assert "| generated images | 3 of 256x256 |" in (out / "generator" / "README.md").read_text()
    assert checkpoint(out)["step"] == 8


def recipe_photos(recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
    from ganparts.data import open_domains

    yield from open_domains(None).photos().readable(1)


def test_a_termination_leaves_what_matters_and_does_nothing_slow(tmp_path: Path, recipe: Recipe, extractor: str):
    out = tmp_path / "run"
    recipe.during(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    options = (*QUICK, "--steps", 90, "--evaluate-every", 50, "--evaluate-photos", 3, "--extractor", extractor)
    said = recipe(*options, "--out", out)
    assert f"Stopped by SIGTERM after step 4 of 90; --resume {out} goes on." in said
    assert "Painting" not in said
    assert checkpoint(out)["step"] == 4
    painted = from_pretrained(out / "generator").state_dict()
    trained = {name: states(out)["model"][f"generator_ab.{name}"] for name in painted}
    torch.testing.assert_close(painted, trained, rtol=0, atol=0)
    assert '"stopped"' in (out / "report.html").read_text()
    assert not (out / "scores.csv").exists()
    assert not (out / "images.zip").exists()
    assert not list((out / "samples").iterdir())


def test_losses_that_stay_nan_in_fp16_end_the_run(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    from ganparts.losses import LSGAN

    calls: list[int] = []
    whole = LSGAN.generator

    def generator(self: LSGAN, fake: Tensor, real: Tensor | None = None) -> Tensor:
        calls.append(1)
        return whole(self, fake, real) * (float("nan") if len(calls) > 4 else 1.0)

    monkeypatch.setattr(LSGAN, "generator", generator)
    out = tmp_path / "run"
    said = recipe(*QUICK, "--steps", 30, "--precision", "fp16", "--on-nonfinite", "stop", "--out", out, code=1)
    assert "error: losses, gradients or weights are not finite at step 3. The last state that was is in" in said
    assert "Painting" not in said
    assert '"crashed"' in (out / "report.html").read_text()
    assert next(float(row["loss_scale"]) for row in rows(out / "losses.csv")) >= 1024
    assert not (out / "generator").exists()
    assert checkpoint(out)["step"] == 0


# --- resuming


def test_options_that_make_sense_can_be_changed(tmp_path: Path, recipe: Recipe):
    out = tmp_path / "run"
    recipe.during(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    recipe(*QUICK, "--steps", 8, "--time-limit", 100, "--sample-every", 1, "--out", out)
    # --log-every 10 is the default, which the run did not have
    recipe("--resume", out, "--steps", 12, "--log-every", 10, "--time-limit", "None")
    assert [row["step"] for row in rows(out / "losses.csv")] == ["1", "2", "10", "12"]
    options = json.loads((out / "config.json").read_text())["options"]
    assert (options["log_every"], options["time_limit"], options["sample_every"]) == (10, None, 1)
    said = recipe("--resume", out, "--seed", 3, "--precision", "bf16", "--deterministic", code=1)
    assert "error: --resume" in said
    assert "continues that run, which began with other options: leave out" in said
    for given in ("--seed 3", "--precision bf16", "--deterministic True", f"(--init {out})"):
        assert given in said
    recipe("--resume", out, "--seed", 0, "--precision", "auto", "--steps", 12)  # those that it has


def test_one_length_takes_the_place_of_another(tmp_path: Path, recipe: Recipe, folders: tuple[object, ...]):
    out = tmp_path / "run"
    recipe(*QUICK, *folders, "--epochs", 1, "--out", out)
    assert checkpoint(out)["step"] == 3
    recipe("--resume", out, "--steps", 5, code=1)  # the rate has come down already
    out = tmp_path / "stopped"
    recipe.during(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    recipe(*QUICK, *folders, "--epochs", 2, "--out", out)
    recipe("--resume", out, "--steps", 5)
    assert checkpoint(out)["step"] == 5
    said = recipe("--resume", out, "--steps", 50, code=1)
    assert "had 5 steps, and its learning rates up to step 5 would have been others in one of 50: start a new" in said
    assert f"(--init {out})" in said
    assert "leave out --hours 2.0" in recipe("--resume", out, "--hours", 2, code=1)


def test_data_that_moved_are_the_same_and_others_are_warned_of(
    tmp_path: Path, recipe: Recipe, folders: tuple[object, ...]
):
    out = tmp_path / "run"
    recipe(*QUICK, *folders, "--steps", 2, "--out", out)
    for name in ("photos", "paintings"):
        shutil.move(tmp_path / name, tmp_path / f"moved_{name}")
    moved = ("--photos", tmp_path / "moved_photos", "--paintings", tmp_path / "moved_paintings")
    assert "there is no folder" in recipe("--resume", out, code=1)
    assert "warning" not in recipe("--resume", out, *moved)
    noise(tmp_path / "moved_photos", 4)
    said = recipe("--resume", out, *moved)
    assert "warning: the data are not those that the run began with (names and sizes of the images differ)" in said


def test_unreadable_images_can_be_skipped_by_a_run_that_goes_on(
    tmp_path: Path, recipe: Recipe, folders: tuple[object, ...]
):
    noise(tmp_path / "paintings", 6)
    (tmp_path / "paintings" / "5.png").write_bytes(b"broken")
    out = tmp_path / "run"
    said = recipe(*QUICK, *folders, "--epochs", 1, "--out", out, code=1)
    assert "5.png" in said
    assert "--skip-unreadable" in said
    done = checkpoint(out)["step"]
    assert 0 < done < 6
    assert len(rows(out / "losses.csv")) == done
    said = recipe("--resume", out, "--skip-unreadable")
    assert f"{done} of 6 steps are done" in said
    assert [row["step"] for row in rows(out / "losses.csv")] == list("123456")
    assert (out / "images.zip").exists()


# --- starting from trained weights


def test_a_run_starts_from_another_runs_generators_or_from_one(tmp_path: Path, recipe: Recipe):
    first = tmp_path / "first"
    recipe(*QUICK, "--steps", 2, "--out", first)
    trained = {name: from_pretrained(first / name).state_dict() for name in ("generator", "generator_ba")}

    def began(*sources: object) -> list[dict[str, Tensor]]:
        out = tmp_path / f"from_{len(list(tmp_path.iterdir()))}"
        recipe.killed(0, *QUICK, "--steps", 2, "--seed", 5, "--init", *sources, "--out", out)
        model = states(out)["model"]
        return [{n: model[f"{name}.{n}"] for n in trained["generator"]} for name in ("generator_ab", "generator_ba")]

    for sources in ((first,), (first / "generator", first / "generator_ba")):
        both = began(*sources)
        torch.testing.assert_close(both, list(trained.values()), rtol=0, atol=0)
    forward, backward = began(first / "generator")
    torch.testing.assert_close(forward, trained["generator"], rtol=0, atol=0)
    assert any(not torch.equal(backward[name], value) for name, value in trained["generator_ba"].items())
    quick = [*QUICK, "--steps", 1, "--out", tmp_path / "wrong"]
    quick[quick.index("--width") + 1] = 3
    said = recipe(*quick, "--init", first, code=1)
    assert f"error: --init {first} holds resnet6(width=2), but generator_ab is resnet6(width=3): build it with" in said
    said = recipe(*QUICK, "--steps", 1, "--out", tmp_path / "wrong", "--init", first, first, first, code=1)
    assert "--init takes at most 2 models, for generator_ab, generator_ba" in said
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("options", [{"strided_padding": "zero"}, {"upsample": "bilinear"}])
def test_a_start_from_a_network_that_paints_otherwise_is_refused(tmp_path: Path, options: dict[str, str]):
    save_pretrained(GENERATORS.create("painter", width=2, **options), tmp_path)
    model = build_cut(generator=GENERATORS.create("painter", width=2), discriminator="pixel")
    ((option, value),) = options.items()
    message = f"holds painter(width=2, {option}={value!r}), but generator is painter(width=2): build it with the same"
    with pytest.raises(ValueError, match=re.escape(message)):
        start_from(model, (str(tmp_path),))
    start_from(build_cut(generator=GENERATORS.create("painter", width=2, **options)), (str(tmp_path),))


def test_a_method_without_discriminators_cannot_start_from_them(tmp_path: Path):
    model = build_inpainting(generator=GENERATORS.create("painter", width=2))
    with pytest.raises(ValueError, match=r"^--init-discriminators run: this method trains no discriminators: leave"):
        start_discriminators_from(model, Path("run"))


def test_a_run_starts_from_another_runs_discriminators_too(tmp_path: Path, recipe: Recipe):
    first, out = tmp_path / "first", tmp_path / "second"
    recipe(*QUICK, "--steps", 2, "--out", first)
    both = ("--init", first, "--init-discriminators", first)
    recipe.killed(0, *QUICK, "--steps", 2, "--seed", 5, *both, "--out", out)
    before, now = (states(folder)["model"] for folder in (first, out))
    trained = [name for name in before if "replay" not in name]
    assert {name.partition(".")[0] for name in trained} == {"generator_ab", "generator_ba", "critics_a", "critics_b"}
    torch.testing.assert_close(
        {name: now[name] for name in trained}, {name: before[name] for name in trained}, rtol=0, atol=0
    )
    wrong = (*QUICK, "--steps", 1, "--out", tmp_path / "wrong", "--discriminator", "patchgan(width=3)")
    said = recipe(*wrong, "--init-discriminators", first, code=1)
    assert f"--init-discriminators {first}: its discriminator_a is patchgan(" in said
    assert "but here it is patchgan(width=3): build it with the same name" in said
