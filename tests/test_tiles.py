"""Large pictures in tiles: the untiled result, without a seam, in little memory."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts import GENERATORS
from ganparts.precision import in_precision
from ganparts.translate import TilingError, strips, translate, translate_tiled
from ganparts.translate.tiles import fit

TOLERANCE = 2e-5  # of the range [-1, 1], from the order of sums; measured: 6.2e-6


def lively(network: nn.Module) -> nn.Module:
    """With weights and statistics unlike their first values, so that nothing cancels."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data += 0.05 * torch.rand_like(tensor)
    return network.eval()


def photo(height: int, width: int) -> Tensor:
    """Bright on one side and dark on the other, so that statistics of a part are not those of the whole."""
    return (0.5 * torch.randn(3, height, width) + torch.linspace(-1, 1, height)[:, None]).clamp(-1, 1)


def at_once(network: nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(fit(network, image[None]))[0, :, : image.shape[1], : image.shape[2]]


def tileable(name: str) -> bool:
    with torch.device("meta"):
        return getattr(GENERATORS.create(name, width=2), "tileable", True)


@pytest.mark.parametrize("memory", [None, 0], ids=["memory", "files"])
@pytest.mark.parametrize("name", [*filter(tileable, GENERATORS)])
def test_tiles_equal_the_picture_at_once(name: str, memory: int | None):
    network = lively(GENERATORS.create(name, width=4))
    image = photo(300, 413)
    whole = at_once(network, image)
    assert whole.std() > 0.02
    for tile in (7, 64):
        tiled = translate_tiled(network, image, tile=tile, memory=memory)
        assert (tiled - whole).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["resnet6", "attention_unet256"])
@pytest.mark.parametrize(
    "options",
    [
        {"norm": "batch"},
        {"norm": "group"},
        {"norm": "none"},
        {"upsample": "resize_conv"},
        {"upsample": "bilinear"},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_every_option_of_a_network_is_tiled(name: str, options: dict):
    network = lively(GENERATORS.create(name, width=4, **options))
    image = photo(256, 200)
    assert (translate_tiled(network, image, tile=40) - at_once(network, image)).abs().max() < TOLERANCE


class Odd(nn.Module):
    """Operations that ganparts' own networks do not have."""

    def __init__(self):
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 5, stride=3, padding=(2, 1), dilation=(1, 2))
        self.same = nn.Conv2d(8, 8, (5, 3), padding="same", groups=2)
        self.back = nn.ConvTranspose2d(16, 6, 5, stride=3, padding=1, output_padding=(1, 2), bias=False)
        self.sparse = nn.ConvTranspose2d(6, 3, 1, stride=2)
        self.norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu_(self.norm(self.strided(F.pad(images, (2, 1, 3, 0), "circular"))))
        features = self.same(features) * self.scale
        kept = features
        F.leaky_relu(features, 0.2, inplace=True)  # what was kept is changed, too
        kept = torch.cat([kept.tanh(), 1 - features], 1)
        first, second = self.back(F.silu(kept) - 0.5), self.back(kept / 2)
        features = F.interpolate(-first + second.clamp(-1, 1), scale_factor=(2, 1), mode="bicubic")
        return self.sparse(F.pad(features, (1, 1, 2, 0), value=0.5))


def test_other_operations_are_tiled():
    network = lively(Odd())
    image = photo(91, 64)
    with torch.inference_mode():
        whole = network(image[None])
        plan = strips.Plan(tile=9, memory=1000, device=torch.device("cpu"))
        given = strips.Node(plan, (1, *image.shape), lambda start, stop: image[None, :, start:stop])
        result = network(strips.FeatureMap(given))
        assert result.shape == whole.shape
        plan.run()
        tiled = torch.cat(
            [result.node.rows(start, min(start + 5, whole.shape[2])) for start in range(0, whole.shape[2], 5)], 2
        )
    assert (tiled - whole).abs().max() < TOLERANCE


class Enlarges(nn.Module):
    def __init__(self, **options: Any):
        super().__init__()
        self.options = options

    def forward(self, images: Tensor) -> Tensor:
        features = F.max_pool2d(images, 2)
        return F.interpolate(features, scale_factor=2, **self.options)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_enlarging_with_antialias_is_tiled(mode: str):
    image = photo(40, 44)
    for antialias in (False, True):
        network = Enlarges(mode=mode, antialias=antialias)
        assert (translate_tiled(network, image, tile=7) - at_once(network, image)).abs().max() < TOLERANCE


class Aliased(nn.Module):
    """Another name sees what is done in place."""

    def __init__(self, step: str):
        super().__init__()
        self.conv, self.step = nn.Conv2d(3, 3, 3, padding=1), step

    def forward(self, images: Tensor) -> Tensor:
        features = skip = self.conv(images)
        if self.step == "+":
            features += images
        elif self.step == "-":
            features -= images
        elif self.step == "*":
            features *= images
        else:
            features /= 2 + images
        return torch.tanh(features + skip)


@pytest.mark.parametrize("step", "+-*/")
def test_what_is_done_in_place_is_seen_by_all(step: str):
    network, image = Aliased(step), photo(40, 44)
    assert (translate_tiled(network, image, tile=7) - at_once(network, image)).abs().max() < TOLERANCE


class Computes(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Any]):
        super().__init__()
        self.operation = operation

    def forward(self, images: Tensor) -> Tensor:
        return self.operation(images)


@pytest.mark.parametrize(
    "operation",
    [lambda x: x**2, lambda x: 2**x, lambda x: 1 / x, lambda x: abs(x), lambda x: x * (x > 0), lambda x: x @ x],
)
def test_other_operators_are_refused_with_the_remedy(operation: Callable[[Tensor], Any]):
    with pytest.raises(TilingError, match="make the picture smaller"):
        translate_tiled(Computes(operation), photo(40, 44), tile=7)


def test_no_step_at_the_borders_of_tiles(monkeypatch: pytest.MonkeyPatch):
    """Steps between neighbouring rows at borders are those elsewhere; with statistics of each tile they are not."""
    network = lively(GENERATORS.create("resnet6", width=4))
    rows = torch.linspace(-0.9, 0.9, 256)
    image = (rows[:, None] + 0.3 * torch.sin(torch.arange(256) / 9)).clamp(-1, 1).expand(3, 256, 256).contiguous()
    tile = 64

    def worst(painting: Tensor) -> float:
        steps = (painting[:, 1:] - painting[:, :-1]).abs().mean((0, 2))
        borders = torch.arange(tile - 1, 255, tile)
        elsewhere = torch.ones(255, dtype=torch.bool).index_fill(0, borders, False)
        return float(steps[borders].max() / steps[elsewhere].max())

    assert worst(translate_tiled(network, image, tile=32)) <= 1  # 32^2 pixels: strips of 16 rows and less
    separate = torch.cat([at_once(network, part) for part in image.split(tile, 1)], 1)
    assert worst(separate) > 1.5


def test_large_pictures_go_in_tiles_by_themselves(monkeypatch: pytest.MonkeyPatch):
    network = lively(GENERATORS.create("resnet6", width=2))
    image = photo(64, 100)
    untiled = translate(network, image)
    assert torch.equal(untiled, at_once(network, image))
    sizes = []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(type(inputs[0]).__name__))
    monkeypatch.setattr("ganparts.translate.image.pixels_at_once", lambda device: 64 * 99)
    assert (translate(network, image) - untiled).abs().max() < TOLERANCE
    translate(network, image, tile=0)
    monkeypatch.undo()
    translate(network, image, tile=16)
    assert sizes == ["FeatureMap", "Tensor", "FeatureMap"]
    pixels = image.add(1).mul(127.5).to(torch.uint8)
    as_bytes = [translate(network, pixels, tile=tile, precision="fp32").int() for tile in (0, 16)]
    assert (as_bytes[0] - as_bytes[1]).abs().max() <= 1


class Flips(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.flip(images, (2,))


def test_what_cannot_be_tiled_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image = photo(16, 16)
    remedy = r"make the picture smaller \(--resize\), or give .* in one piece \(tile=0, --tile 0\) if it fits"
    with pytest.raises(TilingError, match="uses 'flip', which cannot be computed a strip at a time: " + remedy):
        translate(Flips(), image, tile=8)
    with pytest.raises(TilingError, match="a function is not a PyTorch module"):
        translate(lambda images: images, image, tile=8)
    with pytest.raises(TilingError, match=r"put it in eval\(\) mode"):
        translate(GENERATORS.create("resnet6", width=2, dropout=0.5).train(), image, tile=8)
    with pytest.raises(ValueError, match="tile=-1 pixels: give the side of a tile, 0 for none"):
        translate(Flips(), image, tile=-1)
    with pytest.raises(ValueError, match="tile=0 pixels: a tile has at least 1"):
        translate_tiled(Flips(), image, tile=0)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(strips, "_bytes", full)
    with pytest.raises(OSError, match="No space left on device: set TMPDIR to a folder with more space"):
        translate_tiled(GENERATORS.create("resnet6", width=2).eval(), image, tile=8, memory=0)


def test_maps_are_let_go_when_they_are_no_longer_needed(monkeypatch: pytest.MonkeyPatch):
    """At most four at a time in a chain of residual blocks, however long."""
    live, most = set(), []
    real = strips._store

    def store(plan: strips.Plan, shape: torch.Size, dtype: torch.dtype):
        kept = real(plan, shape, dtype)
        live.add(id(kept))
        most.append(len(live))
        released = kept.__class__.__del__
        monkeypatch.setattr(kept.__class__, "__del__", lambda self: (live.discard(id(self)), released(self))[0])
        return kept

    monkeypatch.setattr(strips, "_store", store)
    plan_memory = 10**9
    gc.disable()
    try:
        translate_tiled(GENERATORS.create("resnet9", width=2).eval(), photo(64, 64), tile=16, memory=plan_memory)
    finally:
        gc.enable()
    assert len(most) == 24 + 9  # convolutions and sums
    assert max(most) <= 4
    assert not live


@pytest.mark.parametrize("memory", [0, 10**9])
def test_maps_in_bf16_are_kept_in_bf16(memory: int, monkeypatch: pytest.MonkeyPatch):
    network, picture = GENERATORS.create("resnet6", width=4).eval(), photo(64, 48)
    with in_precision("bf16", torch.device("cpu")):
        expected = translate_tiled(network, picture, tile=1000, memory=10**9)  # one strip
    kept, real = [], strips._store

    def store(plan: strips.Plan, shape: torch.Size, dtype: torch.dtype):
        kept.append(dtype)
        return real(plan, shape, dtype)

    monkeypatch.setattr(strips, "_store", store)
    with in_precision("bf16", torch.device("cpu")):
        painting = translate_tiled(network, picture, tile=16, memory=memory)
    assert kept.count(torch.bfloat16) == 18  # convolutions; the sums of blocks are in fp32
    assert (painting.int() - expected.int()).abs().max() <= 2


def test_memory_does_not_grow_with_the_picture():
    """The peak of a process over what it had with a small picture: four times the pixels, the same strips."""
    pytest.importorskip("resource")
    code = (
        "import resource, sys, torch; from ganparts import GENERATORS; from ganparts.translate import translate_tiled\n"
        "torch.set_num_threads(1); network = GENERATORS.create('resnet6', width=16).eval()\n"
        "translate_tiled(network, torch.zeros(3, int(sys.argv[1]), 512, dtype=torch.uint8), tile=64, memory=0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peak = partial(subprocess.run, capture_output=True, text=True, check=True)
    small, large = (int(peak([sys.executable, "-c", code, str(height)]).stdout) for height in (128, 1024))
    full_map = 16 * 1024 * 512 * 4 // 1024  # KiB
    assert large - small < full_map / 2
