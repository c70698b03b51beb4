"""The examples of the README and the documentation run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from ganparts import GENERATORS, build_cyclegan
from ganparts.data import sample
from ganparts.interchange import save_pretrained

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "cache"))
    shutil.copy(sample() / "testA" / "pontduGard_0.jpg", "photo.jpg")
    save_pretrained(GENERATORS.create("unet128", width=2), "runs/first/generator")
    torch.save(GENERATORS.create("resnet9", width=2).state_dict(), "latest_net_G_A.pth")
    known = GENERATORS.names()
    names = {"photos": torch.zeros(1, 3, 256, 256), "paintings": torch.zeros(1, 3, 256, 256)}
    try:
        for block in blocks(page):
            exec(compile(block, page.name, "exec"), names)
        (added,) = set(GENERATORS.names()) - set(known)
        assert build_cyclegan(generator=added)
    finally:
        for name in set(GENERATORS.names()) - set(known):
            GENERATORS.remove(name)
    if page.name == "README.md":
        assert Path("painting.jpg").exists()
        assert names["losses"].keys() >= {"gan_ab", "disc_b"}


def test_the_readme_lists_every_registered_name():
    from ganparts import ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES, DISCRIMINATORS, PRESETS, REPLAY_BUFFERS
    from ganparts.metrics import FEATURE_EXTRACTORS

    text = (ROOT / "README.md").read_text()
    networks = (GENERATORS, DISCRIMINATORS, FEATURE_EXTRACTORS)
    for table in (*networks, ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES, REPLAY_BUFFERS, PRESETS):
        (row,) = re.findall(rf"^\| {table.kind}(?:e?s) \|(.*)\|$".replace("losss", "losses"), text, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(table)
