"""The benchmarks run through their command line and leave a record; their figures are not judged here."""

from __future__ import annotations

import gc
import io
import json
import runpy
import shlex
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tyro
from PIL import Image

from benchmarks import gallery, kernels, modes, part_pictures, profiles, quality, report, train_step
from ganparts import DISCRIMINATORS, GENERATORS, CycleGAN, build_cut
from ganparts.adversarial.choices import parse_choice
from ganparts.cut.options import PresetOptions
from ganparts.registry import Registry

ROOT = Path(__file__).parent.parent
PROGRAMS = ["train_step", "memory", "data_loading", "import_time", "kernels", "report"]
SMALL = ("--width", "2", "--device", "cpu")


def run(name: str, *arguments: str, code: int = 0) -> str:
    """What ``python -m benchmarks.NAME`` prints, run in this process: a new one imports PyTorch for seconds."""
    printed, ended = io.StringIO(), None
    with pytest.MonkeyPatch.context() as here, warnings.catch_warnings(), redirect_stdout(printed):
        warnings.simplefilter("default")
        here.chdir(ROOT)
        here.setenv("OMP_NUM_THREADS", "1")  # of processes that it starts
        here.setenv("COLUMNS", "200")
        here.setattr(sys, "argv", [f"{name}.py", *arguments])
        try:
            runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
        except SystemExit as stop:
            ended = stop.code
    assert (ended or 0) == code, printed.getvalue()
    return printed.getvalue()


@pytest.mark.parametrize(("kind", "table"), [("generator", GENERATORS), ("discriminator", DISCRIMINATORS)])
def test_a_picture_of_every_network_can_be_made(kind: str, table: Registry[Any]):
    known = {"generator": part_pictures.GENERATORS, "discriminator": part_pictures.DISCRIMINATORS}[kind]
    assert sorted(known) == sorted(table)
    for name in table:
        given = part_pictures.chosen_options(kind, name)
        choice = parse_choice(given[f"--{kind}"], table)
        side = int(given.get("--crop", 128))
        with torch.device("meta"):
            network = table.create(choice) if isinstance(choice, str) else choice()
            network(torch.empty(4, 3, side, side))


def results(path: Path) -> list[dict]:
    record = json.loads(path.read_text())
    assert record["machine"]["cores"] > 0
    assert record["machine"]["torch"] == torch.__version__
    commit = record["machine"]["commit"]
    assert bool(commit) == (ROOT / ".git").exists()
    if commit:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert head.startswith(commit.removesuffix("-dirty"))
    return record["results"]


def test_steps_are_compared_with_the_textbooks_and_reported(tmp_path: Path):
    out = tmp_path / "new" / "train_step.json"
    small = ("--generators", "resnet6", "--sizes", "32", "--rounds", "1", "--warmup", "1", *SMALL)
    shown = run("train_step", *small, "--batch-sizes", "1", "2", "--out", str(out))
    assert "resnet6" in shown
    rows = results(out)
    assert [(row["mode"], row["batch_size"]) for row in rows] == [
        (mode, batch_size) for batch_size in (1, 2) for mode in ("ours", "low", "lowest")
    ]
    assert all(row["median_ms"] > 0 and row["textbook"]["median_ms"] > 0 for row in rows)
    assert rows[0]["baseline"] == "textbook"
    assert rows[3]["tflop"] == pytest.approx(2 * rows[0]["tflop"], abs=1e-3)
    p100 = tmp_path / "new" / "train_step_p100.json"
    run("train_step", "--profile", "p100", "--modes", "ours", *small, "--out", str(p100))
    assert "stand_in" in json.loads(p100.read_text())["settings"]
    assert results(p100)[0]["p100_floor_ms"] >= 0
    text = report.write_report(out.parent).read_text()
    assert "| resnet6 | 32 | 2 | lowest |" in text
    assert "![Pairs a second](train_step.svg)" in text
    assert "only the settings are a P100's" in text
    assert "lowest" in (out.parent / "train_step.svg").read_text()


@pytest.mark.parametrize("method", ["fastcut", "pix2pix"])
def test_other_methods_are_compared_with_their_textbook(method: str, tmp_path: Path):
    out = tmp_path / "train_step.json"
    small = ("--generators", "resnet6", "--sizes", "32", "--rounds", "1", "--modes", "ours", "low", *SMALL)
    run("train_step", "--method", method, *small, "--out", str(out))
    assert [("failed" in row, row["method"]) for row in results(out)] == [(False, method)] * 2
    assert f"| {method}, " in report.write_report(tmp_path).read_text()


def test_memory_is_estimated_and_reported(tmp_path: Path):
    out = tmp_path / "memory.json"
    run("memory", "--generators", "resnet6", "--size", "32", "--batch-sizes", "1", "4", *SMALL, "--out", str(out))
    rows = results(out)
    assert {row["level"] for row in rows} == {"fast", "low", "lowest"}
    assert all(row["estimate_mib"] > 0 for row in rows if "batch_size" in row)
    assert all(row["largest_batch_in_16_gb"] > 100 for row in rows if "batch_size" not in row)
    report.write_report(tmp_path)
    assert (tmp_path / "memory.svg").exists()


def test_data_loading_is_measured(tmp_path: Path):
    out = tmp_path / "data_loading.json"
    run("data_loading", "--workers", "0", "--steps", "5", "--device", "cpu", "--out", str(out))
    assert [row["source"] for row in results(out)] == ["0 workers", "held on the device"]
    assert all(row["pairs_per_second"] > 0 for row in results(out))


def test_quality_is_scored_by_run_and_seed(tmp_path: Path):
    runs = tmp_path / "runs.txt"
    runs.write_text("tiny = cyclegan_monet --preset paper --width 2 --resize 32 --generator resnet6\n")
    counts = ("--pairs", "4", "--evaluations", "2", "--photos", "3", "--seeds", "3", "--device", "cpu")
    assert "tiny" in run("quality", "--runs", str(runs), *counts, "--out", str(tmp_path))
    rows = results(tmp_path / "quality.json")
    assert [(row["seed"], [score["step"] for score in row["scores"]]) for row in rows] == [(3, [2, 4])]
    assert rows[0]["best"]["kid"] == min(score["kid"] for score in rows[0]["scores"])
    assert [path.name for path in tmp_path.glob("*.png")] == ["tiny_seed3.png"]
    with Image.open(tmp_path / "tiny_seed3.png") as row:
        assert row.width > 5 * row.height  # six paintings, without their photos
    assert not (tmp_path / "runs").exists()
    assert 0 < rows[0]["efficientnet_lite1"]["kid_ratio_low"] < rows[0]["efficientnet_lite1"]["kid_ratio_high"]
    runs.write_text("wrong = cut_monet --generator resnet8\n")
    assert "no generator named" in run("quality", "--runs", str(runs), *counts, "--out", str(tmp_path), code=1)
    runs.write_text("other = --generator resnet6\n")
    said = run("quality", "--runs", str(runs), *counts, "--out", str(tmp_path), code=1)
    assert "other: a run begins with one of cyclegan_monet, cut_monet" in " ".join(said.replace("│", " ").split())


@pytest.mark.parametrize("runs", [quality.CPU_RUNS, quality.GPU_RUNS])
def test_recipes_take_the_options_of_each_run_of_quality(runs: dict[str, str]):
    for recipe, *words in map(shlex.split, runs.values()):
        assert (quality.RECIPES / f"{recipe}.py").is_file()
        tyro.cli(quality.OPTIONS[recipe], args=words).settle(small=True)


def test_inference_is_measured_in_both_precisions(tmp_path: Path):
    out = tmp_path / "inference.json"
    run("inference", "--models", "monet", "--size", "32", "--rounds", "1", "--device", "cpu", "--out", str(out))
    (row,) = results(out)
    assert row["model"] == "monet"
    assert row["fp32"]["median_ms"] > 0
    assert row["bf16"]["median_ms"] > 0
    assert 40 < row["psnr_db"] < 90


def test_import_time_is_measured(tmp_path: Path):
    out = tmp_path / "import.json"
    assert "ganparts / torch:" in run("import_time", "--rounds", "1", "--out", str(out))
    (row,) = results(out)
    assert row["torch"]["median_ms"] > 0
    assert "torch median_ms" in report.write_report(tmp_path).read_text().replace("torch median ms", "torch median_ms")


def test_kernels_are_sorted_into_classes_and_gaps():
    intervals = [
        ("sm90_xmma_fprop_implicit_gemm", 0.0, 100.0),
        ("vectorized_elementwise_kernel", 150.0, 160.0),
        ("multi_tensor_apply_kernel<FusedAdam>", 155.0, 175.0),  # beside the one before
        ("Memcpy DtoD", 175.0, 176.0),
        ("triton_poi_fused_convolution_relu_3", 176.0, 180.0),
        ("strange", 200.0, 201.0),
    ]
    milliseconds = kernels.by_class(intervals, steps=1)
    assert milliseconds == {
        "convolution": 0.1,
        "norm and padding": 0.01,
        "optimizer": 0.02,
        "copies": 0.001,
        "fused by the compiler": 0.004,
        "other": 0.001,
        "gaps": 0.07,
    }


def test_operations_of_a_cpu_are_sorted_into_classes(tmp_path: Path):
    out = tmp_path / "kernels.json"
    run("kernels", *SMALL, "--size", "32", "--steps", "1", "--modes", "ours", "captured", "--out", str(out))
    (row,) = json.loads(out.read_text())["results"]  # a CPU captures nothing
    assert row["mode"] == "ours"
    assert row["kernels_per_step"] > 1000
    assert all(row[kind] > 0 for kind in ("convolution", "norm and padding", "optimizer", "gaps"))
    assert row["other"] < row["convolution"]


def test_settings_of_a_cpu_are_compared(tmp_path: Path):
    out = tmp_path / "settings.json"
    options = ("--generator", "resnet6", "--width", "2", "--size", "32", "--rounds", "1", "--warmup", "0")
    run("cpu_settings", *options, "--names", "denormals flushed", "--out", str(out))
    first, other = json.loads(out.read_text())["results"]
    assert (first["setting"], first["gain"], other["setting"]) == ("as it comes", 1.0, "denormals flushed")
    assert other["median_ms"] > 0


def test_modes_are_those_that_the_device_can_do():
    cpu = torch.device("cpu")
    assert list(modes.chosen_modes(cpu)) == ["textbook", "ours", "low", "lowest"]
    assert list(modes.chosen_modes(cpu, p100=True)) == ["textbook", "ours", "low", "lowest"]
    with pytest.raises(ValueError, match="there is no mode 'fast'; there are: textbook"):
        modes.chosen_modes(cpu, ("fast",))
    with pytest.raises(ValueError, match="--capture on is not possible on a CPU"):
        modes.chosen_modes(cpu, ("captured",))


@pytest.mark.parametrize(
    ("capability", "first", "lacks"),
    [
        (
            (6, 0),
            "fp16_captured",
            ("tf32_captured", "fp16_compiled_captured", "textbook_bf16_compiled", "textbook_tf32"),
        ),
        ((7, 5), "fp16_captured", ("tf32_captured", "textbook_bf16_compiled", "textbook_tf32")),
        ((9, 0), "bf16_captured", ()),
    ],
)
def test_the_gpu_script_measures_what_each_card_can_do(
    capability: tuple[int, int],
    first: str,
    lacks: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("ganparts.training.policy._compiler_lacks", lambda: None)
    text = (ROOT / "benchmarks" / "gpu.sh").read_text().replace("\\\n", "").replace("${half}", first[:4])
    given = [tuple(part.split("--")[0].replace('"', "").split()) for part in text.split("--modes ")[1:]]
    assert len(given) == 4
    cuda = torch.device("cuda")
    chosen = [modes.possible_modes(cuda, names) for names in given]
    assert first in chosen[0]
    assert {*sum(given, ())} - {*sum(map(tuple, chosen), ())} == {*lacks}
    told = capsys.readouterr().out
    assert all(f"{name} is left out: --" in told for name in lacks)
    assert (first in modes.chosen_modes(cuda)) == (capability >= (7, 0))  # of a P100 fp32 alone, unless asked


@pytest.mark.parametrize("name", gallery.VARIANTS)
def test_the_recipe_takes_the_options_of_each_run_of_the_gallery(name: str):
    words = [word for pair in (gallery.BASE | gallery.VARIANTS[name]).items() for word in pair]
    preset, _ = tyro.cli(PresetOptions, args=words).settle()
    build_cut(preset)


def test_a_report_needs_records(tmp_path: Path):
    (tmp_path / "other.json").write_text("{}")
    assert "has no records of benchmarks" in run("report", str(tmp_path), code=1)
    assert "there is no folder" in run("report", str(tmp_path / "absent"), code=1)


def test_they_run_as_modules_from_the_repository():
    command = [sys.executable, "-m", "benchmarks.report", "--help"]
    assert "FOLDER" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", [*PROGRAMS, "cpu_settings", "listing", "fuzz", "faults", "inference", "quality"])
def test_help(name: str):
    said = run(name, "--help")
    assert "--out" in said or "FOLDER" in said


def test_the_gpu_script_calls_programs_that_exist_and_stays_below_nine_minutes():
    text = (ROOT / "benchmarks" / "gpu.sh").read_text()
    for name in PROGRAMS:
        assert f"-m benchmarks.{name} " in text, name
    limits = [int(line.split()[1]) for line in text.splitlines() if line.startswith("run ")]
    assert sum(limits) <= 540


def test_a_textbook_step_that_does_not_fit_leaves_ours_to_be_timed(monkeypatch: pytest.MonkeyPatch):
    whole, config = train_step.race, train_step.Config(width=2, sizes=(32,), rounds=1, warmup=0, modes=("ours",))

    def race(config: object, model: object, pair: object, modes: dict[str, object]) -> dict[str, object]:
        if "textbook" in modes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(config, model, pair, modes)

    monkeypatch.setattr(train_step, "race", race)
    (row,) = train_step.compare(config, "resnet6", 32, 1, torch.device("cpu"))
    assert row["median_ms"] > 0
    assert "textbook" not in row
    assert train_step._cells(row)[1] == "out of memory"
    monkeypatch.setattr(train_step, "race", lambda *_: race(*_[:3], {"textbook": None}))
    (row,) = train_step.compare(config, "resnet6", 32, 1, torch.device("cpu"))
    assert row["failed"] == "out of memory"


def test_other_losses_than_the_textbooks_are_told(monkeypatch: pytest.MonkeyPatch):
    make_step, config = (
        train_step.make_step,
        train_step.Config(width=2, sizes=(32,), rounds=1, warmup=0, modes=("ours",)),
    )

    def skewed(mode: modes.Mode, *given: Any) -> Any:
        step = make_step(mode, *given)
        return step if mode.level is None else lambda: {name: 2 * loss for name, loss in step().items()}

    monkeypatch.setattr(train_step, "make_step", skewed)
    (row,) = train_step.compare(config, "resnet6", 32, 1, torch.device("cpu"))
    assert "by the textbook's step" in row["failed"]


def test_memory_is_measured_with_no_other_model_alive(monkeypatch: pytest.MonkeyPatch):
    def models() -> int:
        return sum(type(thing) is CycleGAN for thing in gc.get_objects())

    gc.collect()
    before, alive = models(), []
    monkeypatch.setattr(train_step, "_peak_bytes", lambda step, device: alive.append(models() - before))
    config = train_step.Config(width=2, sizes=(32,), rounds=1, warmup=0, modes=("ours",))
    (row,) = train_step.compare(config, "resnet6", 32, 1, torch.device("cpu"))
    assert row["textbook_over_this"] > 0
    assert alive == [2, 2]  # the original, which stays on the CPU, and the copy that is trained


def test_the_p100s_memory_is_asked_of_a_device_with_a_number(monkeypatch: pytest.MonkeyPatch):
    card = SimpleNamespace(name="NVIDIA H100", total_memory=80e9)
    asked: list[tuple[float, object]] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: asked.append(given))
    assert "H100" in profiles.apply_profile("p100", torch.device("cuda"))["stand_in"]
    assert asked == [(pytest.approx(0.2, rel=0.1), 0)]
