"""Perceptual losses: the published formula's numbers, plain forms of them, and what they keep."""

from __future__ import annotations

import copy
import importlib.util
from functools import partial
from pathlib import Path

import pytest
import torch
from golden_files import golden_names, part_of, read, relative_error

from ganparts import BACKBONES, CONSISTENCY_LOSSES
from ganparts.backbones import UnavailableError
from ganparts.losses import feature_distance, lpips_distance

RANDOM = partial(BACKBONES.create, "efficientnet_lite0", weights="random")
BUILDERS = {
    "features": partial(CONSISTENCY_LOSSES.create, "features", backbone=RANDOM),
    "lpips": partial(CONSISTENCY_LOSSES.create, "lpips", trunk_weights="random", weights="random"),
}


@pytest.mark.parametrize("name", golden_names("lpips_alex*"))
def test_lpips_is_the_sources_golden(name: str):
    golden = read(name)
    count = len(part_of(golden, "lin."))
    first, second, weights = (
        [golden[f"{kind}.{layer}"] for layer in range(count)] for kind in ("feature0", "feature1", "lin")
    )
    for layer in range(count):
        value = lpips_distance(first[layer : layer + 1], second[layer : layer + 1], weights[layer : layer + 1])
        assert relative_error(value, golden[f"layer.{layer}"]) < 1e-9
    inputs = [[feature.clone().requires_grad_() for feature in maps] for maps in (first, second)]
    distance = lpips_distance(*inputs, weights)
    assert relative_error(distance, golden["lpips"]) < 1e-9
    distance.sum().backward()
    for layer, feature in enumerate(inputs[1]):
        assert feature.grad is not None
        total, absolute = golden[f"grad.feature1.{layer}"]
        assert abs(feature.grad.sum() - total) <= 1e-9 * absolute
        assert abs(feature.grad.abs().sum() - absolute) <= 1e-9 * absolute
    assert all(feature.grad is not None and feature.grad.abs().max() < 1e3 for feature in inputs[0])


def test_feature_distance_is_relative_to_each_image():
    torch.manual_seed(0)
    target = [torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 5, 4, 4, dtype=torch.float64)]
    prediction = [torch.randn_like(feature) for feature in target]
    expected = sum(
        ((p - t) ** 2).sum() / (t**2).sum() / 4
        for ps, ts in zip(prediction, target, strict=True)
        for p, t in zip(ps, ts, strict=True)
    )
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(feature_distance(prediction, target), expected, rtol=1e-12, atol=0)
    scale = torch.tensor([1.0, 1000.0], dtype=torch.float64)[:, None, None, None]
    scaled = feature_distance([scale * p for p in prediction], [scale * t for t in target])
    torch.testing.assert_close(scaled, expected, rtol=1e-12, atol=0)
    assert feature_distance([torch.zeros(1, 2, 2, 2)], [torch.zeros(1, 2, 2, 2)]) == 0
    assert feature_distance([torch.full((1, 2, 2, 2), 300.0).half()], [torch.ones(1, 2, 2, 2).half()]) == 299**2


@pytest.mark.parametrize("name", BUILDERS)
def test_perceptual_loss_contract(name: str):
    state = torch.get_rng_state()
    loss = BUILDERS[name]()
    assert torch.equal(torch.get_rng_state(), state)
    target = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    prediction = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    value = loss(prediction, target)
    assert value.shape == ()
    assert value > 0
    value.backward()
    assert target.grad is None
    assert prediction.grad is not None
    assert prediction.grad.abs().sum() > 0
    assert loss(target, target) == 0
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    assert copy.deepcopy(loss).backbone is loss.backbone
    assert loss.double()(prediction.double(), target.double()).item() == pytest.approx(value.item(), rel=1e-3)
    with torch.device("meta"):
        assert BUILDERS[name]()(torch.empty(1, 3, 64, 64), torch.empty(1, 3, 64, 64)).shape == ()


def test_the_feature_loss_compares_the_strides_asked_for():
    images = [torch.rand(1, 3, 64, 64) for _ in range(2)]
    backbone = RANDOM()
    first, second = (backbone(image) for image in images)
    assert torch.equal(BUILDERS["features"]()(*images), feature_distance(first[1:], second[1:]))
    assert torch.equal(BUILDERS["features"](strides=[4])(*images), feature_distance(first[:1], second[:1]))
    for strides in ([2, 8], []):
        with pytest.raises(ValueError, match=r"feature maps of the strides \[4, 8, 16, 32\]; choose from them"):
            BUILDERS["features"](strides=strides)


@pytest.mark.parametrize(("trunk", "name"), [("alexnet", "alex"), ("vgg16", "vgg")])
def test_lpips_takes_the_published_file(trunk: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    channels = BACKBONES.create(trunk, weights="random").channels
    held = {f"lin{layer}.model.1.weight": torch.rand(1, count, 1, 1) for layer, count in enumerate(channels)}
    torch.save(held, tmp_path / "lpips.pth")
    build = partial(CONSISTENCY_LOSSES.create, "lpips", trunk=trunk, trunk_weights="random")
    images = [torch.rand(2, 3, 64, 64) for _ in range(2)]
    loss = build(weights=tmp_path / "lpips.pth")
    expected = lpips_distance(*(loss.backbone(image) for image in images), [w.flatten() for w in held.values()])
    torch.testing.assert_close(loss(*images), expected.mean())
    found = importlib.util.find_spec("torchmetrics")
    if found is not None:
        published = Path(found.origin or "").parent / "functional" / "image" / "lpips_models" / f"{name}.pth"
        weight = torch.load(published, map_location="cpu", weights_only=True)["lin0.model.1.weight"]
        assert torch.equal(build().weight_0, weight.flatten())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=rf"own weights {name}\.pth are not here: give their file"):
        build()


@pytest.mark.parametrize(("trunk", "least"), [("alexnet", 31), ("vgg16", 16)])
def test_images_too_small_for_a_trunk_are_refused(trunk: str, least: int):
    backbone = BACKBONES.create(trunk, weights="random")
    assert backbone(torch.zeros(1, 3, least, least + 3))[-1].numel() > 0
    said = f"^images of {least + 3}x{least - 1} are too small for this trunk: give at least {least}"
    with pytest.raises(ValueError, match=said):
        backbone(torch.zeros(1, 3, least + 3, least - 1))


def test_wrong_weights_of_lpips_are_refused(tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"there is no file of weights .*lost\.pth"):
        CONSISTENCY_LOSSES.create("lpips", trunk_weights="random", weights=tmp_path / "lost.pth")
    for held in ({"other": torch.zeros(1)}, {f"lin{i}.model.1.weight": torch.zeros(1, 3, 1, 1) for i in range(5)}):
        torch.save(held, tmp_path / "other.pth")
        with pytest.raises(UnavailableError, match=r"other\.pth does not hold the weights of 'lpips of alexnet'"):
            CONSISTENCY_LOSSES.create("lpips", trunk_weights="random", weights=tmp_path / "other.pth")
    with pytest.raises(ValueError, match="trunk='vgg' is not known: use one of 'alexnet', 'vgg16'"):
        CONSISTENCY_LOSSES.create("lpips", trunk="vgg")
