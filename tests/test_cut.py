"""CUT and FastCUT against the published implementation's numbers."""

from __future__ import annotations

import re
from functools import partial

import pytest
from golden_files import about, golden_names, part_of, read
from torch import Tensor

from ganparts import DISCRIMINATORS, GENERATORS, Pair, build_cut, make_optimizers, train_step
from ganparts.generators import AntialiasedResNetGenerator

TRAJECTORIES = golden_names("cut_train*") + golden_names("fastcut_train*")


def _built_from_file(name: str):
    """The model that a file's weights and settings describe, in float64, with those weights."""
    golden, args = read(name), about(name)["args"]
    fast = "CUT_mode FastCUT" in args

    def numbers(setting: str) -> list[int]:
        found = re.search(rf"{setting} (\d+(?:,\d+)*)", args)
        assert found
        return list(map(int, found[1].split(",")))

    generator, discriminator, projector = (part_of(golden, f"{letter}.") for letter in "GDF")
    blocks = len({key.split(".")[1] for key in generator if ".conv_block." in key})
    model = build_cut(
        "fastcut" if fast else "cut",
        generator=partial(AntialiasedResNetGenerator, width=len(generator["model.1.weight"]), blocks=blocks),
        discriminator=partial(DISCRIMINATORS.create, "patchgan_antialias", width=len(discriminator["model.0.weight"])),
        layers=numbers("layers"),
        patches=numbers("num_patches")[0],
        projector_width=len(projector["mlp_0.0.bias"]),
    ).double()
    model.generator.load_state_dict(generator)
    model.discriminator.load_state_dict(discriminator)
    model.projector.load_state_dict(projector)
    return golden, model


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_golden_training_steps(name: str, low_memory: bool, monkeypatch: pytest.MonkeyPatch):
    golden, model = _built_from_file(name)
    optimizers = make_optimizers(model)
    drawn: list[list[Tensor]] = []
    monkeypatch.setattr(model, "draw_positions", lambda features: drawn.pop(0))
    halves = 0.5 if model.nce_identity else 1.0
    for step, images in enumerate(zip(golden["real_A"], golden["real_B"], strict=True)):
        drawn[:] = [_positions(golden, step, letter) for letter in ("A", "B") if f"ids.{step}.{letter}.0" in golden]
        if low_memory:
            drawn.reverse()  # the identity term comes first
        if model.flip_equivariance:
            flip = golden["flips"][step].bool()
            monkeypatch.setattr(model, "draw_flip", lambda images, flip=flip: flip)
        losses = train_step(model, Pair(*images), optimizers, low_memory=low_memory)
        expected = {"gan": golden["loss.G_GAN"][step], "nce": halves * golden["loss.NCE"][step]}
        expected["disc"] = golden["loss.D"][step]
        if model.nce_identity:
            expected["nce_identity"] = halves * golden["loss.NCE_Y"][step]
        assert losses.keys() == expected.keys()
        for key, value in expected.items():
            assert abs(losses[key] - value) <= 1e-9 * abs(value), (step, key)
    for letter, network in (("G", model.generator), ("D", model.discriminator), ("F", model.projector)):
        for key, (total, size) in part_of(golden, f"final.{letter}.").items():
            tensor = network.state_dict()[key]
            assert abs(tensor.sum() - total) <= 1e-7 * max(size, 1e-12), (letter, key)
            assert abs(tensor.abs().sum() - size) <= 1e-7 * max(size, 1e-12), (letter, key)


def _positions(golden: dict[str, Tensor], step: int, letter: str) -> list[Tensor]:
    found = part_of(golden, f"ids.{step}.{letter}.")
    return [found[key] for key in sorted(found, key=int)]


def test_a_generator_without_features_is_refused_by_name():
    with pytest.raises(TypeError, match="a UNetGenerator gives none"):
        build_cut(generator=partial(GENERATORS.create, "unet128", width=2))
    with pytest.raises(TypeError, match=r"build_cut takes one of the presets cut, .*fastcut.*, but was given 'paper'"):
        build_cut("paper")
