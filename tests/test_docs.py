"""The examples of the README and the documentation run as they stand."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

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
    build_cyclegan,
)
from ganparts.data import sample
from ganparts.interchange import save_pretrained
from ganparts.metrics import FEATURE_EXTRACTORS
from ganparts.registry import Registry
from ganparts.training import parse_options

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    names = {"photos": torch.zeros(1, 3, 256, 256), "paintings": torch.zeros(1, 3, 256, 256)}
    try:
        for block in blocks(page):
            exec(compile(block, page.name, "exec"), names)
        added = set(GENERATORS.names()) - set(known["generator"])
        assert len(added) == (page.name in ("README.md", "adding_a_part.md"))
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
def test_the_readme_lists_every_registered_name(table: Registry[Any]):
    (row,) = re.findall(rf"^\| {plural(table.kind)} \|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", row)) == table.names()


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
        options: Any = parse_options(recipe_options(recipe), description="", arguments=arguments)
        if not options.imports:  # parts that the page defines
            options.settle()


def test_every_option_that_the_training_page_explains_exists():
    known = {
        each.name for recipe in ("cyclegan_monet", "cut_monet", "pix2pix") for each in fields(recipe_options(recipe))
    }
    for option in re.findall(r"`--([a-z][a-z0-9-]+)", (ROOT / "docs" / "training.md").read_text()):
        assert option.replace("-", "_") in known | {"help"}, f"--{option}"
