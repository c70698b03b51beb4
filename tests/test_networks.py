"""What every registered network promises beyond its contracts (test_testing.py), then single ones."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_parts import tiny
from torch import nn

from ganparts import DISCRIMINATORS, GENERATORS
from ganparts.blocks import InstanceNorm2d, upsampling
from ganparts.discriminators import PatchGAN, PixelDiscriminator
from ganparts.generators import AntialiasedResNetGenerator, AttentionGate, ResNetGenerator, UNetGenerator

PARAMETERS = {
    "resnet9": 11_378_179,
    "resnet6": 7_837_699,
    "painter": 1_377_411,
    "unet256": 54_409_603,
    "keras_unet256": 54_414_979,
    "patchgan": 2_764_737,
    "keras_patchgan": 2_765_569,
    "two_objective": 2_773_762,
}

PLAIN = [name for name in DISCRIMINATORS if name != "projected"]  # which has its own tests, in test_projected.py


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str):
    table = GENERATORS if name in GENERATORS else DISCRIMINATORS
    with torch.device("meta"):
        assert parameters(table.create(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_channels_are_options(name: str):
    generator = GENERATORS.create(name, width=2, in_channels=1, out_channels=2)
    size = max(16, generator.size_multiple, getattr(generator, "min_size", 1))
    assert generator(torch.zeros(1, 1, size, size)).shape == (1, 2, size, size)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_wrong_size_names_the_nearest_right_one(name: str):
    generator = GENERATORS.create(name, width=2)
    multiple = generator.size_multiple
    height, width = 4 * multiple + 1, 5 * multiple - 1
    with pytest.raises(
        ValueError, match=rf"{height}x{width}.*multiples of {multiple}.*to {4 * multiple}x{5 * multiple}$"
    ):
        generator(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize("name", GENERATORS)
def test_train_and_eval_agree_without_dropout(name: str):
    options = {"dropout": 0.0} if "dropout" in GENERATORS.options(name) else {}
    generator = GENERATORS.create(name, width=2, **options)
    if any(isinstance(layer, nn.BatchNorm2d) for layer in generator.modules()):
        assert generator.images_are_independent is False
        return
    images = torch.rand(1, 3, 256, 256)
    assert torch.equal(generator.train()(images), generator.eval()(images))


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS])
def test_networks_say_whether_images_are_independent(name: str):
    with torch.device("meta"):
        network = tiny(GENERATORS if name in GENERATORS else DISCRIMINATORS, name)()
    assert isinstance(network.images_are_independent, bool)


@pytest.mark.parametrize("name", PLAIN)
def test_discriminator_channels_are_options(name: str):
    with torch.device("meta"):
        logits = DISCRIMINATORS.create(name, width=2, in_channels=4)(torch.rand(2, 4, 256, 256))
    maps = (logits,) if isinstance(logits, torch.Tensor) else logits
    assert {each.shape[1] for each in maps} == {2 if name == "two_objective" else 1}


REFERENCE_INIT = (
    *("resnet9", "resnet6", "resnet9_antialias", "resnet6_antialias", "unet256", "unet128", "attention_unet256"),
    *("keras_unet256", "patchgan", "patchgan_antialias", "keras_patchgan", "two_objective", "pixel"),
    *("multiscale_patchgan", "munit"),
)


@pytest.mark.parametrize("name", REFERENCE_INIT)
def test_networks_initialise_themselves_as_the_reference(name: str):
    for table in (GENERATORS, DISCRIMINATORS):
        if name not in table:
            continue
        network = table.create(name, width=16)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 5000:
                fans = (layer.in_channels + layer.out_channels) * layer.weight[0, 0].numel()
                std = 0.02 * (2 / fans) ** 0.5 if name.endswith("antialias") else 0.02  # CUT's is Xavier's
                assert layer.weight.std().item() == pytest.approx(std, rel=0.1), name
                assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("norm", ["instance", "batch", "group", "none", partial(InstanceNorm2d, affine=True)])
def test_norm_is_an_option(norm):
    networks = [
        ResNetGenerator(width=4, blocks=1, norm=norm),
        UNetGenerator(width=4, levels=4, norm=norm),
        PatchGAN(width=4, norm=norm),
        DISCRIMINATORS.create("pixel", width=4, norm=norm),
    ]
    for network in networks:
        assert torch.isfinite(network(torch.rand(2, 3, 32, 32))).all()
        kinds = {type(layer) for layer in network.modules()}
        wanted = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm, "none": nn.Identity}.get(norm, InstanceNorm2d)
        assert wanted in kinds
    assert ResNetGenerator(width=4, norm="batch").model[1].bias is None


def test_keras_networks_keep_the_images_of_a_batch_apart():
    for name in ("keras_patchgan", "two_objective"):
        assert DISCRIMINATORS.create(name, width=2).images_are_independent is True
    assert GENERATORS.create("keras_unet256", width=2).images_are_independent is True


def test_networks_of_batch_norm_or_an_unknown_norm_do_not_say_so():
    for norm in ("batch", nn.BatchNorm2d):
        for kind in (ResNetGenerator, AntialiasedResNetGenerator, UNetGenerator, PatchGAN, PixelDiscriminator):
            assert kind(width=2, norm=norm).images_are_independent is False
            assert kind(width=2, norm="group").images_are_independent is True


def test_unknown_options_are_refused_by_name():
    with pytest.raises(ValueError, match=r"norm='layer' is not known: use one of 'instance'"):
        ResNetGenerator(width=2, norm="layer")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"padding='circular' is not known: use one of 'reflect'"):
        ResNetGenerator(width=2, padding="circular")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"upsample='bicubic' is not known: use one of 'transposed'"):
        UNetGenerator(width=2, upsample="bicubic")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="levels=1"):
        UNetGenerator(width=2, levels=1)
    with pytest.raises(ValueError, match="layers=0"):
        PatchGAN(layers=0)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
def test_residual_padding_changes_borders_alone(padding):
    networks = []
    for kind in (padding, "reflect"):
        torch.manual_seed(1)
        networks.append(ResNetGenerator(width=2, blocks=1, padding=kind, norm="none").model[:-1])
    images = torch.rand(1, 3, 64, 64)
    generated, plain = (network(images) for network in networks)
    same = ((generated - plain).abs() <= 1e-6 * plain.abs().max())[0].all(0)
    assert same[24:40, 24:40].all()
    assert same.all() == (padding == "reflect")


def test_dropout_acts_in_training_only():
    for generator in (ResNetGenerator(width=4, blocks=2, dropout=0.5), UNetGenerator(width=4, levels=7, dropout=0.5)):
        images = torch.rand(1, 3, 128, 128)
        generator.train()
        assert not torch.equal(generator(images), generator(images))
        generator.eval()
        assert torch.equal(generator(images), generator(images))
    assert sum(isinstance(layer, nn.Dropout) for layer in UNetGenerator(width=2, dropout=0.5).modules()) == 3


def phase_spread(upsample) -> float:
    """How much the mean response of an upsampling depends on the position modulo 2: the checkerboard."""
    torch.manual_seed(0)
    linear = ResNetGenerator(width=8, blocks=1, upsample=upsample, norm="none").double().model[:-1]
    for parameter in linear.parameters():
        parameter.data.abs_()  # so that kernels which overlap unevenly show
    painted = linear(torch.full((1, 3, 64, 64), 0.5, dtype=torch.float64))[0, 0, 24:40, 24:40]
    phases = torch.stack([painted[y::2, x::2].mean() for y in (0, 1) for x in (0, 1)])
    return ((phases.max() - phases.min()) / painted.mean()).item()


def test_resize_conv_has_no_checkerboard():
    assert phase_spread("resize_conv") < 1e-12
    assert phase_spread("bilinear") < 1e-12
    assert phase_spread("transposed") > 1e-3


def steps_on_a_slope(upsample) -> float:
    """How far an upsampled slope is from a straight line: nearest neighbour makes steps of it, seen as a weave."""
    layers = nn.Sequential(*upsampling(1, 1, 3, upsample)).double()
    slope = torch.arange(16, dtype=torch.float64).expand(1, 1, 16, 16)
    return layers(slope)[..., 4:-4].diff(n=2).abs().max().item()


def test_bilinear_makes_no_steps_of_a_slope():
    assert steps_on_a_slope("bilinear") < 1e-12
    assert steps_on_a_slope("resize_conv") > 1e-3


def frame(**options) -> float:
    """How far a painting of one colour is from one colour, as the paddings leave the borders."""
    torch.manual_seed(0)
    generator = GENERATORS.create("painter", width=8, norm="none", residual=False, **options).double()
    painted = generator(torch.full((1, 3, 64, 64), 0.5, dtype=torch.float64))
    return (painted - painted.mean((2, 3), keepdim=True)).abs().max().item()


def test_the_painter_leaves_no_frame_at_the_borders():
    assert frame() < 1e-12
    assert frame(strided_padding="replicate") < 1e-12
    assert frame(strided_padding="zero") > 1e-6
    with pytest.raises(ValueError, match="strided_padding='mirror' is not known: use one of 'reflect', 'replicate'"):
        frame(strided_padding="mirror")
    weights = GENERATORS.create("painter").state_dict()
    GENERATORS.create("painter", strided_padding="zero", upsample="bilinear").load_state_dict(weights)


def test_every_skip_of_the_attention_unet_is_gated():
    generator = GENERATORS.create("attention_unet256", width=4)
    gates = [layer for layer in generator.modules() if isinstance(layer, AttentionGate)]
    assert len(gates) == 7
    plain = GENERATORS.create("unet256", width=4)
    gated_keys = {key for key in generator.state_dict() if ".gate." not in key and not key.startswith("gate.")}
    assert gated_keys == plain.state_dict().keys()


def test_an_attention_gate_is_the_papers_formula():
    gate = AttentionGate(4, 6).double()
    skip, signal = torch.randn(2, 4, 8, 8, dtype=torch.float64), torch.randn(2, 6, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        patches = skip.unfold(2, 2, 2).unfold(3, 2, 2)  # [B, C, 4, 4, 2, 2]
        theta = torch.einsum("bchwij,ocij->bohw", patches, gate.skip.weight)
        phi = torch.einsum("bchw,oc->bohw", signal, gate.signal.weight[..., 0, 0]) + gate.signal.bias[:, None, None]
        psi = torch.einsum("bchw,oc->bohw", (theta + phi).clamp(min=0), gate.score.weight[..., 0, 0]) + gate.score.bias
        alpha = nn.Upsample(scale_factor=2, mode="bilinear")(1 / (1 + torch.exp(-psi)))
        torch.testing.assert_close(gate(skip, signal), alpha * skip)
    assert gate.skip.weight.shape == (2, 4, 2, 2)


def test_the_unet_of_each_depth_takes_its_smallest_size():
    for levels in (2, 5, 7):
        generator = UNetGenerator(width=2, levels=levels)
        assert generator.size_multiple == 2**levels
        assert generator(torch.rand(1, 3, 2**levels, 2**levels)).shape[-1] == 2**levels


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_patchgan_patches_and_smallest_image(layers: int):
    discriminator = PatchGAN(width=2, layers=layers, norm="none").double()
    size = discriminator.min_size
    assert discriminator(torch.zeros(1, 3, size, size, dtype=torch.float64)).shape[-2:] == (1, 1)
    with pytest.raises(ValueError, match=rf"{size - 1}x{size}.*at least {size}x{size}: resize or pad them"):
        discriminator(torch.zeros(1, 3, size - 1, size))
    images = torch.rand(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    logits = discriminator(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    touched = images.grad.abs().sum((0, 1, 2)).nonzero()
    assert touched.max() - touched.min() + 1 == {1: 16, 2: 34, 3: 70, 4: 142}[layers]


def test_convolution_biases_that_a_norm_cancels_need_no_gradient():
    frozen = [n for n, p in PatchGAN(width=2).named_parameters() if not p.requires_grad]
    assert frozen == ["model.2.bias", "model.5.bias", "model.8.bias"]
    assert all(p.requires_grad for p in PatchGAN(width=2, norm="group").parameters())


def keras_norm(x, scale, shift):
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-3).sqrt() * scale[:, None, None] + shift[:, None, None]


def leaky(x):
    return torch.where(x > 0, x, 0.3 * x)


def lively(network: nn.Module) -> dict[str, torch.Tensor]:
    """Makes every weight matter, and gives them by name."""
    network.double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    return dict(network.named_parameters())


@torch.no_grad()
def test_the_keras_unet_is_the_tutorials():
    network = GENERATORS.create("keras_unet256", width=2)
    w = lively(network)
    conv, transposed = nn.functional.conv2d, nn.functional.conv_transpose2d
    images = torch.randn(1, 3, 256, 256, dtype=torch.float64)
    x, skips = images, []
    for level in range(8):
        x = conv(x, w[f"down.{level}.0.weight"], stride=2, padding=1)
        if level:
            x = keras_norm(x, w[f"down.{level}.1.weight"], w[f"down.{level}.1.bias"])
        x = leaky(x)
        skips.append(x)
    assert x.shape == (1, 16, 1, 1)
    for level in range(7):
        x = transposed(x, w[f"up.{level}.0.weight"], stride=2, padding=1)
        x = keras_norm(x, w[f"up.{level}.1.weight"], w[f"up.{level}.1.bias"]).relu()
        x = torch.cat([x, skips[6 - level]], 1)
    expected = torch.tanh(transposed(x, w["last.0.weight"], w["last.0.bias"], stride=2, padding=1))
    torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-9)
    dropped = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert dropped == [0.5, 0.5, 0.5]
    assert all(isinstance(network.up[i][2], nn.Dropout) for i in range(3))


@torch.no_grad()
@pytest.mark.parametrize(("name", "objectives"), [("keras_patchgan", 1), ("two_objective", 2)])
def test_the_keras_patchgan_is_the_tutorials(name, objectives):
    network = DISCRIMINATORS.create(name, width=2)
    w = lively(network)
    x = images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for place, stride in ((0, 2), (2, 2), (5, 2), (8, 1)):
        x = nn.functional.conv2d(x, w[f"model.{place}.weight"], stride=stride, padding=1)
        if place:
            x = keras_norm(x, w[f"model.{place + 1}.weight"], w[f"model.{place + 1}.bias"])
        x = leaky(x)
    expected = nn.functional.conv2d(x, w["model.11.weight"], w["model.11.bias"], padding=1)
    assert expected.shape[1] == objectives
    torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-9)


def test_channels_double_up_to_8_times_the_width():
    convs = [layer for layer in PatchGAN(width=2, layers=5).modules() if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [2, 4, 8, 16, 16, 16, 1]
    convs = [layer for layer in UNetGenerator(width=2, levels=6).modules() if isinstance(layer, nn.Conv2d)]
    assert sorted(conv.out_channels for conv in convs) == [2, 4, 8, 16, 16, 16]


@pytest.mark.parametrize("name", [*GENERATORS, *DISCRIMINATORS])
def test_images_of_a_wrong_kind_are_refused(name):
    network = (GENERATORS if name in GENERATORS else DISCRIMINATORS).create(name, width=2)
    with pytest.raises(ValueError, match=rf"{type(network).__name__} .* with C=3, .*\[1, 1, 256, 256\].*in_channels=1"):
        network(torch.rand(1, 1, 256, 256))
    with pytest.raises(ValueError, match=r"floats in \[-1, 1\], but these are torch\.uint8"):
        network(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape \[3, 256, 256\]: a single one is image\[None\]"):
        network(torch.rand(3, 256, 256))


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_the_smallest_image_of_a_resnet(padding):
    generator = ResNetGenerator(width=2, blocks=1, padding=padding)
    assert generator(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="4x12, but ResNetGenerator needs at least 8x8"):
        generator(torch.rand(1, 3, 4, 12))


@torch.no_grad()
def test_the_pixel_discriminator_is_the_papers():
    network = DISCRIMINATORS.create("pixel", width=2)
    w = lively(network)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    x = nn.functional.leaky_relu(nn.functional.conv2d(images, w["net.0.weight"], w["net.0.bias"]), 0.2)
    x = nn.functional.instance_norm(nn.functional.conv2d(x, w["net.2.weight"]), eps=1e-5)
    expected = nn.functional.conv2d(nn.functional.leaky_relu(x, 0.2), w["net.5.weight"], w["net.5.bias"])
    torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_an_attention_level_gates_its_skip_by_what_it_upsamples():
    network = UNetGenerator(width=2, levels=3, attention=True)
    lively(network)
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    top = network.model
    level, bottom = top.model[1], top.model[1].model[3]
    assert level.gate is not None
    assert bottom.gate is not None
    first = top.model[0](images)
    skip = first
    inner = level.model[2](level.model[1](nn.functional.leaky_relu(skip, 0.2)))
    deepest = bottom.model[1](nn.functional.leaky_relu(inner, 0.2))
    up = bottom.model[4](bottom.model[3](deepest.relu()))
    signal = torch.cat([bottom.gate(inner, deepest), up], 1)
    up = level.model[6](level.model[5](signal.relu()))
    joined = torch.cat([level.gate(skip, signal), up], 1)
    expected = torch.tanh(top.model[3](joined.relu()))
    torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)


def test_batch_norms_scale_is_initialised_around_one():
    scales = torch.cat(
        [layer.weight for layer in PatchGAN(norm="batch").modules() if isinstance(layer, nn.BatchNorm2d)]
    )
    assert scales.mean().item() == pytest.approx(1.0, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.15)
