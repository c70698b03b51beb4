from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ganparts import DISCRIMINATORS, GENERATORS
from ganparts.blocks import InstanceNorm2d
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import ResNetGenerator, UNetGenerator
from ganparts.interchange import from_junyanz, from_pretrained, save_pretrained
from ganparts.registry import UnknownPartError

affine = partial(InstanceNorm2d, affine=True)
norms = st.sampled_from(["instance", "batch", affine])
channels = st.integers(1, 4)


def assert_reads_back(network: nn.Module, size: int = 32, prefix: str = "") -> nn.Module:
    """``from_junyanz`` gives a network of the same kind that computes the same."""
    network = network.double()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    read = from_junyanz({prefix + name: tensor for name, tensor in network.state_dict().items()})
    assert type(read) is type(network)
    in_channels = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d)).in_channels
    images = torch.randn(1, in_channels, size, size, dtype=torch.float64)
    torch.testing.assert_close(read.eval()(images), network.eval()(images), rtol=0, atol=0)
    return read


@given(st.integers(1, 4), st.integers(1, 11), channels, channels, norms, st.sampled_from(["reflect", "zero"]))
def test_any_resnet_is_read(width, blocks, in_channels, out_channels, norm, padding):
    network = ResNetGenerator(in_channels, out_channels, width=width, blocks=blocks, norm=norm, padding=padding)
    assert_reads_back(network, prefix="module.")


@given(st.integers(1, 4), st.integers(2, 8), channels, channels, norms)
def test_any_unet_is_read(width, levels, in_channels, out_channels, norm):
    network = UNetGenerator(in_channels, out_channels, width=width, levels=levels, norm=norm)
    assert_reads_back(network, 2**levels)


@given(st.integers(1, 4), st.integers(1, 5), channels, st.integers(1, 2), norms)
def test_any_patchgan_is_read(width, layers, in_channels, objectives, norm):
    network = PatchGAN(in_channels, width=width, layers=layers, objectives=objectives, norm=norm)
    assert_reads_back(network, network.min_size)


@given(st.integers(1, 4), channels, st.integers(1, 2), norms)
def test_any_pixel_discriminator_is_read(width, in_channels, objectives, norm):
    assert_reads_back(PixelDiscriminator(in_channels, width=width, objectives=objectives, norm=norm))


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_dropout_that_shifts_a_resnets_names_is_recognised(padding):
    read = assert_reads_back(ResNetGenerator(width=2, blocks=2, dropout=0.5, padding=padding))
    assert [layer.p for layer in read.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_statistics_that_old_instance_norms_saved_are_dropped():
    network = ResNetGenerator(width=2, blocks=1)
    old = network.state_dict() | {"model.2.running_mean": torch.zeros(2), "model.2.running_var": torch.ones(2)}
    assert from_junyanz(old).state_dict().keys() == network.state_dict().keys()


def test_norm_none_and_the_batch_normed_pixel_discriminator_go_without_biases():
    plain = PatchGAN(width=2, norm="none")
    weights = {n: t for n, t in plain.state_dict().items() if n not in ("model.2.bias", "model.5.bias", "model.8.bias")}
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(from_junyanz(weights)(images), plain(images))
    pixel = PixelDiscriminator(width=2, norm="batch").eval()
    weights = {n: t for n, t in pixel.state_dict().items() if n != "net.5.bias"}
    assert torch.equal(from_junyanz(weights).eval()(images), pixel(images))
    del weights["net.0.bias"]
    with pytest.raises(ValueError, match=r'Missing key.* "net\.0\.bias"'):
        from_junyanz(weights)
    resnet = ResNetGenerator(width=2, blocks=1).state_dict()
    del resnet["model.1.bias"]
    with pytest.raises(ValueError, match="do not fit one"):
        from_junyanz(resnet)


def test_dtype_follows_the_weights():
    weights = {name: tensor.half() for name, tensor in PatchGAN(width=2).state_dict().items()}
    assert from_junyanz(weights).model[0].weight.dtype == torch.float16


def test_foreign_weights_are_refused_by_name():
    with pytest.raises(TypeError, match=r"takes a state_dict, for instance torch\.load\(.*given a str"):
        from_junyanz("latest_net_G.pth")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"no ResNet or U-Net generator .* names: 0\.weight, 0\.bias; pass"):
        from_junyanz(nn.Sequential(nn.Linear(2, 2)).state_dict())
    with pytest.raises(ValueError, match="names: none"):
        from_junyanz({})
    with pytest.raises(ValueError, match="'epoch' is not a tensor but int"):
        from_junyanz({"epoch": 3})  # pyright: ignore[reportArgumentType]
    weights = ResNetGenerator(width=2, blocks=1).state_dict()
    del weights["model.14.weight"]
    with pytest.raises(ValueError, match=r"look like a ResNetGenerator, but do not fit one: .*model\.14\.weight"):
        from_junyanz(weights)


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS])
def test_a_pretrained_folder_rebuilds_the_network(tmp_path: Path, name: str):
    table = GENERATORS if name in GENERATORS else DISCRIMINATORS
    network = table.create(name, width=2, in_channels=1)
    save_pretrained(network, tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config == {"kind": table.kind, "name": name, "options": {"width": 2, "in_channels": 1}}
    read = from_pretrained(tmp_path / "folder")
    assert not read.training
    images = torch.randn(1, 1, 256, 256)
    assert torch.equal(read(images), network.eval()(images))


def test_wrong_pretrained_folders_are_refused_by_name(tmp_path: Path):
    folder = tmp_path / "folder"
    with pytest.raises(FileNotFoundError, match=r"folder is no pretrained folder: it has no config\.json"):
        from_pretrained(folder)
    with pytest.raises(ValueError, match=r"PatchGAN was not built by name.*GENERATORS\.create"):
        save_pretrained(PatchGAN(width=2), folder)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_pretrained(DISCRIMINATORS.create("patchgan", width=2, norm=affine), folder)
    save_pretrained(DISCRIMINATORS.create("patchgan", width=2), folder / "generator")
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json; .*generator may be one"):
        from_pretrained(folder)
    save_pretrained(DISCRIMINATORS.create("patchgan", width=2), folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"width": 2', '"width": 3'))
    with pytest.raises(ValueError, match=r"does not hold the weights of 'patchgan' with \{'width': 3\}"):
        from_pretrained(folder)
    config.write_text(config.read_text().replace("patchgan", "mine"))
    with pytest.raises(UnknownPartError, match="no discriminator named 'mine'"):
        from_pretrained(folder)
    config.write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json does not describe a network"):
        from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    config.write_text('{"kind": "discriminator", "name": "patchgan", "options": {"width": 2}}')
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold the weights"):
        from_pretrained(folder)
