"""pix2pix against a textbook step."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.textbook_cut import textbook_pix2pix_step
from ganparts import DISCRIMINATORS, GENERATORS, PRESETS, Pair, build_pix2pix, make_optimizers, train_step
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import UNetGenerator
from ganparts.training.app import run_recipe
from recipes import pix2pix as recipe

SMALL: dict[str, Any] = {"generator": partial(GENERATORS.create, "resnet6", width=4, norm="batch")}


def test_the_preset_is_the_papers():
    with torch.device("meta"):
        model = build_pix2pix()
        assert list(model.stages()) == list(model.networks()["generators"]) == ["generator"]
    assert isinstance(model.generator, UNetGenerator)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.generator.modules())
    assert sum(isinstance(layer, nn.Dropout) for layer in model.generator.modules()) == 3
    assert sum(p.numel() for p in model.generator.parameters()) == 54_414_531
    assert isinstance(model.discriminator, PatchGAN)
    assert sum(p.numel() for p in model.discriminator.parameters()) == 2_768_705
    assert model.discriminator.in_channels == 6
    preset = PRESETS.create("pix2pix")
    numbers = (
        preset.adversarial,
        preset.reconstruction,
        preset.reconstruction_weight,
        preset.epochs,
        preset.batch_size,
    )
    assert numbers == ("bce", "l1", 100.0, 200, 1)
    assert (preset.resize, preset.crop, preset.flip) == (286, 256, True)


@pytest.mark.parametrize("adversarial", ["bce", "lsgan", "hinge"])
def test_three_steps_equal_the_textbooks(adversarial: str):
    model = build_pix2pix(**SMALL, adversarial=adversarial).double()
    twin = copy.deepcopy(model)
    ours, theirs = make_optimizers(model), make_optimizers(twin)
    for _ in range(3):
        pair = Pair(*torch.rand(2, 2, 3, 32, 32, dtype=torch.float64) * 2 - 1)
        losses, expected = train_step(model, pair, ours), textbook_pix2pix_step(twin, pair, theirs)
        assert losses.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value, rtol=1e-10, atol=1e-12)
    for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9, msg=name)


def test_several_critics_see_both_images_whatever_way_they_were_chosen():
    choices = ["pixel", partial(DISCRIMINATORS.create, "patchgan", width=4), PatchGAN(6, width=4)]
    model = build_pix2pix(**SMALL, discriminator=choices, adversarial=["lsgan", "hinge", "bce"])
    pixel, patch, ready = (critic.discriminator for critic in model.critics)
    assert isinstance(pixel, PixelDiscriminator)
    assert pixel.in_channels == patch.in_channels == 6
    assert ready is choices[2]
    losses = train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), make_optimizers(model))
    assert {"gan", "gan_0", "gan_2", "disc", "disc_1", "reconstruction"} <= losses.keys()
    torch.testing.assert_close(losses["disc"], losses["disc_0"] + losses["disc_1"] + losses["disc_2"])


def test_a_step_asks_nothing_of_the_device_and_counts_its_operations():
    with torch.device("meta"):
        model = build_pix2pix()
    pair, optimizers = Pair(*torch.empty(2, 1, 3, 256, 256, device="meta")), make_optimizers(model)
    with FlopCounterMode(display=False) as counter:
        train_step(model, pair, optimizers)
    assert counter.get_total_flops() / 1e12 <= 1.0001 * 0.08694  # the textbook's step takes as much


def test_a_batch_is_aligned_and_a_weight_is_no_debt():
    model = build_pix2pix(**SMALL)
    for shape in ((2, 3, 32, 32), (1, 3, 32, 48)):
        with pytest.raises(ValueError, match=r"images of a have the shape .*: give equally many, all of one height"):
            train_step(model, Pair(torch.rand(1, 3, 32, 32), torch.rand(shape)), make_optimizers(model))
    with pytest.raises(ValueError, match=r"^reconstruction_weight=-1.0: give a number from 0 on$"):
        build_pix2pix(**SMALL, reconstruction_weight=-1.0)


def test_the_recipe_keeps_no_larger_images_for_scores_than_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "train").mkdir()
    for number in range(2):
        Image.new("RGB", (1800, 700) if number else (600, 200), (number, 0, 0)).save(
            tmp_path / "train" / f"{number}.png"
        )
    kept: list[list[Any]] = []

    def evaluator(real: list[Any], *, photos: list[Any], **_: Any) -> None:
        kept.extend((real, photos))
        raise OSError("that is all")

    monkeypatch.setattr(recipe, "Evaluator", evaluator)
    small = ("--generator", "resnet6", "--discriminator", "pixel", "--width", "2", "--crop", "16", "--memory", "fast")
    given = (*small, "--steps", "1", "--evaluate-every", "1", "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    assert run_recipe(recipe.train, recipe.Config, description="", arguments=list(given)) == 1
    assert [[tuple(image.shape) for image in images] for images in kept] == [[(3, 200, 300), (3, 512, 512)]] * 2
