from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import settings

from ganparts.adversarial import MemoryNeed, MemoryPlan
from ganparts.training import Loop, run_recipe

settings.register_profile("ganparts", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ganparts")
torch.set_num_threads(1)  # the tests run in parallel, and their tensors are small


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for programs."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, as Debian and others package it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs the browser chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Recipe:
    """Runs recipes/cyclegan_monet.py in this process, with the preset "paper" if none is named.

    The memory estimate is left out: it would take most of so small a run.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self.monkeypatch, self.capsys, self.module = monkeypatch, capsys, _recipe()
        plan = MemoryPlan("fast", MemoryNeed(2.0**20, 2.0**20))
        monkeypatch.setattr("ganparts.training.planning.plan_memory", lambda *_, **__: plan)

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """What it says; it must end with this code."""
        self.capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                words = list(map(str, arguments))
                cyclegan = self.module.__name__ == "cyclegan_monet"
                if cyclegan and not {"--preset", "--resume", "--help"} & set(words):
                    words += ["--preset", "paper"]
                ended = run_recipe(self.module.train, self.module.Config, description="", arguments=words)
            except SystemExit as stop:
                ended = stop.code
        out, err = self.capsys.readouterr()
        assert ended == code, out + err
        return out + err

    def during(self, step: int, act: Callable[[], object]) -> None:
        """Do something in the middle of a step, counted from 0, of all runs to come."""
        once = Loop._train_once

        def train_once(loop: Loop, batch: Any, number: int) -> dict[str, torch.Tensor]:
            if number == step:
                act()
            return once(loop, batch, number)

        self.monkeypatch.setattr(Loop, "_train_once", train_once)

    def killed(self, step: int, *arguments: object) -> None:
        """A run that is killed in a step, counted from 0."""
        with pytest.MonkeyPatch.context() as here:
            monkeypatch, self.monkeypatch = self.monkeypatch, here
            try:
                self.during(step, _kill)
                with pytest.raises(_Killed):
                    self(*arguments)
            finally:
                self.monkeypatch = monkeypatch

    def killed_in(self, method: str, call: int, *arguments: object) -> None:
        """A run that is killed in a call of a method of the loop, counted from 0."""
        calls = iter(range(call + 1))
        original = getattr(Loop, method)

        def called(loop: Loop, *given: Any, **options: Any) -> Any:
            if next(calls) == call:
                _kill()
            return original(loop, *given, **options)

        with pytest.MonkeyPatch.context() as here:
            here.setattr(Loop, method, called)
            with pytest.raises(_Killed):
                self(*arguments)


class _Killed(BaseException):
    """Nobody catches it, so that nothing more is saved."""


def _kill() -> None:
    raise _Killed


@cache
def _recipe() -> ModuleType:
    path = Path(__file__).parent.parent / "recipes" / "cyclegan_monet.py"
    spec = importlib.util.spec_from_file_location("cyclegan_monet", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["cyclegan_monet"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Recipe:
    return Recipe(monkeypatch, capsys)
