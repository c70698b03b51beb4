"""Which processors compute in bf16, and what keeps fp32."""

import platform
import zipfile

import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import to_pil_image

import ganparts.precision
from ganparts import GENERATORS
from ganparts.backbones import Backbone
from ganparts.generators import ResNetGenerator
from ganparts.metrics.features import Batch, paint_batches
from ganparts.precision import choose_inference, infer, native_bf16
from ganparts.translate import translate, translate_files, translate_to_zip


@pytest.mark.parametrize(
    ("machine", "tiles", "avx512", "arm", "expected"),
    [
        ("x86_64", False, False, True, None),
        ("x86_64", False, True, False, "AVX512-BF16"),
        ("x86_64", True, True, False, "AMX"),
        ("aarch64", False, False, True, "Arm BF16"),
        ("arm64", True, True, False, None),
    ],
)
def test_the_instructions_for_bf16_are_found(monkeypatch, machine, tiles, avx512, arm, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: arm)
    assert native_bf16() == expected


def test_a_pytorch_for_arm_without_onednn_has_no_bf16(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", raising=False)
    assert native_bf16() is None


def test_this_machine_can_be_asked():
    assert native_bf16() in (None, "AMX", "AVX512-BF16", "Arm BF16")


class Maps(nn.Sequential):
    def forward(self, images):
        return (super().forward(images),)


@pytest.mark.parametrize(("groups", "dtype"), [(1, torch.bfloat16), (3, torch.float32)])
def test_a_frozen_network_with_depthwise_convolutions_stays_in_fp32_on_a_cpu(groups, dtype):
    backbone = Backbone(Maps(nn.Conv2d(3, 6, 3, padding=1, groups=groups)), channels=[6], strides=[1])
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (features,) = backbone(images)
        assert features.dtype == dtype
        assert backbone.pooled(images).dtype == dtype
    features.sum().backward()
    assert images.grad is not None
    assert images.grad.dtype == torch.float32


def depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6))


@pytest.mark.parametrize(
    ("network", "wish", "native", "expected"),
    [
        (nn.Conv2d(3, 3, 1), "auto", "AMX", "bf16"),
        (nn.Conv2d(3, 3, 1), "auto", None, "fp32"),
        (nn.Conv2d(3, 3, 1), "fp32", "AMX", "fp32"),
        (nn.Conv2d(3, 3, 1), "bf16", None, "bf16"),
        (depthwise(), "auto", "AMX", "fp32"),
        (depthwise(), "bf16", "AMX", "bf16"),
        (nn.Conv2d(3, 3, 1).double(), "auto", "AMX", "own"),
        (nn.Conv2d(3, 3, 1).half(), "fp32", "AMX", "own"),
        (nn.Conv2d(3, 3, 1, device="meta"), "auto", "AMX", "fp32"),
        (nn.Identity(), "auto", "AMX", "own"),
        (torch.neg, "auto", "AMX", "own"),
    ],
)
def test_a_network_translates_in_the_precision_that_suits_it_and_the_cpu(monkeypatch, network, wish, native, expected):
    monkeypatch.setattr(ganparts.precision, "native_bf16", lambda: native)
    precision, reason = choose_inference(network, wish)
    assert precision == expected
    assert reason


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"^precision='fp8': give 'auto', 'fp32' or 'bf16'$"):
        translate(ResNetGenerator(width=2, blocks=1).eval(), torch.zeros(3, 8, 8), precision="fp8")  # pyright: ignore


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (torch.neg, r"^precision='bf16': a \w+ has no weights in fp32: leave it out$"),
        (nn.Conv2d(3, 3, 1).half(), r"^precision='bf16': a Conv2d has no weights in fp32"),
        (nn.Conv2d(3, 3, 1, device="meta"), r"^precision='bf16' is not possible on meta: leave it out$"),
    ],
)
def test_bf16_is_refused_where_it_is_not_possible(network, message: str):
    with pytest.raises(ValueError, match=message):
        choose_inference(network, "bf16")


def psnr(image: torch.Tensor, other: torch.Tensor, span: float) -> float:
    return (10 * torch.log10(span**2 / (image.double() - other.double()).square().mean())).item()


@pytest.mark.parametrize("tile", [0, 16])
def test_pictures_of_bytes_are_translated_in_bf16_and_look_the_same(monkeypatch, tile):
    torch.manual_seed(0)
    generator = ResNetGenerator(width=8, blocks=2).eval()
    for parameter in generator.parameters():
        parameter.data.mul_(3.0)  # far from grey
    picture = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    monkeypatch.setattr(ganparts.precision, "native_bf16", lambda: None)
    exact = translate(generator, picture, tile=tile)
    assert exact.float().std() > 20
    monkeypatch.setattr(ganparts.precision, "native_bf16", lambda: "AMX")
    rounded = translate(generator, picture, tile=tile)
    assert not torch.equal(rounded, exact)
    assert psnr(rounded, exact, 255) > 40
    assert torch.equal(translate(generator, picture, tile=tile, precision="fp32"), exact)
    floats = picture / 127.5 - 1
    plain = translate(generator, floats, tile=tile)
    assert torch.equal(plain, translate(generator, floats, tile=tile, precision="fp32"))
    assert not torch.equal(plain, translate(generator, floats, tile=tile, precision="bf16"))


@pytest.mark.parametrize("name", sorted(set(GENERATORS) - {"timm_unet"}))  # it has depthwise convolutions
def test_every_generator_looks_the_same_in_bf16(name):
    torch.manual_seed(0)
    size = 256 if "256" in name else 128
    generator = GENERATORS.create(name).eval()
    for parameter in generator.parameters():
        if not parameter.any():  # by which some begin as the identity
            nn.init.normal_(parameter, std=0.02)
    images = torch.rand(1, 3, size, size) * 2 - 1
    with torch.inference_mode():
        exact, rounded = (infer(generator, images, precision) for precision in ("fp32", "bf16"))
    assert not torch.equal(rounded, exact)
    assert psnr(rounded, exact, 2) > 40


@pytest.mark.parametrize("way", ["files", "zip"])
def test_every_way_of_translating_takes_the_precision(monkeypatch, tmp_path, way: str):
    torch.manual_seed(0)
    generator = ResNetGenerator(width=8, blocks=2).eval()
    for parameter in generator.parameters():
        parameter.data.mul_(3.0)
    picture = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    to_pil_image(picture).save(tmp_path / "photo.png")
    written = {}
    for native, precision in ((None, "auto"), ("AMX", "auto"), ("AMX", "fp32")):
        monkeypatch.setattr(ganparts.precision, "native_bf16", lambda native=native: native)
        out = tmp_path / f"{native}_{precision}"
        if way == "files":
            translate_files(generator, [tmp_path / "photo.png"], out, format="png", precision=precision)
            written[native, precision] = (out / "photo.png").read_bytes()
        else:
            translate_to_zip(generator, [("photo", picture)], out, size=40, precision=precision)
            with zipfile.ZipFile(out) as archive:
                written[native, precision] = archive.read("photo.jpg")
    assert written["AMX", "fp32"] == written[None, "auto"]
    assert written["AMX", "auto"] != written[None, "auto"]


def test_what_is_scored_is_painted_in_the_same_precision(monkeypatch):
    torch.manual_seed(0)
    generator = ResNetGenerator(width=8, blocks=1).eval()
    photos = list(torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8))
    monkeypatch.setattr(ganparts.precision, "native_bf16", lambda: "AMX")
    (batch,) = paint_batches([Batch(photos, [(256, 256)] * 2)], generator, size=None)
    assert batch.paintings is not None
    assert torch.equal(batch.paintings, translate(generator, torch.stack(photos)))
