"""Generators as ONNX and as PyTorch's own programs."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
import torch
from tiny_parts import tiny
from torch import Tensor, nn

from ganparts import GENERATORS
from ganparts.generators import AntialiasedResNetGenerator, ResNetGenerator, UNetGenerator
from ganparts.interchange import export_generator, load_onnx, quantize_generator
from ganparts.interchange.export import export_sizes

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters deprecate their own functions


SHALLOW: dict[str, Callable[[], nn.Module]] = {  # with the registered one's kinds of layers, but fewer of them
    "resnet9": partial(ResNetGenerator, width=2, blocks=1),
    "resnet9_antialias": partial(AntialiasedResNetGenerator, width=2, blocks=1),
    "unet256": partial(UNetGenerator, width=2, levels=4),
    "attention_unet256": partial(UNetGenerator, width=2, levels=4, attention=True),
}
SAME = {"resnet6": "resnet9", "resnet6_antialias": "resnet9_antialias", "unet128": "unet256"}
"""Generators that differ from others in their depth alone."""


def generator(name: str, **options: object) -> nn.Module:
    """A registered one, tiny."""
    network = tiny(GENERATORS, name, **options)()
    assert isinstance(network, nn.Module)
    return filling(network)


def filling(network: nn.Module) -> nn.Module:
    """The network with values that fill [-1, 1]: the initial weights' are near 0, where all agree."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
    return network


@pytest.mark.parametrize("name", [*SHALLOW, *SAME])
def test_shallow_stand_ins_have_the_same_kinds_of_layers(name: str):
    with torch.device("meta"):
        network, other = GENERATORS.create(name, width=2), SHALLOW[SAME.get(name, name)]()
    assert isinstance(network, nn.Module)
    assert {type(layer) for layer in network.modules()} == {type(layer) for layer in other.modules()}


@pytest.mark.parametrize("name", [name for name in GENERATORS if name not in SAME])
def test_every_generator_is_exported(tmp_path: Path, name: str):
    network = filling(SHALLOW[name]()) if name in SHALLOW else generator(name)
    assert getattr(network, "exportable", True)
    if torch.__version__.startswith("2.6.") and name in ("timm_unet", "ugatit", "unet_vit"):  # docs/howto/export.md
        with pytest.raises(RuntimeError, match=r"cannot (export|write) this"):
            export_generator(network, tmp_path / "x.onnx")
        return
    export_generator(network, tmp_path / "x.onnx")  # which compares them
    assert network.training  # it is left as it was
    read = load_onnx(tmp_path / "x.onnx")
    assert read.size_multiple == network.size_multiple
    assert read.min_size == getattr(network, "min_size", network.size_multiple)
    side = max(64, 2 * network.size_multiple) if network.size_multiple > 4 else 36
    images = torch.rand(3, 3, side, side) * 2 - 1
    with torch.no_grad():
        expected = network.eval()(images)
        exact = copy.deepcopy(network).double()(images.double())
    assert expected.std() > 0.01
    own = float((expected - exact).abs().max())
    assert (read(images) - exact).abs().max() <= max(1e-4, 4 * own)  # ganilla: own is 2e-4
    with pytest.raises(ValueError, match="needs a height and a width that are multiples of"):
        read(torch.zeros(1, 3, side + 1, side))
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet6", {"upsample": "resize_conv"}),
        ("resnet6", {"upsample": "bilinear"}),
        ("resnet6_antialias", {}),
        ("unet128", {}),
    ],
)
def test_a_program_of_pytorch_needs_no_code_of_ours(tmp_path: Path, name: str, options: dict[str, object]):
    network = generator(name, **options)
    assert export_generator(network, tmp_path / "x.pt2") <= 1e-4
    exported = torch.export.load(tmp_path / "x.pt2")
    assert not [node for node in exported.graph.nodes if "autocast" in str(node.target)]
    program = exported.module()
    for batch, height, width in export_sizes(network):
        images = torch.rand(batch, 3, height, width) * 2 - 1
        with torch.no_grad():
            torch.testing.assert_close(program(images), network.eval()(images), rtol=0, atol=1e-4)


def test_a_generator_for_one_size_says_that_it_is_not_exported(tmp_path: Path):
    network = generator("ugatit", light=False, img_size=16, blocks=1)
    with pytest.raises(ValueError, match=r"this UGATITGenerator says that it cannot be exported \(exportable=False\)"):
        export_generator(network, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_more_than_pytorchs_own_rounding_is_not_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network, wrong = generator("ganilla"), 2e-3  # at the smallest sizes 32 bits differ from 64 by 2e-4
    program = torch.export.load

    class Wrong:
        def __init__(self, path: str):
            self.read = program(path).module()

        def module(self):
            return lambda images: self.read(images) + wrong

    monkeypatch.setattr(torch.export, "load", Wrong)
    with pytest.raises(ValueError, match=r"differs from PyTorch by 0\.002 on"):
        export_generator(network, tmp_path / "x.pt2")
    wrong = 1e-5
    assert export_generator(network, tmp_path / "x.pt2") == pytest.approx(1e-5, rel=0.1)


def test_sixteen_bits_take_half_the_room(tmp_path: Path):
    network = generator("resnet6")
    assert 0 < export_generator(network, tmp_path / "half.onnx", half=True) <= 2e-2
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
    assert load_onnx(tmp_path / "half.onnx")(torch.zeros(1, 3, 64, 64)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"16 bits are for ONNX, and .*x\.pt2"):
        export_generator(network, tmp_path / "x.pt2", half=True)


def test_a_file_goes_to_other_processes(tmp_path: Path):
    export_generator(generator("resnet6"), tmp_path / "x.onnx")
    read, images = load_onnx(tmp_path / "x.onnx"), torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.equal(pickle.loads(pickle.dumps(read))(images), read(images))


def test_a_file_is_sound_and_says_nothing_of_the_machine(tmp_path: Path):
    export_generator(generator("resnet6"), tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        **{"size_multiple": "4", "min_size": "8", "range": "[-1, 1]", "part": "resnet6"}
    }
    axes = [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]
    assert str(Path(__file__).parent.parent).encode() not in (tmp_path / "x.onnx").read_bytes()


class Plain(nn.Module):
    """A generator of somebody's own: one channel, any size."""

    in_channels = 1

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x))


def test_a_generator_of_ones_own_is_exported(tmp_path: Path):
    network = Plain()
    for name in ("x.onnx", "x.pt2"):
        assert export_generator(network, tmp_path / name) < 1e-6
    read = load_onnx(tmp_path / "x.onnx")
    assert (read.in_channels, read.size_multiple, read.min_size) == (1, 1, 1)
    assert torch.allclose(read(torch.ones(1, 1, 3, 5)), network(torch.ones(1, 1, 3, 5)), atol=1e-6)


class Reflecting(nn.Module):
    """One whose padding needs 3 pixels of half the size, so 6: it takes multiples of 2, and not the first two."""

    size_multiple = 2

    def __init__(self, least: int | None = None):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReflectionPad2d(2), nn.Conv2d(3, 3, 5))
        if least is not None:
            self.min_size = least

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.layers(x), scale_factor=2.0)


@pytest.mark.parametrize("least", [None, 6, 10])
def test_the_least_size_is_one_that_pytorch_takes(tmp_path: Path, least: int | None):
    network = Reflecting(least)
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        network(torch.zeros(1, 3, 4, 4))
    for name in ("x.onnx", "x.pt2"):
        assert export_generator(network, tmp_path / name) <= 1e-4
    assert getattr(network, "min_size", None) == least  # it is left as it was
    read = load_onnx(tmp_path / "x.onnx")
    assert (read.size_multiple, read.min_size) == (2, least or 6)
    with pytest.raises(ValueError, match=f"at least {least or 6}"):
        read(torch.zeros(1, 3, 4, 4))


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise ValueError("no weights yet")


def test_a_generator_that_always_fails_is_not_to_blame_on_the_export(tmp_path: Path):
    with pytest.raises(RuntimeError, match=r"this Broken fails .*, the first of 1 x 1: no weights yet\. .*min_size"):
        export_generator(Broken(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [0.001, float("nan")])
def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float):
    (tmp_path / "x.onnx").write_bytes(b"before")
    monkeypatch.setattr("ganparts.interchange.export.load_onnx", lambda path: lambda images: torch.tanh(images) + wrong)
    network = nn.Tanh()
    with pytest.raises(ValueError, match=r"differs from PyTorch by (0\.001|nan) on 1 images of .*it was not written"):
        export_generator(network, tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


class Choosy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


def unable(*_: object, **__: object) -> None:
    raise KeyError("conversion failed\nin five steps") from NotImplementedError("no such operation")


def test_what_cannot_be_exported_or_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"x\.pth ends neither in \.onnx nor in \.pt2"):
        export_generator(Plain(), tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match="PyTorch cannot export this Choosy: "):
        export_generator(Choosy(), tmp_path / "x.onnx")
    with monkeypatch.context() as patched:
        patched.setattr(torch.onnx, "export", unable)
        with pytest.raises(RuntimeError, match=r"as ONNX \(no such operation\): a newer"):
            export_generator(Plain(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x\.onnx"):
        load_onnx(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"x\.onnx is not an ONNX file that can be run"):
        load_onnx(tmp_path / "x.onnx")
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"x\.onnx needs onnxruntime.*pip install 'ganparts\[onnx\]'"):
        load_onnx(tmp_path / "x.onnx")
    with pytest.raises(ImportError, match=r"writing ONNX needs onnxscript, .*pip install 'ganparts\[onnx\]'"):
        export_generator(Plain(), tmp_path / "x.onnx")


def test_eight_bits_take_a_quarter_of_the_room_and_look_the_same(tmp_path: Path):
    network = UNetGenerator(width=24, levels=5, upsample="resize_conv")
    with torch.no_grad():
        for parameter in list(network.parameters())[-2:]:
            parameter.mul_(2)  # the initial weights' values are near 0
    photos = list(nn.functional.interpolate(torch.rand(8, 3, 8, 8) * 2 - 1, 64, mode="bicubic").clamp(-1, 1))
    psnr, speedup = quantize_generator(network, tmp_path / "eight.onnx", photos)
    assert speedup > 0
    export_generator(network, tmp_path / "whole.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eight.onnx", "whole.onnx"]
    assert (tmp_path / "eight.onnx").stat().st_size < 0.35 * (tmp_path / "whole.onnx").stat().st_size
    eight, whole = load_onnx(tmp_path / "eight.onnx"), load_onnx(tmp_path / "whole.onnx")
    assert eight.size_multiple == whole.size_multiple == network.size_multiple
    tried = torch.stack(photos[::4])
    error = (eight(tried) - whole(tried)).square().mean()
    assert whole(tried).std() > 0.01
    assert psnr == pytest.approx(float(10 * torch.log10(4 / error)), abs=0.1)
    assert psnr > 35
    other = torch.rand(3, 3, 64, 96) * 2 - 1  # of another size
    assert eight(other).shape == other.shape


def test_eight_bits_that_look_otherwise_are_not_written(tmp_path: Path):
    network = generator("resnet6")  # of width 2, whose rounding shows
    photos = list(torch.rand(8, 3, 32, 32) * 2 - 1)
    with pytest.raises(ValueError, match=r"their PSNR to those in 32 bits is \d+\.\d dB, less than 35, so .*x\.onnx"):
        quantize_generator(network, tmp_path / "x.onnx", photos)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="7 photos: 8 bits need at least 8"):
        quantize_generator(network, tmp_path / "x.onnx", photos[1:])
    with pytest.raises(ValueError, match="all of one size, and their values are finite"):
        quantize_generator(network, tmp_path / "x.onnx", [*photos, torch.zeros(3, 64, 64)])
    with pytest.raises(ValueError, match="all of one size, and their values are finite"):
        quantize_generator(network, tmp_path / "x.onnx", [*photos, torch.full((3, 32, 32), torch.nan)])
    with pytest.raises(ValueError, match=r"takes images .* with C=3"):
        quantize_generator(network, tmp_path / "x.onnx", [photo[:1] for photo in photos])
    with pytest.raises(ValueError, match=r"8 bits are for ONNX, and .*x\.pt2 does not end in \.onnx"):
        quantize_generator(network, tmp_path / "x.pt2", photos)


def test_files_of_others_are_taken_only_if_they_can_be_run(tmp_path: Path):
    def write(name: str, kind: int, shape: list[int | str], **metadata: str) -> Path:
        ends = [onnx.helper.make_tensor_value_info(end, kind, shape) for end in ("x", "y")]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "same", ends[:1], ends[1:])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, str(tmp_path / name))
        return tmp_path / name

    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    images = torch.rand(1, 3, 16, 24)
    fixed = load_onnx(write("fixed.onnx", single, ["n", 3, 16, 24]))
    assert torch.equal(fixed(images), images)
    with pytest.raises(ValueError, match=r"fixed\.onnx takes images of height 16 alone, and these have 24: resize"):
        fixed(images.mT)
    partly = load_onnx(write("partly.onnx", single, ["n", 3, "h", 24]))
    assert torch.equal(partly(images), images)
    with pytest.raises(ValueError, match=r"takes images of width 24 alone, and these have 16"):
        partly(images.mT)
    pair = torch.rand(2, 3, 16, 24)
    assert torch.equal(load_onnx(write("one.onnx", single, [1, 3, "h", "w"]))(pair), pair)
    with pytest.raises(ValueError, match=r"half\.onnx takes tensor\(float16\), and images are tensor\(float\)"):
        load_onnx(write("half.onnx", half, ["n", 3, "h", "w"]))
    with pytest.raises(ValueError, match=r"odd\.onnx has odd metadata: size_multiple=0: give a whole number"):
        load_onnx(write("odd.onnx", single, ["n", 3, "h", "w"], size_multiple="0"))
