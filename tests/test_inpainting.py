"""Inpainting: holes and distortions, the step, its preset, and its recipe, whose run a CycleGAN starts from."""

from __future__ import annotations

import importlib
import json
import math
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Recipe
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from ganparts import GENERATORS, PRESETS, Pair, make_optimizers, train_step
from ganparts.adversarial import memory_need
from ganparts.inpainting import CosineRestarts, Distortion, Holes, Inpainting, build_inpainting
from ganparts.training import run_recipe

tiny = partial(GENERATORS.create, "unet_vit", width=2, blocks=1)


# --- holes and distortions


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    side=st.integers(1, 20),
    fraction=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_holes_are_squares_of_a_grid(height: int, width: int, side: int, fraction: float):
    images = torch.rand(3, 2, height, width)
    holed = Holes(side, fraction)(images)
    black = (holed == -1).all(1, keepdim=True)
    assert torch.equal(holed, torch.where(black, -1.0, images))
    corners = black[:, :, ::side, ::side]
    assert torch.equal(black, corners.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width])
    if fraction in (0.0, 1.0):
        assert black.all() == bool(fraction)


def test_each_square_of_each_image_is_drawn():
    holed = Holes()(torch.zeros(64, 3, 256, 256))[:, 0, ::32, ::32] == -1
    assert holed.float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert len({tuple(map(bool, image.flatten())) for image in holed}) == 64


def test_holes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="side=0: a hole has at least 1 pixel"):
        Holes(side=0)
    with pytest.raises(ValueError, match=r"fraction=1\.1 is not a fraction of the squares"):
        Holes(fraction=1.1)


def test_distortions_stay_within_their_limits():
    images = torch.rand(200, 3, 16, 16) * 2 - 1
    drawn = Distortion().draw(images)
    for values, middle, limit in (
        (drawn.angle_before, 0.0, math.radians(10)),
        (drawn.brightness, 0.0, 0.2),
        (drawn.contrast, 1.0, 0.2),
        (drawn.saturation, 1.0, 0.2),
        (drawn.hue, 0.0, 0.4 * math.pi),
    ):
        assert values.shape == (200,)
        assert (values - middle).abs().max() <= limit * (1 + 1e-6)
        assert (values - middle).max() > 0.9 * limit
        assert (values - middle).min() < -0.9 * limit
    torch.testing.assert_close(Distortion(0.0, 0.0)(images), images, rtol=0, atol=1e-6)
    changed = Distortion()(images)
    assert changed.shape == images.shape
    assert changed.abs().max() <= 1
    assert ((changed - images).abs().flatten(1).mean(1) > 0.01).all()
    assert Distortion()(torch.empty(2, 3, 8, 8, device="meta")).device.type == "meta"


# --- the step


class Fixed:
    """Holes that are the same in every step."""

    side, fraction = 4, 0.5

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        holes = (torch.arange(images.shape[3]) // 4 % 2 == 0).expand_as(images)
        return images.masked_fill(holes, -1.0)


@pytest.mark.parametrize("low_memory", [False, True])
def test_steps_are_adamws_on_the_mean_difference(low_memory: bool):
    preset = PRESETS.create("inpainting")
    model = Inpainting(generator=tiny(), loss=nn.L1Loss(), holes=Fixed()).double()  # pyright: ignore[reportArgumentType]
    oracle = deepcopy(model.generator)
    optimizers = make_optimizers(model, **preset.optimizer_numbers())
    book = torch.optim.AdamW(oracle.parameters(), lr=3.125e-4, betas=(0.9, 0.99), weight_decay=0.05)
    for _ in range(3):
        batch = Pair(*(torch.rand(2, 2, 3, 32, 32, dtype=torch.float64) * 2 - 1))
        losses = train_step(model, batch, optimizers, low_memory=low_memory)
        whole = torch.cat(list(batch))
        expected = (oracle(Fixed()(whole)) - whole).abs().mean()
        book.zero_grad()
        expected.backward()
        book.step()
        assert list(losses) == ["inpainting"]
        torch.testing.assert_close(losses["inpainting"], expected.detach(), rtol=1e-9, atol=0)
    for name, parameter in model.generator.named_parameters():
        torch.testing.assert_close(parameter, oracle.get_parameter(name), rtol=1e-6, atol=1e-8, msg=name)


def test_domains_may_differ_in_number_but_not_in_size():
    losses = []
    for low_memory in (False, True):
        torch.manual_seed(0)
        model = build_inpainting(generator=partial(GENERATORS.create, "resnet6", width=2), holes=Holes(8, 0.5))
        torch.manual_seed(1)
        pair = Pair(torch.rand(1, 3, 32, 32), torch.rand(2, 3, 32, 32))
        losses.append(train_step(model, pair, make_optimizers(model), low_memory=low_memory)["inpainting"])
    torch.testing.assert_close(*losses)
    with pytest.raises(ValueError, match=r"images of a have the shape \[1, 3, 32, 32\] and those of b"):
        train_step(model, Pair(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 16)), make_optimizers(model))


def test_what_it_learns_is_the_distorted_image_without_holes():
    seen: dict[str, torch.Tensor] = {}

    class Loss(nn.Module):
        def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            seen.update(prediction=prediction, target=target)
            return (prediction - target).abs().mean()

    class Copy(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            seen["given"] = input
            return super().forward(input)

    model = build_inpainting(generator=Copy(3, 3, 1), loss=Loss(), holes=Holes(8, 0.5))
    assert isinstance(model.distortion, Distortion)
    batch = Pair(*(torch.rand(2, 4, 3, 32, 32) * 2 - 1))
    train_step(model, batch, make_optimizers(model))
    assert seen["target"].shape == (8, 3, 32, 32)
    assert not torch.allclose(seen["target"], torch.cat(list(batch)), atol=0.01)
    holes = (seen["given"] == -1).all(1, keepdim=True)
    assert 0.2 < holes.float().mean() < 0.8
    assert torch.equal(seen["given"], torch.where(holes, -1.0, seen["target"]))


def test_it_runs_without_data_and_its_memory_is_estimated():
    with torch.device("meta"):
        model = build_inpainting(generator=tiny)
    optimizers = make_optimizers(model, **PRESETS.create("inpainting").optimizer_numbers())
    losses = train_step(model, Pair(*torch.empty(2, 1, 3, 64, 64, device="meta")), optimizers)
    assert losses["inpainting"].device.type == "meta"
    make: Callable[[int], Any] = lambda size: Pair(*torch.rand(2, size, 3, 64, 64))  # noqa: E731
    fast, low = (memory_need(build_inpainting(generator=tiny), make, level=level) for level in ("fast", "low"))
    assert low.per_pair < 0.8 * fast.per_pair


# --- the preset


def test_the_preset_number_by_number():
    preset = PRESETS.create("inpainting")
    with torch.device("meta"):
        model = build_inpainting()
    assert sum(parameter.numel() for parameter in model.generator.parameters()) == 32_192_231
    assert isinstance(model.loss, nn.L1Loss)
    assert (model.holes, model.distortion) == (Holes(side=32, fraction=0.4), Distortion(degrees=10.0, colour=0.2))
    assert 2 * preset.batch_size == 32  # both domains together
    assert preset.learning_rate == 32 * 5e-3 / 512
    assert (preset.epochs, preset.epoch_steps(7038)) == (500, 32 * 1024 // 32)
    assert preset.framing() == {"resize": 256, "crop": 256, "flip": True, "squash": False}
    optimizer = make_optimizers(build_inpainting(generator=tiny), **preset.optimizer_numbers())["generators"]
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.AdamW
    assert (group["lr"], group["betas"], group["weight_decay"]) == (32 * 5e-3 / 512, (0.9, 0.99), 0.05)
    assert preset.schedule == CosineRestarts(period=100, epochs=500, least=1e-5)


def test_restarts_are_pytorchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=4, eta_min=2e-5)
    schedule = CosineRestarts(period=4, epochs=10)
    for epoch in range(10):
        for step in (3 * epoch, 3 * epoch + 2):  # constant within an epoch of 3 steps
            assert 2 * schedule(step, 30) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()
    with pytest.raises(ValueError, match="step 30 is not in a run of 30 steps"):
        schedule(30, 30)


# --- the recipe


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder in ("trainA", "trainB"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(2):
            Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "data" / folder / f"{number}.png")
    return tmp_path / "data"


def pretrain(*arguments: object) -> int:
    module = importlib.import_module("recipes.pretrain_inpainting")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return run_recipe(module.train, module.Config, description="", arguments=list(map(str, arguments)))


def test_a_cyclegan_starts_from_a_generator_that_fills_holes(
    tmp_path: Path, data: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
):
    network = ("--generator", "unet_vit(blocks=1)", "--width", 2, "--crop", 32, "--device", "cpu", "--log-every", 1)
    first = tmp_path / "first"
    options = (*network, "--data", data, "--batch-size", 2, "--ema-decay", 0.9)
    assert pretrain(*options, "--steps", 2, "--out", first) == 0
    said = capsys.readouterr().out
    assert "unet_vit(width=2, blocks=1), 32 px, batches of 2 images of each domain" in said
    assert f"To go on from it, with the same generator: --init {first} {first}" in said
    config = json.loads((first / "config.json").read_text())
    assert config["parts"]["holes"] == "Holes(side=32, fraction=0.4)"
    assert config["settled"]["weight_decay"] == 0.05
    assert config["settled"]["learning_rate"] == 4 * 5e-3 / 512  # of 4 images
    rows = (first / "losses.csv").read_text().splitlines()
    assert {"step", "inpainting", "grad_norm_generator"} <= set(rows[0].split(","))
    assert len(rows) == 3
    trained = load_file(first / "generator" / "model.safetensors")

    second = tmp_path / "second"
    recipe(
        *network,
        *("--preset", "uvcgan2", "--discriminator", "patchgan", "--penalty", "none", "--data", data),
        *("--init", first, first, "--steps", 1, "--learning-rate", 1e-12, "--paint", 1, "--out", second),
    )
    for folder in ("generator", "generator_ba"):
        started = load_file(second / folder / "model.safetensors")
        assert started.keys() == trained.keys()
        for name, value in trained.items():
            torch.testing.assert_close(started[name], value, rtol=1e-5, atol=1e-7, msg=name)
