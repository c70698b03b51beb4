"""The examples of the README and the documentation run as they stand."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
import tyro

from ganparts import (
    ADVERSARIAL_LOSSES,
    AUGMENTATIONS,
    BACKBONES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
    build_cut,
    build_cyclegan,
    build_pix2pix,
    from_pretrained,
)
from ganparts.adversarial import UNSET
from ganparts.data import sample
from ganparts.interchange import export_generator, save_pretrained
from ganparts.metrics import FEATURE_EXTRACTORS
from ganparts.registry import Registry
from ganparts.training import parse_options

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)]
CATALOGUE = ROOT / "docs" / "catalogue" / "index.md"
TABLES: tuple[Registry[Any], ...] = (
    GENERATORS,
    DISCRIMINATORS,
    ADVERSARIAL_LOSSES,
    CONSISTENCY_LOSSES,
    PENALTIES,
    REPLAY_BUFFERS,
    AUGMENTATIONS,
    BACKBONES,
    FEATURE_EXTRACTORS,
    PRESETS,
)


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def plural(kind: str) -> str:
    return re.sub("ys$", "ies", re.sub("sss$", "sses", f"{kind}s"))


@pytest.mark.filterwarnings("ignore::ganparts.metrics.FewImagesWarning")  # of 69 paintings
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "cache"))
    shutil.copy(sample() / "testA" / "pontduGard_0.jpg", "photo.jpg")
    save_pretrained(GENERATORS.create("unet128", width=2), "runs/first/generator")
    torch.save(GENERATORS.create("resnet9", width=2).state_dict(), "latest_net_G_A.pth")
    known = {table.kind: table.names() for table in TABLES}
    if page.name == "export.md":
        export_generator(from_pretrained("monet"), "monet.onnx")
    names: dict[str, Any] = {}
    try:
        for block in blocks(page):
            exec(compile(block, page.name, "exec"), names)
        added = set(GENERATORS.names()) - set(known["generator"])
        assert len(added) == (page.name == "adding_a_part.md")
        for name in added:
            assert build_cyclegan(generator=name)
    finally:
        for table in TABLES:
            for name in set(table.names()) - set(known[table.kind]):
                table.remove(name)
    if page.name == "README.md":
        assert Path("painting.jpg").exists()
        assert names["losses"].keys() >= {"gan_ab", "disc_b"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.kind)
def test_the_catalogue_lists_every_registered_name(table: Registry[Any]):
    (row,) = re.findall(rf"^\| {plural(table.kind)} \|(.*)\|$", CATALOGUE.read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", row)) == table.names()


def test_the_part_of_the_page_trains_keeps_its_contracts_and_loads(tmp_path: Path):
    page = (ROOT / "docs" / "adding_a_part.md").read_text()
    part = blocks(ROOT / "docs" / "adding_a_part.md")[0].partition("model = ")[0]
    (tmp_path / "my_parts.py").write_text(part)
    (command,) = re.findall(r"^PYTHONPATH=\. python (recipes/.*)$", page, re.MULTILINE)
    small = "--device cpu --steps 1 --resize 32 --crop 32 --discriminator pixel --memory fast --paint 0 --out run"
    (tmp_path / "use.py").write_text(
        "import my_parts, torch\n"
        "from ganparts import from_pretrained\n"
        "from ganparts.testing import check_generator\n"
        "check_generator('tint')\n"
        "generator = from_pretrained('run')\n"
        "assert type(generator) is my_parts.Tint\n"
        "assert not torch.equal(generator.color, my_parts.Tint(0.2).color)  # it has learned\n"
    )
    recipe, *given = shlex.split(command)
    for words in ([str(ROOT / recipe), *given, *shlex.split(small)], ["use.py"]):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_counts_the_parts():
    readme = " ".join((ROOT / "README.md").read_text().split())
    for table in (GENERATORS, DISCRIMINATORS, ADVERSARIAL_LOSSES, PENALTIES):
        assert f"{len(table.names())} {plural(table.kind)}" in readme


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            places = (page.parent / target, page.parent / f"{target}.md")
            assert any(place.exists() for place in places), f"{page.name} links to {target}"


def recipe_options(recipe: str) -> type:
    return importlib.import_module(f"recipes.{recipe}").Config


def test_every_recipe_command_in_the_documentation_is_understood():
    commands = [
        (recipe, shlex.split(rest, comments=True))
        for page in PAGES
        for recipe, rest in re.findall(r"^.*python recipes/(\w+)\.py(.*)$", page.read_text(), re.MULTILINE)
    ]
    assert {recipe for recipe, _ in commands} == {"cyclegan_monet", "cut_monet", "pix2pix", "pretrain_inpainting"}
    for recipe, arguments in commands:
        if "--resume" in arguments:  # a run that is not here
            place = arguments.index("--resume")
            del arguments[place : place + 2]
        options: Any = parse_options(recipe_options(recipe), description="", arguments=arguments)
        if not options.imports:  # parts that the page defines
            options.settle()


def test_every_command_in_the_documentation_is_understood():
    functions: dict[str, Callable[..., int]] = {
        name: getattr(importlib.import_module(f"ganparts.cli.{module}"), function)
        for name, module, function in (
            *((name, name, name) for name in ("demo", "doctor", "evaluate", "export", "submission", "translate")),
            *(
                ("import", "import_published", "import_published"),
                ("list", "parts", "list_parts"),
                ("show", "parts", "show"),
            ),
        )
    }
    pages = "\n".join(page.read_text() for page in PAGES)
    fences = "\n".join(re.findall(r"```(?:sh|text)\n(.*?)```", pages, re.DOTALL))
    lines = re.findall(r"^\W?(?:\.venv/bin/)?ganparts ([a-z].*)$", fences, re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines]
    assert {command for command, *_ in commands} == {*functions}
    for command, *arguments in commands:
        taken: dict[str, Any] = {}
        tyro.cli(recording(functions[command], taken), args=arguments)
        assert taken, command


def recording(command: Callable[..., int], taken: dict[str, Any]) -> Callable[..., None]:
    """A function with the options of a command that only writes them down."""

    def record(*_: object, **options: object) -> None:
        taken.update(options or {"none": None})

    hints = get_type_hints(command, include_extras=True)
    options = [each.replace(annotation=hints[name]) for name, each in inspect.signature(command).parameters.items()]
    record.__signature__ = inspect.Signature(options)  # pyright: ignore[reportFunctionMemberAccess]
    record.__annotations__ = hints
    return record


@pytest.mark.parametrize("page", ["training", "howto/own_images", "howto/report", "howto/resume"])
def test_every_option_that_a_page_explains_exists(page: str):
    known = {
        each.name for recipe in ("cyclegan_monet", "cut_monet", "pix2pix") for each in fields(recipe_options(recipe))
    }
    for option in re.findall(r"`--([a-z][a-z0-9-]+)", (ROOT / "docs" / f"{page}.md").read_text()):
        assert option.replace("-", "_") in known | {"help"}, f"--{option}"


@pytest.mark.parametrize(("page", "table"), [("generators", GENERATORS), ("discriminators", DISCRIMINATORS)])
def test_the_catalogue_says_what_each_network_is_good_for(page: str, table: Registry[Any]):
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "catalogue" / f"{page}.md").read_text(), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == table.names()


def extension(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    return importlib.import_module(name)


@pytest.mark.parametrize("build", [build_cyclegan, build_cut, build_pix2pix])
def test_the_reference_says_where_the_preset_chooses(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which the configuration adds
    shorten = runpy.run_path(str(ROOT / "docs" / "conf.py"))["_shorten"]
    (function,) = ast.parse(inspect.getsource(build)).body
    assert isinstance(function, ast.FunctionDef)
    defaults = [ast.unparse(default) for default in (*function.args.defaults, *function.args.kw_defaults) if default]
    signature = "(" + ", ".join(f"name = {default}" for default in defaults) + ")"  # Sphinx takes them from the source
    shown, _ = shorten(None, "function", build.__name__, build, None, signature, "")
    unset = [each for each in inspect.signature(build).parameters.values() if each.default is UNSET]
    assert shown.count("= <the preset's>") == len(unset) > 5


def test_a_networks_picture_shows_its_sizes_and_skips(monkeypatch: pytest.MonkeyPatch):
    structure = extension("structure", monkeypatch)
    with torch.device("meta"):
        network = GENERATORS.create("unet128", width=4)
    seen = structure.structure_of(network, 128)
    sizes = [128, 64, 32, 16, 8, 4, 2, 1, 2, 4, 8, 16, 32, 64, 128]
    assert [(stage.height, stage.width) for stage in seen.stages] == [(size, size) for size in sizes]
    assert [stage.channels for stage in seen.stages[:4]] == [[3], [4], [8], [16]]
    assert seen.skips == [(1, 13), (2, 12), (3, 11), (4, 10), (5, 9), (6, 8)]
    assert seen.outputs == [[3, 128, 128]]
    drawn = structure.drawing(seen, "a U-Net")
    assert drawn.count("<rect") == len(sizes)
    assert drawn.count('class="skip"') == 6


def test_the_catalogue_describes_every_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    catalogue = extension("catalogue", monkeypatch)
    known = {
        "structure": [[[256, 256, [3], 0], [64, 64, [8], 2]], [], [[1, 30, 30]]],
        "parameters": 8705,
        "side": 256,
        "tflop": 0.0011,
        "kept": 2**27,
        "sizes": "any",
        "tileable": None,
        "exportable": None,
        "gives_features": False,
        "independent": True,
    }
    monkeypatch.setattr(catalogue, "_measured", lambda table, name: known)
    facts = catalogue.Facts(tmp_path / "facts.json")
    for kind, table in catalogue.KINDS.items():
        text = catalogue.catalogue(kind, facts)
        assert re.findall(r"^## `(.+)`$", text, re.MULTILINE) == table.names()
        for name in table if kind != "preset" else ():
            section = text.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
            assert all(f"| `{option}` |" in section for option in table.options(name)), name
    assert "| Parameters | 8,705 |" in catalogue.catalogue("discriminator", facts)
    assert catalogue.Facts(tmp_path / "facts.json").known == facts.known  # kept for the next build


def test_the_table_of_fits_is_what_losses_take(monkeypatch: pytest.MonkeyPatch):
    catalogue = extension("catalogue", monkeypatch)
    one, two = torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
    assert catalogue._takes(ADVERSARIAL_LOSSES.create("rsgan"), one)
    assert catalogue._takes(ADVERSARIAL_LOSSES.create("two_objective"), two)
    assert not catalogue._takes(ADVERSARIAL_LOSSES.create("two_objective"), one)


def test_the_notebook_for_kaggle_runs_on_the_sample(tmp_path: Path):
    folder = ROOT / "docs" / "notebooks"
    cells = json.loads((folder / "kaggle.ipynb").read_text())["cells"]
    script = tmp_path / "kaggle.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    own = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stopped by the time limit after step 1 of 3" in done.stdout
    assert "2 paintings" in done.stdout
    (run,) = tmp_path.glob("*/run")
    assert (run.parent / "images.zip").is_file()
    assert re.findall(r"^(\d+),", (run / "losses.csv").read_text(), re.MULTILINE)[-1] == "3"
    assert not any(cell.get("outputs") for cell in cells)
