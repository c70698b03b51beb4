"""Several processes that train one model: what they compute, keep and say."""

from __future__ import annotations

import copy
import csv
import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processes import in_processes, outcomes
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from ganparts import (
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    Pair,
    build_cut,
    build_cyclegan,
    build_pix2pix,
    distributed,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import (
    GradientAverage,
    MemoryNeed,
    MemoryPlan,
    Optimizers,
    as_in_first,
    copy_from_first,
    share_draws,
    synchronize_batch_norms,
)
from ganparts.data import PairDataset, load_pairs, open_images
from ganparts.distributed import highest, join, leave, processes, rank
from ganparts.inpainting import Holes, build_inpainting
from ganparts.metrics import Evaluator
from ganparts.pretrained import from_pretrained
from ganparts.training import Loop, parse_options, run_recipe
from ganparts.translate import translate_to_zip

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

RESNET = partial(GENERATORS.create, "resnet6", width=2)
PATCHES = partial(DISCRIMINATORS.create, "patchgan", width=2, layers=1)
R1 = partial(PENALTIES.create, "r1", reduction="mean")
ASSEMBLIES: dict[str, Callable[[], Any]] = {
    "cyclegan": lambda: build_cyclegan(generator=RESNET, discriminator=PATCHES, replay="none"),
    "critics": lambda: build_cyclegan(
        generator=RESNET,
        discriminator=[PATCHES, "pixel"],
        adversarial="rsgan",
        penalty=R1,
        penalty_every=2,
        replay="none",
    ),
    "cut": lambda: build_cut(generator=RESNET, discriminator=PATCHES, layers=(0, 4), patches=8, projector_width=4),
    "fastcut": lambda: build_cut(
        "fastcut",
        generator=RESNET,
        discriminator=PATCHES,
        layers=(0, 4),
        patches=8,
        projector_width=4,
        penalty=R1,
        shift_weight=2.0,
    ),
    "pix2pix": lambda: build_pix2pix(generator=partial(RESNET, norm="batch"), discriminator=PATCHES, penalty=R1),
    "inpainting": lambda: build_inpainting(generator=RESNET, holes=Holes(fraction=1.0), distortion=None),
}


def pairs(step: int, count: int) -> Pair:
    images = torch.rand(2, count, 3, 16, 16, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return Pair(*images * 2 - 1)


def trained(model: nn.Module, **options: Any) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """State and losses after three steps on two pairs, or on this process's share of them."""
    optimizers = make_optimizers(model, average=GradientAverage() if processes() > 1 else None)
    losses = []
    for step in range(3):
        share = slice(rank(), rank() + 1) if processes() > 1 else slice(None)
        batch = Pair(*(images[share] for images in pairs(step, 2)))
        losses.append(train_step(model, batch, optimizers, step=step, **options))
    return model.state_dict(), losses


def train_all(rank: int) -> dict[str, Any]:
    results = {}
    for name, build in ASSEMBLIES.items():
        torch.manual_seed(rank)  # unequal weights
        model = build().double()
        torch.manual_seed(0)
        if rank == 0:
            model.load_state_dict(build().double().state_dict())
        copy_from_first([*model.parameters(), *model.buffers()])
        share_draws(model)
        synchronize_batch_norms(model)
        torch.manual_seed(10 + rank)
        results[name] = trained(model)
    return results


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_processes(train_all, tmp_path_factory.mktemp("all"))


@pytest.mark.parametrize("name", ASSEMBLIES)
def test_two_processes_train_as_one_with_twice_the_batch(name: str, together: list[dict[str, Any]]):
    torch.manual_seed(0)
    model = ASSEMBLIES[name]().double()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(10)
    state, losses = trained(model)
    assert any(not torch.equal(state[key], before[key]) for key in before)
    for other, _ in (each[name] for each in together):
        torch.testing.assert_close(other, state, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(value, together[1][name][0][key]) for key, value in together[0][name][0].items())
    means = [
        {key: (one[key] + two[key]) / 2 for key in one}
        for one, two in zip(*(each[name][1] for each in together), strict=True)
    ]
    torch.testing.assert_close(means, losses, rtol=1e-10, atol=1e-12)


def test_an_assembly_names_what_it_draws_for_a_whole_batch(monkeypatch: pytest.MonkeyPatch):
    class Drawing(nn.Module):
        shared_draws = ("throw",)

        def throw(self) -> list[Tensor]:
            return [torch.rand(2), torch.rand(3)]

        def draw_alone(self) -> Tensor:
            return torch.rand(2)

    copied: list[int] = []
    distributed: Any = sys.modules["ganparts.adversarial.distributed"]
    monkeypatch.setattr(distributed, "copy_from_first", lambda tensors: copied.append(len(list(tensors))))
    model = Drawing()
    share_draws(model)
    assert model.draw_alone().shape == (2,)
    assert copied == []
    assert [len(drawn) for drawn in model.throw()] == [2, 3]
    assert copied == [2]
    share_draws(nn.Identity())  # which draws nothing


def test_batch_norms_of_other_classes_are_left_alone_with_a_warning():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(2), nn.InstanceNorm2d(2))
    for _ in range(2):  # the second time there is nothing left to do
        with pytest.warns(UserWarning, match=r"^1 is a BatchNorm1d, ") as warned:
            synchronize_batch_norms(model)
        assert len(warned) == 1
    assert type(model[0]) is not nn.BatchNorm2d
    assert [type(layer) for layer in model[1:]] == [nn.BatchNorm1d, nn.InstanceNorm2d]


def average_and_skip(rank: int) -> Any:
    plain = [nn.Parameter(torch.zeros(2, 3, 4, 4, dtype=kind)) for kind in (torch.float32, torch.float64)]
    silent = nn.Parameter(torch.zeros(3))
    optimizer = SGD([*plain, silent], lr=1.0)
    average = GradientAverage()
    seen = []
    for turn in (1, 2):
        for parameter in plain:
            gradient = torch.arange(96.0, dtype=parameter.dtype).view(2, 3, 4, 4) * (rank + turn)
            parameter.grad = gradient.to(memory_format=torch.channels_last)
        average(optimizer)
        seen.append([parameter.grad for parameter in plain])
    assert silent.grad is None
    weight = nn.Parameter(torch.ones(()))
    scaled = Optimizers({"all": SGD([weight], lr=1.0)}, GradScaler("cpu", init_scale=4.0), average=average)
    weights = []
    for factor in (2.0, float("inf") if rank else 1.0, 1.0):
        scaled.zero_grad()
        scaled.backward(weight * factor * (1 + rank), [weight])
        scaled.step()
        weights.append(weight.item())
    return seen, weights, scaled.loss_scale


def test_gradients_are_averaged_and_a_step_is_skipped_by_all(tmp_path: Path):
    first, second = in_processes(average_and_skip, tmp_path)
    for turn, gradients in enumerate(first[0]):
        for gradient in gradients:
            expected = torch.arange(96.0, dtype=gradient.dtype).view(2, 3, 4, 4) * (turn + 1.5)
            torch.testing.assert_close(gradient, expected, rtol=0, atol=0)
    assert first[1] == second[1] == [1 - 3.0, 1 - 3.0, 1 - 4.5]
    assert first[2] == second[2] == 2.0


def positions(rank: int, dataset: PairDataset, workers: int) -> list[Pair]:
    return list(load_pairs(dataset, batch_size=2, start=1, steps=4, workers=workers))


def test_each_process_loads_its_share_of_a_steps_pairs(tmp_path: Path):
    images = [torch.full((3, 8, 8), number, dtype=torch.uint8) for number in range(7)]
    dataset = PairDataset(images, images[:5], resize=None, crop=8)
    shares = in_processes(positions, tmp_path, dataset, 0)
    whole = list(load_pairs(dataset, batch_size=4, start=1, steps=4))
    assert len(shares[0]) == len(shares[1]) == len(whole) == 3
    for one, two, both in zip(*shares, whole, strict=True):
        assert all(torch.equal(torch.cat([one[i], two[i]]), both[i]) for i in range(2))


RECIPES = {
    name: importlib.import_module(f"recipes.{name}")
    for name in ("cyclegan_monet", "cut_monet", "pix2pix", "pretrain_inpainting")
}
TINY = ("--device", "cpu", "--precision", "fp32", "--width", "2", "--resize", "16", "--crop", "16", "--paint", "1")
TINY += ("--log-every", "1")
CYCLEGAN = (*TINY, "--preset", "paper", "--generator", "resnet6(dropout=0.5)", "--discriminator", "patchgan(layers=1)")
RANDOM = (
    *CYCLEGAN,
    "--replay",
    "history(size=2)",
    "--augment",
    "diffaugment",
    "--checkpoint-every",
    "3",
    "--steps",
    "6",
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, ...]:
    """Options for small domains of one's own."""
    for name in ("photos", "paintings"):
        (tmp_path / name).mkdir()
        for number in range(5):
            pixels = Random(f"{name}{number}").randbytes(20 * 20 * 3)  # the same in each run of the tests
            Image.frombytes("RGB", (20, 20), pixels).save(tmp_path / name / f"{number}.png")
    return ("--photos", str(tmp_path / "photos"), "--paintings", str(tmp_path / "paintings"))


def run(rank: int, recipe: str, arguments: tuple[str, ...], during: Callable[[int, int], None] | None = None) -> None:
    """A recipe in a forked process, without the memory estimate; ``during(rank, step)`` is called in each step."""
    loop: Any = sys.modules["ganparts.training.loop"]
    planning: Any = sys.modules["ganparts.training.planning"]
    planning.plan_memory = lambda *_, **__: MemoryPlan("fast", MemoryNeed(2.0**20, 2.0**20))
    once = Loop._train_once

    def train_once(self: Loop, batch: Any, number: int) -> dict[str, Tensor]:
        if during is not None:
            during(rank, number)
        return once(self, batch, number)

    loop.Loop._train_once = train_once
    module: ModuleType = RECIPES[recipe]
    code = run_recipe(module.train, module.Config, description="", arguments=list(arguments))
    assert code == 0


def recipe(
    folder: Path, *arguments: Any, name: str = "cyclegan_monet", during: Any = None, count: int = 2
) -> list[Any]:
    return outcomes(run, folder / "said", name, tuple(map(str, arguments)), during, count=count, joined=False)


def rows(out: Path) -> list[dict[str, float]]:
    with (out / "losses.csv").open() as file:
        return [
            {key: float(value) for key, value in row.items() if key not in ("pairs_per_second", "data_wait")}
            for row in csv.DictReader(file)
        ]


def checkpoint(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def assert_same_end(out: Path, expected: Path) -> None:
    one, two = checkpoint(out), checkpoint(expected)
    assert one["step"] == two["step"] == 6
    assert len(one["ranks"]) == 2
    torch.testing.assert_close(one["states"], two["states"], rtol=0, atol=0)
    for own, other in zip(one["ranks"], two["ranks"], strict=True):
        torch.testing.assert_close(own["buffers"], other["buffers"], rtol=0, atol=0)
        assert torch.equal(own["random"]["torch"], other["random"]["torch"])
    assert rows(out) == rows(expected)


def stop_one(rank: int, step: int) -> None:
    if rank == 1 and step == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_a_signal_to_one_stops_goes_on_bit_for_bit(tmp_path: Path, folders: tuple[str, ...]):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    (code, said), (other, silence) = recipe(tmp_path, *RANDOM, *folders, "--out", whole)
    assert (code, other) == (0, 0), said + silence
    assert "processes 2: each trains on 1 of a step's 2 pairs" in said
    assert silence == ""
    assert (whole / "images.zip").exists()
    saved = checkpoint(whole)
    buffers = (saved["states"]["model"], saved["ranks"][1]["buffers"])
    assert not torch.equal(*(each["critics_a.0.replay.images"] for each in buffers))
    assert not torch.equal(*(own["random"]["torch"] for own in saved["ranks"]))

    ends = recipe(tmp_path, *RANDOM, *folders, "--out", parted, during=stop_one)
    assert [code for code, _ in ends] == [0, 0], ends
    assert "Stopped by SIGTERM after step 3 of 6" in ends[0][1]
    assert checkpoint(parted)["step"] == 3
    assert not (parted / "images.zip").exists()
    shutil.copytree(parted, tmp_path / "alone")
    ends = recipe(tmp_path, "--resume", parted)
    assert [code for code, _ in ends] == [0, 0], ends
    assert_same_end(parted, whole)
    ends = recipe(tmp_path, "--resume", tmp_path / "alone", count=1)
    assert ends[0][0] == 0, ends
    assert "the run had 2 process(es) and goes on with 1" in ends[0][1]
    assert checkpoint(tmp_path / "alone")["step"] == 6


def test_a_recipe_in_two_processes_is_one_with_twice_the_batch(tmp_path: Path, folders: tuple[str, ...]):
    options = (*TINY, *folders, "--preset", "paper", "--discriminator", "patchgan(layers=1)", "--replay", "none")
    options += ("--generator", "resnet6", "--epochs", "2", "--paint", "5")
    ends = recipe(tmp_path, *options, "--out", tmp_path / "two")
    assert [code for code, _ in ends] == [0, 0], ends
    recipe(tmp_path, *options, "--batch-size", 2, "--out", tmp_path / "one", count=1)
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == 6
    for row, expected in zip(two[:2], one[:2], strict=True):  # rounding grows: later steps differ by chance
        assert row == pytest.approx(expected, rel=1e-4)
        losses = {name: value for name, value in expected.items() if not name.startswith("grad_norm")}
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=1e-5)
    generator = from_pretrained(tmp_path / "two" / "generator")
    translate_to_zip(generator, open_images(tmp_path / "photos").readable(), tmp_path / "alone.zip")
    painted, expected = (pictures(tmp_path / name) for name in ("two/images.zip", "alone.zip"))
    assert list(painted) == list(expected) == [f"{number}.jpg" for number in range(5)]
    for name, picture in expected.items():  # whichever process painted it
        assert abs(painted[name] - picture).mean() < 0.5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cut_monet", ("--preset", "cut", "--patches", "8", "--paint", "5")),
        ("pix2pix", ("--generator", "resnet6(norm='batch')", "--sync-batch-norm", "--translate", "5")),
        ("pretrain_inpainting", ()),
    ],
)
def test_every_recipe_trains_in_two_processes(
    name: str, options: tuple[str, ...], tmp_path: Path, folders: tuple[str, ...]
):
    if name == "pix2pix":
        for part in ("train", "val"):
            (tmp_path / "pairs" / part).mkdir(parents=True)
            for number in range(5):
                pixels = Random(f"{part}{number}").randbytes(40 * 20 * 3)
                Image.frombytes("RGB", (40, 20), pixels).save(tmp_path / "pairs" / part / f"{number}.png")
        folders = ("--data", str(tmp_path / "pairs"))
    small = shlex.split("--device cpu --precision fp32 --resize 32 --crop 32 --width 2 --log-every 1 --steps 2")
    small += ("--generator", "resnet6") if "--generator" not in options else ()
    ends = recipe(tmp_path, *small, *options, *folders, "--out", tmp_path / "run", name=name)
    assert [code for code, _ in ends] == [0, 0], ends
    assert len(rows(tmp_path / "run")) == 2
    saved = checkpoint(tmp_path / "run")
    assert (saved["step"], len(saved["ranks"])) == (2, 2)
    if "5" in options:
        assert len(pictures(tmp_path / "run" / "images.zip")) == 5


def pictures(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return {name: np.asarray(Image.open(archive.open(name)), dtype=float) for name in archive.namelist()}


def paint(_: int, folder: Path, path: Path) -> tuple[list[int], int]:
    painted: list[int] = []

    def copy(images: Tensor) -> Tensor:
        painted.append(len(images))
        return images

    photos = open_images(folder, skip_unreadable=True).readable(7, shared=True)
    return painted, translate_to_zip(copy, photos, path, size=20, batch_size=2, together=7)


def score(rank: int, folder: Path) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    generator = GENERATORS.create("resnet6", width=2, norm="batch")
    mean = next(generator.buffers())
    mean += rank
    with as_in_first(generator.buffers()):
        evaluator = Evaluator(folder / "paintings", photos=folder / "photos", extractor="efficientnet_lite0")
        return evaluator(generator), mean.clone()


@pytest.mark.filterwarnings("ignore::ganparts.metrics.FewImagesWarning")
def test_processes_share_an_evaluation(tmp_path: Path, folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "cache"))
    (shared, own), (none, other) = in_processes(score, tmp_path / "said", tmp_path)
    assert none is None
    assert torch.equal(own, other)
    alone, _ = score(0, tmp_path)
    assert shared.values() == pytest.approx(alone.values(), rel=1e-4)
    assert shared.content_ssim == pytest.approx(alone.content_ssim, rel=1e-5)


def test_processes_share_the_photos_and_the_first_one_writes(tmp_path: Path, folders: tuple[str, ...]):
    shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "photos" / "5.png")
    (tmp_path / "photos" / "2.png").write_bytes(b"no image")
    first, second = in_processes(paint, tmp_path / "said", tmp_path / "photos", tmp_path / "images.zip")
    assert first == ([2], 5)  # 0 and 4
    assert second == ([2, 1], 0)  # 1 and 3, 5
    with zipfile.ZipFile(tmp_path / "images.zip") as archive:
        assert archive.namelist() == [f"{number}.jpg" for number in (0, 1, 4, 3, 5)]
        assert archive.read("0.jpg") == archive.read("5.jpg") != archive.read("1.jpg")


def test_an_error_of_one_ends_all_in_one_sentence(tmp_path: Path, folders: tuple[str, ...]):
    (tmp_path / "paintings" / "2.png").write_bytes(b"no image")
    ends = recipe(tmp_path, *CYCLEGAN, *folders, "--steps", 6, "--out", tmp_path / "run")
    assert [code for code, _ in ends] == [1, 1]
    said = "".join(text for _, text in ends)
    assert said.count("error (process ") == 1, said
    assert re.search(r"error \(process [01]\): .*2\.png", said)
    assert checkpoint(tmp_path / "run")["step"] == 0
    ends = recipe(tmp_path, "--steps", "many")
    assert [code for code, _ in ends] == [2, 2]


KILLER = """
import os, signal
import ganparts.training.planning as planning
import ganparts.training.loop as loop
from ganparts.adversarial import MemoryNeed, MemoryPlan

planning.plan_memory = lambda *_, **__: MemoryPlan("fast", MemoryNeed(2.0**20, 2.0**20))
once = loop.Loop._train_once

def train_once(self, batch, number):
    if (number, os.environ["RANK"]) == (4, "1") and os.environ["TORCHELASTIC_RESTART_COUNT"] in ("0", "1"):
        os.kill(os.getpid(), signal.SIGKILL)
    return once(self, batch, number)

loop.Loop._train_once = train_once
"""


def test_torchrun_starts_a_run_again_whose_process_was_killed_twice(tmp_path: Path, folders: tuple[str, ...]):
    (tmp_path / "killer.py").write_text(KILLER)
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "2",
    ]
    options = (*RANDOM, *folders, "--imports", "killer", "--out", str(tmp_path / "run"))
    done = subprocess.run(
        [*run, str(ROOT / "recipes" / "cyclegan_monet.py"), *options],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert said.count("error (process 0): another process of the run ended") == 2
    assert said.count("error (process") == 2
    assert f"--resume {tmp_path / 'run'} goes on" in said
    assert "3 of 6 steps are done" in said
    ends = recipe(tmp_path, *RANDOM, *folders, "--out", tmp_path / "whole")
    assert [code for code, _ in ends] == [0, 0], ends
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_a_process_group_of_ones_own_is_used_and_stays():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        join()
        own = distributed._control
        assert own is not None
        join()
        assert distributed._control is own
        assert highest(3.0) == 3.0
        leave()
        assert distributed._control is None
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_a_run_that_may_start_again_needs_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    kind = RECIPES["cyclegan_monet"].Config
    with pytest.raises(ValueError, match="give --out FOLDER"):
        parse_options(kind, description="", arguments=[])
    assert parse_options(kind, description="", arguments=["--out", str(tmp_path)]).resume is None


def test_every_command_of_the_page_is_understood():
    page = (ROOT / "docs" / "distributed.md").read_text()
    commands = re.findall(
        r"recipes/(\w+)\.py((?:.*\\\n)*.*)", "\n".join(re.findall(r"```(?:sh|text)\n(.*?)```", page, re.DOTALL))
    )
    assert {name for name, _ in commands} == set(RECIPES)
    for name, rest in commands:
        assert parse_options(RECIPES[name].Config, description="", arguments=shlex.split(rest)).resume is None
