from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ganparts
from ganparts import GENERATORS

MODULES = ["ganparts", *(m.name for m in pkgutil.walk_packages(ganparts.__path__, "ganparts."))]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_exists_and_is_documented(name: str):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} says nothing of itself"
    assert module.__all__ == sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)), name
    for public in module.__all__:
        thing = getattr(module, public)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("ganparts"):
            assert inspect.getdoc(thing), f"{name}.{public}"
            own = inspect.getdoc(thing) != inspect.getdoc(inspect.getmro(thing)[1]) if inspect.isclass(thing) else True
            assert own, f"{name}.{public} has only its base's words"


def test_the_promised_names_are_there():
    promised = {
        *("build_cyclegan", "CycleGAN", "Pair", "Translation", "LossWeights", "make_optimizers", "train_step"),
        *("build_cut", "CUT", "build_pix2pix", "Pix2Pix"),
        *("GENERATORS", "DISCRIMINATORS", "ADVERSARIAL_LOSSES", "CONSISTENCY_LOSSES", "REPLAY_BUFFERS", "PRESETS"),
        *("PENALTIES", "BACKBONES", "AUGMENTATIONS"),
    }
    assert promised <= set(ganparts.__all__)


def test_every_registered_builder_is_public_and_documented():
    from ganparts import augment, backbones, discriminators, generators, losses, replay

    homes = {
        "generator": generators,
        "discriminator": discriminators,
        "replay buffer": replay,
        "augmentation": augment,
        "consistency loss": losses,
        "adversarial loss": losses,
        "penalty": losses,
        "backbone": backbones,
    }
    renamed = {  # a submodule and a package have these names
        ("penalty", "consistency"): "balanced_consistency",
        ("backbone", "timm"): "timm_model",
    }
    tables = (
        ganparts.GENERATORS,
        ganparts.DISCRIMINATORS,
        ganparts.ADVERSARIAL_LOSSES,
        ganparts.CONSISTENCY_LOSSES,
        ganparts.REPLAY_BUFFERS,
        ganparts.AUGMENTATIONS,
        ganparts.PENALTIES,
        ganparts.BACKBONES,
    )
    for table in tables:
        for name, builder in table.items():
            home, public = homes[table.kind], builder.__name__
            assert public == renamed.get((table.kind, name), name)
            assert public in home.__all__
            assert getattr(home, public) is builder
            assert inspect.getdoc(builder)
            kinds = {p.kind for p in inspect.signature(builder).parameters.values()}
            assert kinds <= {inspect.Parameter.KEYWORD_ONLY}, name


def test_importing_brings_no_heavy_library_and_touches_no_random_state():
    code = (
        "import random, sys, torch; before = torch.get_rng_state(), random.getstate(); import ganparts; "
        "assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate(); "
        "print([m for m in ('torchvision', 'timm', 'tyro', 'rich', 'safetensors', 'numpy.random') "
        "if m in sys.modules and m not in {'numpy.random'}])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [("--help",), ("import", "latest_net_G.pth", "out")])
def test_the_command_starts_without_pytorchs_compiler(arguments: tuple[str, ...], tmp_path: Path):
    torch.save(GENERATORS.create("resnet9", width=2).state_dict(), tmp_path / "latest_net_G.pth")
    code = (
        "import sys, atexit; from ganparts import cli; late = {'torch._dynamo', 'sympy', 'timm', 'gradio', 'ray'}; "
        f"late -= {{'sympy'}} if {torch.__version__.startswith('2.6.')} else set(); "  # which imports it for less
        "atexit.register(lambda: print([name for name in late if name in sys.modules])); cli.main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "[]"


def test_every_module_is_in_the_documentation():
    folder = Path(__file__).parent.parent / "docs" / "reference"
    pages = "".join(page.read_text() for page in folder.glob("*.md"))
    top = {name for name in MODULES if name.count(".") == 1 and "._" not in name}
    assert {name for name in top if f"<!-- reference: {name} -->\n" not in pages} == set()
