from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from golden_files import golden_names, part_of, read, relative_error
from hypothesis import given
from hypothesis import strategies as st
from tiny_parts import smallest_image, tiny
from torch import Tensor, nn

from ganparts import DISCRIMINATORS, GENERATORS
from ganparts.blocks import InstanceNorm2d
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import ResNetGenerator, UNetGenerator
from ganparts.interchange import (
    ModelCard,
    from_junyanz,
    from_pretrained,
    from_published,
    load_published,
    push_to_hub,
    save_pretrained,
)
from ganparts.pretrained import PretrainedModule, find_pretrained, is_pretrained
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


def maps(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a network returns, of one scale or several."""
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS])
def test_a_pretrained_folder_rebuilds_the_network(tmp_path: Path, name: str):
    table = GENERATORS if name in GENERATORS else DISCRIMINATORS
    builder = tiny(table, name, in_channels=1)
    network = builder()
    save_pretrained(network, tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config == {"kind": table.kind, "name": name, "options": builder.keywords}
    read = from_pretrained(tmp_path / "folder")
    assert not read.training
    images = torch.randn(1, 1, *[smallest_image(network)] * 2)
    torch.testing.assert_close(read(images), network.eval()(images), rtol=0, atol=0)  # a tensor or a tuple of them
    assert isinstance(network, PretrainedModule)
    network.save_pretrained(tmp_path / "method", card=ModelCard(text="By its method."))
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "method" / file).read_bytes() == (tmp_path / "folder" / file).read_bytes()
    assert "By its method." in (tmp_path / "method" / "README.md").read_text()


def test_whoever_may_read_a_folder_may_read_its_weights(tmp_path: Path):
    save_pretrained(DISCRIMINATORS.create("patchgan", width=2), tmp_path)
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"] == modes["README.md"]


def test_wrong_pretrained_folders_are_refused_by_name(tmp_path: Path):
    folder = tmp_path / "folder"
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*folder: give a pretrained folder .*owner/model"):
        from_pretrained(folder)
    with pytest.raises(ValueError, match=r"PatchGAN was not built by name.*GENERATORS\.create"):
        save_pretrained(PatchGAN(width=2), folder)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_pretrained(DISCRIMINATORS.create("patchgan", width=2, norm=affine), folder)
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


def test_options_are_written_as_what_rebuilds_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    @GENERATORS.register("mine")
    def mine(*, pretrained: bool = False, weights: Path | None = None, levels: tuple[int, ...] = ()) -> nn.Module:
        assert not pretrained or not (tmp_path / "config.json").exists(), "downloads again"
        return nn.Conv2d(3, 3, 1)

    try:
        network = GENERATORS.create("mine", pretrained=True, weights=tmp_path / "w.pth", levels=(1, 2))
        save_pretrained(network, tmp_path)
        from_pretrained(tmp_path)
        options = json.loads((tmp_path / "config.json").read_text())["options"]
        assert options == {"pretrained": False, "weights": str(tmp_path / "w.pth"), "levels": [1, 2]}
        assert vars(network)["built_from"][2]["pretrained"] is True
    finally:
        GENERATORS.remove("mine")


def test_a_read_network_can_be_saved(tmp_path: Path):
    networks = [
        ResNetGenerator(2, 4, width=2, blocks=4, norm=affine, padding="zero", dropout=0.5),
        UNetGenerator(width=2, levels=3, norm="batch"),
        PatchGAN(1, width=2, layers=2, objectives=2, norm=affine),
        PixelDiscriminator(width=2, norm="batch"),
    ]
    for place, network in enumerate(networks):
        read = assert_reads_back(network)
        save_pretrained(read.float(), tmp_path / str(place))
        again = from_pretrained(tmp_path / str(place))
        assert type(again) is type(network)
        assert again.state_dict().keys() == network.state_dict().keys()
        assert all(torch.equal(tensor, network.float().state_dict()[n]) for n, tensor in again.state_dict().items())
        layers = [repr(layer) for layer in network.modules() if not any(layer.children())]
        assert [repr(layer) for layer in again.modules() if not any(layer.children())] == layers


def test_statistics_beside_a_bias_are_an_old_instance_norms():
    network = PatchGAN(width=2, layers=1, norm=affine)
    old = network.state_dict() | {"model.3.running_mean": torch.zeros(4), "model.3.running_var": torch.ones(4)}
    assert isinstance(from_junyanz(old).model[3], InstanceNorm2d)


# --- published weights of every family


def in_unit_range(name: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """UVCGAN2's images are in [0, 1]."""
    golden = read(name)
    network = from_published(part_of(golden, "weights.")).eval()
    if "input" in golden:
        return [(network, (network(2 * golden["input"] - 1) + 1) / 2, golden["output"])]
    return [(network, network(2 * golden["real"][0] - 1), golden["eval.output"])]


def plain(name: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    golden = read(name)
    network = from_published(part_of(golden, "weights.")).eval()
    return [(network, network(golden["input"]), golden["output"])]


def scaled(name: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    golden = read(name)
    network = from_published(part_of(golden, "weights."))
    maps = network(golden["input"])
    assert f"output.{len(maps)}" not in golden
    return [(network, map_, golden[f"output.{scale}"]) for scale, map_ in enumerate(maps)]


def attended(name: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    golden = read(name)
    network = from_published(part_of(golden, "weights.")).eval()
    made, suffix = network.forward_with_attention(golden["input"]), "_eval" if "output_eval.image" in golden else ""
    kinds = ("image", "cam", "heatmap")
    expected = [golden[f"output{suffix}.{kind}"] for kind in kinds]
    return [(network, value.reshape(e.shape), e) for value, e in zip(made, expected, strict=True)]


def projected(name: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    golden = read(name)
    network = from_published(part_of(golden, "weights."))
    features = [golden[key] for key in sorted(golden) if re.fullmatch(r"feature\.\d+", key)]
    return [(network, network(features).flatten(1), golden["output"])]


def sampled(name: str) -> list[tuple[nn.Module, Tensor, Tensor]]:
    golden = read(name)
    network = from_published(part_of(golden, "weights."))
    layers = range(network.layers)
    made = network([golden[f"qA.{layer}"] for layer in layers], [golden[f"ids.A.{layer}"] for layer in layers])
    return [(network, vectors, golden[f"F_q.A.{layer}"]) for layer, vectors in enumerate(made)]


PUBLISHED = {
    **dict.fromkeys(("resnet[0-9]*", "unet[0-9_]*", "patchgan[0-9]*", "pixel*"), plain),
    **dict.fromkeys(("cut_resnet*", "cut_patchgan*", "ganilla*", "attentiongan*"), plain),
    "cut_patchnce*": sampled,
    "pix2pixhd_*": scaled,
    "projected_d_*": projected,
    "ugatit_[!n]*": attended,
    "uvcgan2_*": in_unit_range,
}
GOLDEN = [(name, compute) for kind, compute in PUBLISHED.items() for name in golden_names(kind)]
UNREGISTERED = ("PatchProjector", "FeatureDiscriminator")


@pytest.mark.parametrize(("name", "compute"), GOLDEN, ids=[name for name, _ in GOLDEN])
def test_golden_weights_of_every_family_are_read(tmp_path: Path, name: str, compute: Callable[..., Any]):
    outcomes = compute(name)
    for _, value, expected in outcomes:
        assert relative_error(value, expected) < 1e-9
    network = outcomes[0][0]
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}
    if type(network).__name__ in UNREGISTERED:
        return
    save_pretrained(network, tmp_path)
    again = from_pretrained(tmp_path).double()
    kept = again.state_dict()
    assert kept.keys() == network.state_dict().keys()
    expected = {key: value.to(kept[key].dtype) for key, value in network.state_dict().items()}
    for key, value in kept.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", golden_names("*cut_train_*"))
def test_golden_training_runs_start_from_weights_that_are_read(name: str):
    golden = read(name)
    kinds = [type(from_published(part_of(golden, f"{letter}."))).__name__ for letter in "GDF"]
    assert kinds == ["AntialiasedResNetGenerator", "PatchGAN", "PatchProjector"]


READ_BACK: dict[str, dict[str, Any]] = {
    **{name: {"blocks": 2} for name in ("resnet9", "resnet9_antialias", "attention_gan", "ugatit", "unet_vit")},
    **{name: {} for name in ("resnet6", "resnet6_antialias", "unet128", "ganilla", "patchgan", "pixel")},
    **{name: {"layers": 4} for name in ("patchgan_antialias", "multiscale_patchgan", "batch_head", "ugatit_global")},
    "unet256": {"levels": 5},
    "ugatit_local": {},
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", READ_BACK)
def test_what_the_weights_show_is_read_back(name: str, prefix: str):
    table = GENERATORS if name in GENERATORS else DISCRIMINATORS
    out_channels = {"out_channels": 2 if name == "attention_gan" else 1} if table is GENERATORS else {}
    network = tiny(table, name, width=2, in_channels=2, **out_channels, **READ_BACK[name])()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.2 + 0.1)
    weights = {prefix + key: t.half() for key, t in network.state_dict().items() if not key.endswith("pushed")}
    read = from_published(weights)
    assert type(read) is type(network)
    assert {t.dtype for t in read.state_dict().values() if t.is_floating_point()} == {torch.float16}
    read, network = read.float().eval(), network.half().float().eval()
    images = torch.rand(1, 2, *2 * [smallest_image(network)]) * 2 - 1
    for ours, theirs in zip(maps(read(images)), maps(network(images)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_generator_without_light_attention_and_a_deeper_ganilla_are_told_apart():
    full = GENERATORS.create("ugatit", width=1, blocks=1, light=False, img_size=16).state_dict()
    assert vars(from_published(full))["built_from"][2]["img_size"] == 16
    deep = GENERATORS.create("ganilla", width=1, depth=34).state_dict()
    assert vars(from_published(deep))["built_from"][2]["depth"] == 34
    heads = DISCRIMINATORS.create("batch_head", width=2, head="batch_norm", objectives=2)
    weights = {key: t for key, t in heads.state_dict().items() if not key.startswith("queue")}
    assert vars(from_published(weights))["built_from"][2] | {"in_channels": 3} == {
        **{"in_channels": 3, "width": 2, "layers": 3, "objectives": 2, "head": "batch_norm"}
    }


def test_names_of_pix2pixhds_feature_matching_are_read():
    network = DISCRIMINATORS.create("multiscale_patchgan", width=2, scales=2, layers=2, norm="batch")
    places = {0: (0, 0), 2: (1, 0), 3: (1, 1), 5: (2, 0), 6: (2, 1), 8: (3, 0)}

    def theirs(key: str) -> str:
        scale, place, rest = re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", key).groups()  # pyright: ignore
        return "scale{}_layer{}.{}.{}".format(scale, *places[int(place)], rest)

    weights = {theirs(key): tensor for key, tensor in network.state_dict().items()}
    read = from_published(weights)
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in read.state_dict().items())
    assert vars(read)["built_from"][2]["norm"] == "batch"
    weights |= {f"scale{scale}_layer1.0.bias": torch.zeros(4) for scale in range(2)}
    with pytest.raises(ValueError, match=r"read as pix2pixHD's discriminator: .*have biases before batch norm"):
        from_published(weights)


def test_weights_that_fit_no_family_are_refused_by_name():
    with pytest.raises(TypeError, match=r"from_published takes a state_dict, .*was given a str"):
        from_published("latest_net_G.pth")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"no network that is known has weights of these names: 0\.weight, 0\.bias\. Pa"
    ):
        from_published(nn.Sequential(nn.Linear(2, 2)).state_dict())
    with pytest.raises(ValueError, match=r"names: none\. Pass .* of U-GAT-IT, .*, CUT, CycleGAN and pix2pix$"):
        from_published({})
    with pytest.raises(ValueError, match="'netG' is not a tensor but dict"):
        from_published({"netG": {}})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"these are 10,001 tensors, and at most 10,000"):
        from_published({f"model.{i}": torch.ones(1) for i in range(10_001)})
    for name, lost in (
        ("resnet9_antialias", "model.4.bias"),
        ("ganilla", "layer4.0.conv1.weight"),
        ("ugatit", "gamma.weight"),
    ):
        weights = GENERATORS.create(name, width=2).state_dict()
        del weights[lost]
        with pytest.raises(ValueError, match=rf"read as (CUT|GANILLA|U-GAT-IT): .*{re.escape(lost)}"):
            from_published(weights)
    with pytest.raises(ValueError, match="do not fit one"):
        from_junyanz(GENERATORS.create("resnet9_antialias", width=2).state_dict())
    deep = GENERATORS.create("ganilla", width=1, depth=34).state_dict()
    shallower = {key: tensor for key, tensor in deep.items() if not re.match(r"layer3\.[345]", key)}
    with pytest.raises(ValueError, match=r"its third stage has 3 blocks, but GANILLA's has 2"):
        from_published(shallower)


@pytest.mark.parametrize("name", [name for name, _ in GOLDEN[::2]])
def test_sizes_that_no_file_holds_are_refused_before_they_take_memory(name: str):
    weights = part_of(read(name), "weights.")
    wide = [key for key, tensor in weights.items() if tensor.ndim > 1]
    for key in wide[:6]:
        shape = (10**5, 10**5, *weights[key].shape[2:])
        with pytest.raises(ValueError, match=rf"{re.escape(repr(key))} claims the shape .* holds fewer numbers"):
            from_published(weights | {key: torch.empty(1).expand(shape)})
        with pytest.raises(ValueError, match=r"fit|no network"):
            from_published(weights | {key: weights[key][..., :0]})


def test_networks_of_other_families_are_found_in_their_files(tmp_path: Path):
    queues = ("queue_real.pushed", "queue_fake.pushed")
    judge = {k: t for k, t in DISCRIMINATORS.create("batch_head", width=2).state_dict().items() if k not in queues}
    painter = GENERATORS.create("ugatit", width=1, blocks=1).state_dict()
    local = DISCRIMINATORS.create("ugatit_local", width=2).state_dict()
    path = tmp_path / "x.pth"
    for content, key, kind in (
        (judge, None, "BatchHeadDiscriminator"),
        ({f"netD.{name}": tensor for name, tensor in judge.items()}, None, "BatchHeadDiscriminator"),
        ({"genA2B": painter, "disLA": local}, "genA2B", "UGATITGenerator"),
        ({"genA2B": painter, "disLA": local}, "disLA", "UGATITDiscriminator"),
        (GENERATORS.create("unet_vit", width=2, blocks=1).state_dict(), None, "UNetViTGenerator"),
    ):
        found = load_published(write(path, content), key=key)
        assert type(found.network).__name__ == kind
    with pytest.raises(ValueError, match=r"x\.pth, genA2B: "):
        load_published(write(path, {"genA2B": {"odd": torch.ones(1)}}))


# --- checkpoint files


def write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_a_network_is_found_in_its_file(tmp_path: Path):
    generator, discriminator = ResNetGenerator(width=2, blocks=1).state_dict(), PatchGAN(width=2).state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in generator.items()}
    optimizer = {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 1.0}]}
    together = {f"netG_A.module.{n}": t for n, t in generator.items()} | {
        f"netD.{n}": t for n, t in discriminator.items()
    }
    for content, key, taken in (
        (generator, None, ""),
        (parallel, None, ""),
        ({"state_dict": parallel, "optimizer": optimizer, "epoch": 3}, None, "state_dict"),
        ({"netG_A": parallel, "netD": discriminator}, "netG_A", "netG_A"),
        ({"state_dict": together}, "state_dict.netG_A", "state_dict.netG_A"),
        ({"models": {"netG_A": generator}}, None, "models.netG_A"),
    ):
        network, where = load_published(write(tmp_path / "x.pth", content), key=key)
        assert where == taken
        assert network.state_dict().keys() == generator.keys()
        assert all(torch.equal(tensor, generator[name]) for name, tensor in network.state_dict().items())
    assert isinstance(
        load_published(write(tmp_path / "x.pth", {"state_dict": together}), key="state_dict.netD")[0], PatchGAN
    )


@pytest.mark.parametrize("name", ["ugatit", "ganilla", "attention_gan", "unet_vit", "unet128"])
def test_a_network_of_any_family_is_found_under_one_roof(name: str, tmp_path: Path):
    small = {"levels": [2, 4], "channels": 4, "heads": 2, "blocks": 1, "hidden": 4, "code": 4}
    network = GENERATORS.create(name, **(small if name == "unet_vit" else {"width": 2}))
    judge = DISCRIMINATORS.create("multiscale_patchgan", width=2)
    roof = {f"netG.module.{key}": tensor for key, tensor in network.state_dict().items()}
    roof |= {f"netD.{key}": tensor for key, tensor in judge.state_dict().items()}
    for key, wanted in (("netG", network), ("netD", judge)):
        found, where = load_published(write(tmp_path / "x.pth", {"state_dict": roof}), key=f"state_dict.{key}")
        assert where == f"state_dict.{key}"
        assert type(found) is type(wanted)
    assert load_published(write(tmp_path / "x.pth", network.state_dict())).key == ""


def test_wrong_checkpoint_files_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "x.pth"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x\.pth"):
        load_published(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"x\.pth is not a checkpoint that can be read without running code"):
        load_published(path)
    with pytest.raises(ValueError, match=r"x\.pth is not a checkpoint that can be read without running code"):
        load_published(write(path, nn.Conv2d(1, 1, 1)))
    with pytest.raises(ValueError, match=r"x\.pth holds no weights by name but a list"):
        load_published(write(path, [torch.ones(1)]))
    with pytest.raises(ValueError, match=r"x\.pth holds no weights by name but a dictionary of 'epoch'"):
        load_published(write(path, {"epoch": 3}))
    weights = ResNetGenerator(width=2, blocks=1).state_dict()
    write(path, {"netG_A": weights, "netG_B": weights})
    with pytest.raises(ValueError, match=r"x\.pth holds several networks: choose one by --key, of netG_A, netG_B"):
        load_published(path)
    with pytest.raises(ValueError, match=r"x\.pth holds nothing called 'netG', but: netG_A, netG_B"):
        load_published(path, key="netG")
    with pytest.raises(ValueError, match=r"x\.pth, netG: no network that is known has weights of these names: fc"):
        load_published(write(path, {"netG": {"fc.weight": torch.ones(2, 2)}}))


# --- model cards, parts of one's own, and the Hub


def header_of(folder: Path) -> dict[str, object]:
    from huggingface_hub import ModelCard as HubCard

    return HubCard.load(folder / "README.md").data.to_dict()


def test_a_card_says_what_a_reader_needs(tmp_path: Path):
    (tmp_path / "grid.PNG").write_bytes(b"picture")
    card = ModelCard(
        preset="paper",
        data="photos | paintings",
        steps=1200,
        scores={"KID (efficientnet_lite0)": 0.0762},
        license="cc0-1.0",
        tags=("monet",),
        picture=tmp_path / "grid.PNG",
    )
    save_pretrained(GENERATORS.create("resnet6", width=2, norm="batch"), tmp_path / "monet", card=card)
    header = header_of(tmp_path / "monet")
    assert header["library_name"] == "ganparts"
    assert header["license"] == "cc0-1.0"
    assert {"image-to-image", "resnet6", "monet"} <= set(header["tags"])  # pyright: ignore[reportArgumentType]
    text = (tmp_path / "monet" / "README.md").read_text()
    for part in (
        "# monet\n",
        "![Sample](sample.png)",
        "`width=2, norm='batch'`",
        "| preset | `paper` |",
        "| data | photos \\| paintings |",
        "| steps | 1,200 |",
        "| KID (efficientnet_lite0) | 0.0762 |",
        f'translate(from_pretrained("{(tmp_path / "monet").as_posix()}"), "photo.jpg").save("painting.jpg")',
    ):
        assert part in text, part
    assert (tmp_path / "monet" / "sample.png").read_bytes() == b"picture"
    with pytest.raises(FileNotFoundError, match=r"picture .*none\.png is not a file"):
        save_pretrained(
            GENERATORS.create("resnet6", width=2), tmp_path / "x", card=ModelCard(picture=tmp_path / "none.png")
        )
    save_pretrained(DISCRIMINATORS.create("pixel", width=2), tmp_path / "d")
    assert "translate" not in (tmp_path / "d" / "README.md").read_text().partition("## How")[2]


def test_a_part_of_ones_own_says_what_to_import(tmp_path: Path):
    @GENERATORS.register("mine")
    def mine(*, width: int = 1) -> nn.Module:
        return nn.Conv2d(3, 3, width)

    try:
        save_pretrained(GENERATORS.create("mine"), tmp_path)
        assert from_pretrained(tmp_path)(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)
    finally:
        GENERATORS.remove("mine")
    assert json.loads((tmp_path / "config.json").read_text())["module"] == __name__
    assert f"import {__name__}  # registers 'mine'" in (tmp_path / "README.md").read_text()
    with pytest.raises(UnknownPartError, match=rf"'mine'.*; the module {__name__} registers it\. It was not imported"):
        from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in ("kind", "name", "options")}))
    with pytest.raises(
        UnknownPartError, match=r"'mine'.*; import the module that registers it first .*--imports MODULE"
    ):
        from_pretrained(tmp_path)


def test_a_run_folder_stands_for_its_generator(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"options": {}}')  # the run's own
    assert not is_pretrained(run)
    with pytest.raises(
        FileNotFoundError, match=r"run is not a pretrained folder: it has no model\.safetensors; .*run holds "
    ):
        from_pretrained(run)
    (run / "checkpoint.pt").touch()
    (run / "generator").mkdir()
    (run / "generator" / "model.safetensors").touch()
    expected = (
        r"generator is not a pretrained folder: it has no config\.json; .*run holds checkpoint\.pt, config\.json, gen"
    )
    with pytest.raises(
        FileNotFoundError, match=rf"{expected}.*A run that was killed writes its generator/ when it is res"
    ):
        from_pretrained(run)
    network = GENERATORS.create("resnet6", width=2)
    save_pretrained(network, run / "generator")
    assert is_pretrained(run)
    assert find_pretrained(run) == run / "generator" == find_pretrained(run / "generator")
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(from_pretrained(run)(images), network.eval()(images))
    save_pretrained(DISCRIMINATORS.create("pixel", width=2), run)
    assert find_pretrained(run) == run  # a pretrained folder that has others in it
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt is a file: give a pretrained folder"):
        from_pretrained(run / "checkpoint.pt")


def test_a_program_that_is_killed_while_it_saves_leaves_a_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed before each of the files takes its place, and in the middle of the weights."""
    card = ModelCard(picture=tmp_path / "x.png", text="Second.")
    (tmp_path / "x.png").write_bytes(b"picture")
    images, folder = torch.randn(1, 3, 16, 16), tmp_path / "generator"
    first, second = (GENERATORS.create("resnet6", width=2).eval() for _ in range(2))
    outputs = [network(images) for network in (first, second)]
    assert not torch.equal(*outputs)
    replace, write, seen = os.replace, safetensors.torch.save_model, set()
    for moment in range(-1, 5):
        if folder.exists():
            shutil.rmtree(folder)
        save_pretrained(first, folder)
        (folder / "notes.txt").write_text("not ours")
        left = [moment]

        def place(old: Path, new: Path, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(old, new)

        def break_off(network: nn.Module, file: str) -> None:
            Path(file).write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", place)
        monkeypatch.setattr(safetensors.torch, "save_model", break_off if moment < 0 else write)
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # nor does it clean up
        with contextlib.suppress(KeyboardInterrupt):
            save_pretrained(second, folder, card=card)
        monkeypatch.undo()
        output = from_pretrained(folder)(images)
        seen.add(next(i for i in (0, 1) if torch.equal(output, outputs[i])))
        save_pretrained(second, folder, card=card)  # the next program puts it right
        assert torch.equal(from_pretrained(folder)(images), outputs[1])
        files = {path.name for path in folder.iterdir()}
        assert files == {"README.md", "config.json", "model.safetensors", "notes.txt", "sample.png"}
    assert seen == {0, 1}


def test_a_new_folder_that_was_not_finished_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def break_off(network: nn.Module, file: str) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.torch, "save_model", break_off)
    with pytest.raises(OSError, match="no space left"):
        save_pretrained(GENERATORS.create("resnet6", width=2), tmp_path / "generator")
    assert list((tmp_path / "generator").iterdir()) == []
    assert not is_pretrained(tmp_path / "generator")


def test_the_hub_is_asked_for_what_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network, asked = GENERATORS.create("resnet6", width=2), []
    save_pretrained(network, tmp_path / "kept")

    def fetch(name: str, **options: object) -> str:
        asked.append((name, options))
        return str(tmp_path / "kept")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert type(from_pretrained("someone/monet", revision="v1")) is ResNetGenerator
    assert asked == [("someone/monet", {"revision": "v1", "allow_patterns": ["config.json", "model.safetensors"]})]
    (tmp_path / "runs").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"no folder runs/first \(and the Hub was not asked, since there is a folder runs\)"
    ):
        from_pretrained("runs/first")
    assert [is_pretrained(name) for name in ("someone/monet", "runs/first", "nobody", "kept")] == [
        True,
        False,
        False,
        True,
    ]
    assert len(asked) == 1

    (tmp_path / "kept" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"^the model someone/monet on the .* Hub has no model.safetensors: "):
        from_pretrained("someone/monet")

    def fail(name: str, **options: object) -> str:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(OSError, match=r"^someone/monet is not a folder here and could not be fetched .*: no network$"):
        from_pretrained("someone/monet")


def test_a_network_is_published_as_it_is_saved(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    done: dict[str, object] = {}

    def upload(self: object, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        done["files"] = sorted(path.name for path in Path(folder_path).iterdir())
        done["card"] = (Path(folder_path) / "README.md").read_text()

    def create(self: object, name: str, *, private: bool, exist_ok: bool) -> str:
        done["made"] = (name, private, exist_ok)
        return f"https://huggingface.co/{name}"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    network = GENERATORS.create("resnet6", width=2)
    assert push_to_hub(network, "someone/monet", private=True) == "https://huggingface.co/someone/monet"
    assert done["made"] == ("someone/monet", True, True)
    assert done["files"] == ["README.md", "config.json", "model.safetensors"]
    assert 'from_pretrained("someone/monet")' in str(done["card"])
    assert isinstance(network, PretrainedModule)
    network.push_to_hub("someone/else", card=ModelCard(text="By its method."))
    assert done["made"] == ("someone/else", False, True)
    assert "By its method." in str(done["card"])
    with pytest.raises(ValueError, match=r"'monet' is not the name of a model .* owner/model"):
        push_to_hub(network, "monet")

    def refuse(self: object, *_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(OSError, match=r"someone/monet could not be published .*: no network"):
        push_to_hub(network, "someone/monet")


@pytest.mark.parametrize("model", [None, 5, ""])
def test_a_model_is_a_path_or_a_name(model: object):
    with pytest.raises(TypeError, match=f"a folder or a name such as 'monet', but this is {model!r}"):
        from_pretrained(model)  # type: ignore[arg-type]
