"""What single generators and their options promise, and the numbers of their sources; see golden/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from golden_files import about, golden_names, part_of, read, relative_error
from torch import Tensor, nn

from ganparts import GENERATORS
from ganparts.blocks import recompute_blocks, residual_output
from ganparts.generators import (
    AdaLIN,
    AttentionGANGenerator,
    GANILLAGenerator,
    LayerInstanceNorm2d,
    TimmUNetGenerator,
    UGATITGenerator,
    UNetViTGenerator,
)
from ganparts.interchange import export_generator, load_onnx
from ganparts.translate import TilingError, translate_tiled
from ganparts.translate.tiles import fit

RESIDUAL = [name for name in GENERATORS if "residual" in GENERATORS.options(name)]


def build(name: str, **options: object) -> nn.Module:
    network = GENERATORS.create(name, width=2, **options)
    assert isinstance(network, nn.Module)
    return network


def smallest(network: nn.Module, least: int = 16) -> int:
    multiple = network.size_multiple
    assert isinstance(multiple, int)
    return -(-max(least, getattr(network, "min_size", 1)) // multiple) * multiple


def descend(values: Tensor, direction: Tensor) -> Tensor:
    """The gradient of the clamped sum at ``values`` when the loss's gradient is ``direction``."""
    values = values.clone().requires_grad_()
    residual_output(torch.zeros_like(values), values).backward(direction)
    assert values.grad is not None
    return values.grad


def test_a_residual_outputs_gradient_passes_inside_and_where_it_leads_back_in():
    values = torch.tensor([-3.0, -3.0, -1.0, -1.0, 0.5, 0.5, 1.0, 1.0, 3.0, 3.0])
    direction = torch.tensor([2.0, -2.0] * 5)  # a step of descent goes the other way
    assert descend(values, direction).tolist() == [0, -2, 2, -2, 2, -2, 2, -2, 2, 0]
    with torch.no_grad():
        clamped = residual_output(torch.full((2,), 0.75), torch.tensor([-0.5, 0.5]))
    assert clamped.tolist() == [0.25, 1]


def test_a_residual_output_does_not_run_away_and_comes_back_at_once():
    change = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([change], lr=0.1)

    def step(target: float) -> float:
        optimizer.zero_grad()
        ((residual_output(torch.full((1,), 0.9), change) - target) ** 2).sum().backward()
        optimizer.step()
        return 0.9 + change.item()

    reached = [step(2.0) for _ in range(100)]
    assert 1 < max(reached) < 1.3  # straight-through it would be at 21
    assert step(0.0) < reached[-1]
    assert min(step(0.0) for _ in range(20)) < 0.1


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_generator_starts_as_the_identity_and_learns(name: str):
    network = build(name, residual=True)
    images = torch.rand(2, 3, *[smallest(network, 32)] * 2) * 2 - 1
    images[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    painted = network(images)
    assert torch.equal(painted, images)
    assert torch.equal(network.eval()(images), images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(images), images)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (network.train()(images) - 0.9).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    starved = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert starved == []
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight)
        painted = network(images)
    assert painted.abs().max() <= 1
    assert (painted.abs() == 1).any()


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_generator_gives_as_many_channels_as_it_takes(name: str):
    with pytest.raises(ValueError, match=r"in_channels=1 and out_channels=3 differ: make them equal"):
        build(name, residual=True, in_channels=1)
    with torch.device("meta"):
        assert build(name, residual=True, in_channels=1, out_channels=1)
    keys = [build(name, residual=residual).state_dict().keys() for residual in (True, False)]
    assert keys[0] == keys[1]


def awake(name: str, **options: object) -> nn.Module:
    """A residual generator that changes its input, as a trained one does."""
    network = build(name, residual=True, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


@pytest.mark.filterwarnings("ignore")  # the exporters deprecate their own functions
@pytest.mark.parametrize(("name", "kind"), [("painter", "onnx"), ("keras_unet256", "pt2")])
def test_a_residual_generator_is_exported(tmp_path, name: str, kind: str):
    network = awake(name)
    assert export_generator(network, tmp_path / f"x.{kind}") <= 1e-4
    images = torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        painted = network.eval()(images)
    assert (painted - images).abs().max() > 0.01
    if kind == "onnx":
        torch.testing.assert_close(load_onnx(tmp_path / "x.onnx")(images), painted, rtol=0, atol=1e-4)
    else:  # as somebody exports it without no_grad
        program = torch.export.export(network, (images,), strict=False)
        torch.testing.assert_close(program.module()(images), painted, rtol=0, atol=1e-5)
        assert not any("autograd" in str(node.target).lower() for node in program.graph.nodes)


@pytest.mark.parametrize("name", ["painter", "unet128", "keras_unet256", "ganilla", "attention_gan"])
def test_a_residual_generator_runs_in_tiles(name: str):
    network = awake(name).eval()
    image = torch.rand(3, 150, 131) * 2 - 1
    with torch.inference_mode():
        whole = network(fit(network, image[None]))[0, :, :150, :131]
    assert (translate_tiled(network, image, tile=40) - whole).abs().max() < 2e-5
    assert (whole - image).abs().max() > 0.01


def test_the_painter_paints_over_the_photo_unless_told_otherwise():
    assert build("painter").residual is True
    assert build("painter", residual=False).residual is False
    network = build("painter", in_channels=1, out_channels=3)
    assert network.residual is False
    assert network(torch.rand(1, 1, 16, 16)).shape == (1, 3, 16, 16)
    assert any(isinstance(layer, nn.Tanh) for layer in network.modules())


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("painter", 4), ("resnet6", 6), ("ganilla", 8), ("attention_gan", 9), ("ugatit", 8), ("unet_vit", 12)],
)
def test_blocks_are_computed_again_on_demand(name: str, blocks: int):
    network = awake(name).double().eval()
    images = torch.rand(1, 3, *[smallest(network, 32)] * 2, dtype=torch.float64) * 2 - 1
    grads = []
    for recompute in (False, True):
        assert recompute_blocks(network, recompute) == blocks
        network.zero_grad()
        network(images).square().mean().backward()
        grads.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for kept, again in zip(*grads, strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-12, atol=0)


def assert_golden_gradients(golden: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """What backward left, against the recorded (sum, sum of absolute values) of each tensor."""
    recorded = part_of(dict(golden), "grad.")
    assert recorded.keys() == parameters.keys()
    for name, (total, absolute) in recorded.items():
        gradient = parameters[name].grad
        if gradient is None:  # a bias that a norm cancels
            assert absolute < 1e-12, name
            continue
        assert abs(gradient.sum() - total) <= 1e-9 * absolute + 1e-12, name
        assert abs(gradient.abs().sum() - absolute) <= 1e-9 * absolute + 1e-12, name


def count(keys: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[0] for key in keys if (match := re.match(pattern, key))})


@pytest.mark.parametrize("name", golden_names("uvcgan2_vitmodnet*"))
def test_unet_vit_golden(name: str):
    golden, settings = read(name), json.loads(about(name)["args"])
    network = UNetViTGenerator(
        levels=settings["modnet_features_list"],
        channels=settings["features"],
        heads=settings["n_heads"],
        blocks=settings["n_blocks"],
        hidden=settings["ffn_features"],
        code=settings["embed_features"],
    ).double()
    network.load_state_dict(part_of(golden, "weights."))
    seen: list[tuple[Any, ...]] = []
    network.get_submodule("net.modnet" + ".inner_module" * len(settings["modnet_features_list"])).register_forward_hook(
        lambda module, given, result: seen.append((given[0], *result))
    )
    images = golden["input"].requires_grad_()  # in [0, 1]
    painted = 0.5 * network(2 * images - 1) + 0.5
    assert relative_error(painted, golden["output"]) < 1e-9
    for value, key in zip(seen[0], ("bottleneck_in", "bottleneck_out", "style"), strict=True):
        assert relative_error(value, golden[key]) < 1e-9
    painted.square().mean().backward()
    assert_golden_gradients(golden, {**dict(network.named_parameters()), "input": images})


@pytest.mark.parametrize("name", golden_names("ugatit_light*") + golden_names("ugatit_full*"))
def test_ugatit_golden(name: str):
    golden = read(name)
    weights = part_of(golden, "weights.")
    channels = weights["conv1x1.weight"].shape[0]
    images = golden["input"].requires_grad_()
    network = UGATITGenerator(
        width=channels // 4,
        blocks=count(weights, r"UpBlock1_\d+"),
        light=weights["FC.0.weight"].shape[1] == channels,
        img_size=images.shape[-1],
    ).double()
    network.load_state_dict(weights)
    image, logits, heatmap = network.forward_with_attention(images)
    assert relative_error(image, golden["output.image"]) < 1e-9
    assert relative_error(logits, golden["output.cam"]) < 1e-9
    assert relative_error(heatmap, golden["output.heatmap"]) < 1e-9
    assert torch.equal(network(images), image)
    torch.stack([output.square().mean() for output in (image, logits, heatmap)]).sum().backward()
    assert_golden_gradients(golden, {**dict(network.named_parameters()), "input": images})


@pytest.mark.parametrize("name", golden_names("ugatit_norms*"))
def test_the_norms_of_ugatit_golden(name: str):
    golden = read(name)
    channels = golden["input"].shape[1]
    for kind, norm in (("adalin", AdaLIN(channels)), ("lin", LayerInstanceNorm2d(channels))):
        norm.double()
        given = {"input": golden["input"].clone()} | part_of(golden, f"{kind}.")
        for key, parameter in norm.named_parameters():
            parameter.data.copy_(given.pop(key))
        inputs = [given[key].requires_grad_() for key in ("input", "gamma", "beta") if key in given]
        output = norm(*inputs)
        assert relative_error(output, golden[f"{kind}.output"]) < 1e-9
        output.square().mean().backward()
        values = {**given, **dict(norm.named_parameters())}
        for key, gradient in part_of(golden, f"{kind}.grad.").items():
            assert relative_error(values[key].grad, gradient) < 1e-9, (kind, key)


@pytest.mark.parametrize("name", golden_names("ganilla*"))
def test_ganilla_golden(name: str):
    golden = read(name)
    weights = part_of(golden, "weights.")
    blocks = [count(weights, rf"layer{stage}\.\d+") for stage in range(1, 5)]
    network = GANILLAGenerator(width=weights["conv1.weight"].shape[0], blocks=blocks).double().eval()
    assert_golden(network, golden, dropped=0.5)


@pytest.mark.parametrize("name", golden_names("attentiongan*"))
def test_attention_gan_golden(name: str):
    golden = read(name)
    weights = part_of(golden, "weights.")
    blocks = count(weights, r"resnet_blocks\.\d+")
    network = AttentionGANGenerator(width=weights["conv1.weight"].shape[0], blocks=blocks).double()
    assert_golden(network, golden)
    _, pictures, attention = network.forward_with_maps(golden["input"])
    assert relative_error(attention.sum((2, 3)), golden["attention.sum"]) < 1e-9
    assert relative_error(pictures.sum((2, 3)), golden["content.sum"]) < 1e-9
    assert relative_error(pictures.abs().sum((2, 3)), golden["content.abs"]) < 1e-9


def assert_golden(network: nn.Module, golden: dict[str, Tensor], *, dropped: float = 0.0) -> None:
    network.load_state_dict(part_of(golden, "weights."))
    images = golden["input"].clone().requires_grad_()
    painted = network(images)
    assert relative_error(painted, golden["output"]) < 1e-9
    painted.square().mean().backward()
    assert_golden_gradients(golden, {**dict(network.named_parameters()), "input": images})
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == (
        {dropped} if dropped else set()
    )


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("unet_vit", {}, 32_192_231),
        ("ugatit", {}, 10_589_888),
        ("ugatit", {"light": False}, 278_959_808),
        ("ganilla", {}, 7_228_419),
        ("ganilla", {"depth": 34}, 13_274_115),
        ("attention_gan", {}, 11_822_949),
        ("timm_unet", {}, 5_198_451),
        ("timm_unet", {"encoder": "convnext_tiny"}, 31_929_043),
        ("timm_unet", {"encoder": "mobilenetv3_large_100"}, 6_686_115),
    ],
)
def test_parameter_counts_are_the_sources(name: str, options: dict[str, object], parameters: int):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in GENERATORS.create(name, **options).parameters()) == parameters


def test_rho_stays_between_0_and_1():
    network = UGATITGenerator(width=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.3)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.rand(1, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    rhos = [parameter for name, parameter in network.named_parameters() if name.endswith(".rho")]
    before = [(rho.data_ptr(), rho.detach().clone()) for rho in rhos]
    others = [p.detach().clone() for name, p in network.named_parameters() if not name.endswith(".rho")]
    assert len(rhos) == 10
    assert min(rho.min() for rho in rhos) < 0
    assert max(rho.max() for rho in rhos) > 1
    network.constrain()
    for rho, (place, value) in zip(rhos, before, strict=True):
        assert rho.data_ptr() == place  # in place: a recorded step and an optimizer go on with it
        assert torch.equal(rho, value.clamp(0, 1))
    unchanged = [p for name, p in network.named_parameters() if not name.endswith(".rho")]
    assert all(torch.equal(a, b) for a, b in zip(unchanged, others, strict=True))


def test_sizes_that_a_generator_cannot_take_are_refused():
    with pytest.raises(ValueError, match=r"img_size=30 is not a multiple of 4 from 8 on: take 28"):
        UGATITGenerator(img_size=30)
    with pytest.raises(ValueError, match=r"64x32, but this network was built for 32x32: resize .*or with light=True"):
        UGATITGenerator(width=2, light=False, img_size=32)(torch.zeros(1, 3, 64, 32))
    with pytest.raises(ValueError, match="heads=5 does not divide the transformer's 16 channels"):
        GENERATORS.create("unet_vit", width=2, heads=5)
    with pytest.raises(ValueError, match=r"depth=50 is not known: use one of 18, 34"):
        GENERATORS.create("ganilla", depth=50)
    with pytest.raises(ValueError, match="16x16, but GANILLAGenerator needs at least 32x32"):
        GENERATORS.create("ganilla", width=2)(torch.zeros(1, 3, 16, 16))
    with pytest.raises(
        ValueError, match="mixes its input into its output, but in_channels=2 and out_channels=3 differ"
    ):
        GENERATORS.create("attention_gan", in_channels=2)


def test_place_codes_of_any_shape_go_from_minus_1_to_1():
    code = build("unet_vit").get_submodule("net.modnet" + ".inner_module" * 4 + ".trans_input.embed")
    seen = []
    code.get_submodule("projector").register_forward_hook(lambda module, given, result: seen.append(given[0]))
    for height, width in ((2, 3), (1, 2)):
        code(height, width)
    assert seen[0].tolist() == [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]
    assert seen[1].tolist() == [[-1, -1], [-1, 1]]


def test_what_sees_the_whole_picture_is_not_tiled():
    for name in ("ugatit", "unet_vit"):
        network = build(name).eval()
        assert network.tileable is False
        with pytest.raises(TilingError, match=r"takes pictures whole, not in tiles: make the picture smaller"):
            translate_tiled(network, torch.zeros(3, 64, 64), tile=8)


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "coarser"), [("resnet18", 0), ("convnext_atto", 1), ("test_mambaout", 1)])
def test_the_unet_on_an_encoder_of_timm_is_the_sources(encoder: str, coarser: int):
    """Against its formula, on timm's own features of the image as the encoder was trained to see it."""
    network = GENERATORS.create("timm_unet", encoder=encoder, width=2)
    assert isinstance(network, TimmUNetGenerator)
    network.double().eval()
    for name, tensor in network.decoder.state_dict().items():
        if tensor.is_floating_point():  # statistics and scales of the norms, too
            tensor.copy_(torch.rand_like(tensor) + (0.5 if "running_var" in name else -0.3))
    w = network.state_dict()
    images = torch.rand(1, 3, 224, 224, dtype=torch.float64) * 2 - 1
    config = timm.get_pretrained_cfg(encoder)
    assert config is not None
    mean, std = (torch.tensor(x)[:, None, None] for x in (config.mean, config.std))
    mean, scale = (2 * mean - 1).double(), (0.5 / std).double()  # rounded to float32, of images in [-1, 1]
    stages = list(network.encoder.model((images - mean) * scale))
    if encoder == "test_mambaout":  # channels come last
        stages = [stage.permute(0, 3, 1, 2) for stage in stages]
    x = stages.pop()
    for block in range(5):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if stages:
            x = torch.cat([x, stages.pop()], 1)
        for conv in (f"decoder.blocks.{block}.conv1", f"decoder.blocks.{block}.conv2"):
            x = nn.functional.conv2d(x, w[f"{conv}.0.weight"], padding=1)
            norm = [w[f"{conv}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")]
            x = ((x - norm[0]) / (norm[1] + 1e-5).sqrt() * norm[2] + norm[3]).relu()
        assert x.shape[1:] == (2 * 2 ** (4 - block), 224 // 2 ** (4 - block), 224 // 2 ** (4 - block))
    expected = nn.functional.conv2d(x, w["segmentation_head.0.weight"], w["segmentation_head.0.bias"], padding=1).tanh()
    assert expected.std() > 0.01
    assert relative_error(network(images), expected) < 1e-9
    assert network.encoder.strides[0] == 2 * 2**coarser


def test_an_encoder_of_ones_own_is_normalised_as_it_was_trained(tmp_path: Path):
    saved = timm.create_model("test_resnet", pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    timm.models.save_for_hf(saved, tmp_path)
    encoder = GENERATORS.create("timm_unet", encoder=f"local-dir:{tmp_path}").get_submodule("encoder")
    torch.testing.assert_close(encoder.get_buffer("mean").flatten(), torch.tensor([-0.8, -0.6, -0.4]))
    torch.testing.assert_close(encoder.get_buffer("scale").flatten(), 0.5 / torch.tensor([0.4, 0.5, 0.6]))


def test_an_encoder_says_whether_it_runs_in_tiles():
    with torch.device("meta"):
        for encoder in ("resnet18", "tf_efficientnet_lite0", "hrnet_w18_small", "resnetblur50"):
            assert GENERATORS.create("timm_unet", encoder=encoder).tileable is True  # pyright: ignore[reportAttributeAccessIssue]
        for encoder in ("mobilenetv3_small_050", "skresnet18", "convnext_atto"):
            assert GENERATORS.create("timm_unet", encoder=encoder).tileable is False  # pyright: ignore[reportAttributeAccessIssue]
    network = GENERATORS.create("timm_unet", encoder="test_convnext", width=2).eval()
    with pytest.raises(TilingError, match=r"takes pictures whole, not in tiles"):
        translate_tiled(network, torch.zeros(3, 128, 64), tile=64)


def test_an_encoder_that_makes_no_unet_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ValueError, match=r"'vit_tiny_patch16_224' gives features at strides \[16, 16, 16\], .*'resnet18'"
    ):
        GENERATORS.create("timm_unet", encoder="vit_tiny_patch16_224")
    fixed = r"'swin_tiny_patch4_window7_224' does not take images of 64x96 \(.*\), but a U-Net needs any multiple of 32"
    with torch.device("meta"), pytest.raises(ValueError, match=fixed):
        GENERATORS.create("timm_unet", encoder="swin_tiny_patch4_window7_224")
    with pytest.raises(ValueError, match=r"cannot build the encoder 'nix' .*Unknown model .*see timm.list_models"):
        GENERATORS.create("timm_unet", encoder="nix")

    def offline(*_: object, **options: object):
        raise OSError(f"no network {options['pretrained']}")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        ValueError, match=r"pretrained=True\): no network True: check the network, or use pretrained=False"
    ):
        GENERATORS.create("timm_unet", pretrained=True)
    monkeypatch.undo()
    with torch.device("meta"):  # nothing is fetched where nothing is filled
        assert GENERATORS.create("timm_unet", pretrained=True)


def test_lists_that_do_not_fit_a_generator_are_refused():
    for blocks in ((2, 2, 2), (2, 2, 2, 2, 2)):
        with pytest.raises(ValueError, match=r"^blocks=\(2, 2, 2.*\): give four numbers, one for each stage"):
            GANILLAGenerator(width=2, blocks=blocks)
    with pytest.raises(ValueError, match=r"^blocks=0: give a whole number, at least 1"):
        GANILLAGenerator(width=2, blocks=(2, 0, 2, 2))
    with pytest.raises(ValueError, match=r"^levels=\(\): give the channels of at least one level"):
        UNetViTGenerator(levels=())
    with pytest.raises(ValueError, match=r"^levels=0: give a whole number, at least 1"):
        UNetViTGenerator(levels=(0, 4))


def test_the_norms_of_the_unet_on_timm_say_whether_images_are_independent():
    with torch.device("meta"):
        for encoder, norm, independent in (
            ("convnext_atto", "instance", True),
            ("convnext_atto", "batch", False),
            ("resnet18", "instance", False),
        ):
            network = GENERATORS.create("timm_unet", encoder=encoder, norm=norm)
            assert network.images_are_independent is independent  # pyright: ignore[reportAttributeAccessIssue]
