"""CUT's antialiased networks, and the features of both ResNets."""

from __future__ import annotations

import pytest
import torch
from golden_files import golden_names, part_of, read, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from ganparts import DISCRIMINATORS, GENERATORS
from ganparts.blocks import BlurDownsample, BlurUpsample, recompute_blocks
from ganparts.discriminators import PatchGAN
from ganparts.generators import AntialiasedResNetGenerator, ResNetGenerator


def sums(tensor: Tensor) -> Tensor:
    return torch.stack([tensor.sum(), tensor.abs().sum()])


def assert_gradients(network: nn.Module, images: Tensor, golden: dict[str, Tensor]) -> None:
    """(sum, absolute sum) of each; a bias that a norm cancels has none here, and rounding noise there."""
    found = {name: parameter.grad for name, parameter in network.named_parameters()} | {"input": images.grad}
    expected = part_of(golden, "grad.")
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        value = torch.zeros(2, dtype=torch.float64) if grad is None else sums(grad)
        assert (value - expected[name]).abs().max() <= 1e-9 * expected[name][1] + 1e-12, name


@pytest.mark.parametrize("name", golden_names("cut_resnet*aa_*"))
def test_golden_generators_outputs_features_and_gradients(name: str):
    golden = read(name)
    weights = part_of(golden, "weights.")
    width, channels = weights["model.1.weight"].shape[:2]
    blocks = len({key.split(".")[1] for key in weights if "conv_block" in key})
    last = max((key for key in weights if key.endswith(".bias")), key=lambda key: int(key.split(".")[1]))
    network = AntialiasedResNetGenerator(channels, len(weights[last]), width=width, blocks=blocks).double()
    layers = sorted(int(key.split(".")[1]) for key in golden if key.startswith("feat.") and key.endswith(".shape"))
    assert tuple(layers) == network.nce_layers
    filters = {key: tensor.clone() for key, tensor in network.named_buffers()}
    network.load_state_dict(weights)
    assert all(torch.equal(filters[key], weights[key]) for key in filters)

    images = golden["input"].requires_grad_()
    output, features = network.forward_with_features(images, layers)
    assert relative_error(output, golden["output"]) < 1e-9
    for layer, feature in zip(layers, features, strict=True):
        assert [*feature.shape] == golden[f"feat.{layer}.shape"].tolist()
        assert relative_error(feature.sum((2, 3)), golden[f"feat.{layer}.sum"]) < 1e-9
        assert relative_error(feature.abs().sum((2, 3)), golden[f"feat.{layer}.abs"]) < 1e-9
        assert relative_error(feature[:, :4, 1:6, 2:7], golden[f"feat.{layer}.slice"]) < 1e-9
    output.square().mean().backward()
    assert_gradients(network, images, golden)


@pytest.mark.parametrize("name", golden_names("cut_patchgan_aa_*"))
def test_golden_discriminators_logits_and_gradients(name: str):
    golden = read(name)
    weights = part_of(golden, "weights.")
    width, channels = weights["model.0.weight"].shape[:2]
    layers = sum(key.endswith("filt") for key in weights)
    network = PatchGAN(channels, width=width, layers=layers, antialias=True).double()
    network.load_state_dict(weights)
    images = golden["input"].requires_grad_()
    logits = network(images)
    assert relative_error(logits, golden["output"]) < 1e-9
    logits.square().mean().backward()
    assert_gradients(network, images, golden)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet9_antialias", 11_378_179), ("resnet6_antialias", 7_837_699), ("patchgan_antialias", 2_764_737)],
)
def test_parameter_counts_are_the_published_ones(name: str, count: int):
    with torch.device("meta"):
        network = (GENERATORS if name in GENERATORS else DISCRIMINATORS).create(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", ["resnet9_antialias", "patchgan_antialias"])
def test_init_is_cuts_or_cyclegans(name: str):
    table = GENERATORS if name in GENERATORS else DISCRIMINATORS
    for layer in table.create(name, width=32).modules():
        if isinstance(layer, nn.Conv2d):
            fans = (layer.in_channels + layer.out_channels) * layer.weight[0, 0].numel()
            assert layer.weight.std().item() == pytest.approx(0.02 * (2 / fans) ** 0.5, rel=0.1)
            assert not layer.bias.any()
    for layer in table.create(name, width=32, init="normal").modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ValueError, match="init='kaiming' is not known: use one of 'normal', 'xavier'"):
        table.create(name, width=2, init="kaiming")


@pytest.mark.parametrize("sides", [(2, 2), (5, 8), (7, 3)])
def test_blurs_are_their_formulas(sides: tuple[int, int]):
    features = torch.randn(2, 3, *sides, dtype=torch.float64)
    blurred = F.pad(features, (1, 1, 1, 1), "reflect").unfold(2, 3, 2).unfold(3, 3, 2)
    line = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    expected = torch.einsum("bchwij,i,j->bchw", blurred, line, line)
    torch.testing.assert_close(BlurDownsample(3).double()(features), expected)
    enlarged = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(BlurUpsample(3).double()(features), enlarged)


def test_blurs_are_not_trained_and_belong_to_the_weights():
    for layer in (BlurDownsample(3), BlurUpsample(3)):
        assert not list(layer.parameters())
        assert [*layer.state_dict()] == ["filt"]


RESNETS = [
    *((AntialiasedResNetGenerator, norm) for norm in ("instance", "batch", "none")),
    *((ResNetGenerator, norm) for norm in ("instance", "batch", "none")),
]


@pytest.mark.parametrize(("kind", "norm"), RESNETS)
def test_every_feature_is_what_its_layer_gives(kind, norm):
    """Also where an activation works in place on it, at once or, without a norm, one layer later."""
    network = kind(width=2, blocks=2, norm=norm).double()
    images = torch.randn(2, 3, 12, 16, dtype=torch.float64)
    expected, values = [], images
    for layer in network.model:
        values = layer(values.clone())
        expected.append(values.clone())
    everything = range(len(network.model))
    output, features = network.forward_with_features(images, everything)
    assert torch.equal(output, network(images))
    for found in (features, network.features(images, everything)):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert network.feature_channels(everything) == [feature.shape[1] for feature in expected]
    some = [10, 0, 4, 10]
    assert all(torch.equal(f, expected[n]) for n, f in zip(some, network.features(images, some), strict=True))
    sum(feature.sum() for feature in features).backward()


@pytest.mark.parametrize("kind", [ResNetGenerator, AntialiasedResNetGenerator])
def test_no_layer_after_the_last_wanted_one_is_computed(kind):
    network = kind(width=2, blocks=5)
    ran = []
    for number, layer in enumerate(network.model):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    network.features(torch.rand(1, 3, 16, 16), network.nce_layers)
    assert ran == [*range(network.nce_layers[-1] + 1)]
    ran.clear()
    network.forward_with_features(torch.rand(1, 3, 16, 16), network.nce_layers)
    assert ran == [*range(len(network.model))]


@pytest.mark.parametrize(
    ("kind", "blocks", "layers"),
    [
        (AntialiasedResNetGenerator, 9, (0, 4, 8, 12, 16)),
        (AntialiasedResNetGenerator, 6, (0, 4, 8, 12, 16)),
        (AntialiasedResNetGenerator, 1, (0, 4, 8, 12)),
        (ResNetGenerator, 9, (0, 4, 7, 10, 14)),
        (ResNetGenerator, 3, (0, 4, 7, 10)),
        (ResNetGenerator, 0, (0, 4, 7)),
    ],
)
def test_nce_layers_are_the_image_the_encoder_and_two_blocks(kind, blocks: int, layers: tuple[int, ...]):
    network = kind(width=2, blocks=blocks)
    assert network.nce_layers == layers
    kinds = [type(network.model[layer]).__name__ for layer in layers]
    assert kinds == ["ReflectionPad2d", "Conv2d", "Conv2d", "ResidualBlock", "ResidualBlock"][: len(layers)]
    assert network.feature_channels(layers) == [3, 4, 8, 8, 8][: len(layers)]


@pytest.mark.parametrize("kind", [ResNetGenerator, AntialiasedResNetGenerator])
def test_a_bias_that_a_feature_needs_is_trained_when_asked_for(kind):
    network = kind(width=2, blocks=5)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    network.prepare_features(network.nce_layers)
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    convolutions = network.nce_layers[1:3]
    assert frozen - still == {f"model.{layer}.bias" for layer in convolutions}
    sum(f.square().sum() for f in network.features(torch.rand(1, 3, 16, 16), network.nce_layers)).backward()
    assert all(network.model[layer].bias.grad.abs().min() > 1e-3 for layer in convolutions)


@pytest.mark.parametrize("kind", [ResNetGenerator, AntialiasedResNetGenerator])
def test_layers_and_images_that_do_not_fit_are_refused(kind):
    network = kind(width=2, blocks=1)
    last = len(network.model) - 1
    images = torch.rand(1, 3, 16, 16)
    for number in (-1, last + 1):
        for ask in (lambda n: network.features(images, n), network.feature_channels, network.prepare_features):
            with pytest.raises(ValueError, match=f"no layer {number}: this network has the layers 0 to {last}"):
                ask([0, number])
    with pytest.raises(ValueError, match="name at least one layer"):
        network.features(images, [])
    for give in (network.features, network.forward_with_features):
        with pytest.raises(ValueError, match=r"16x17.*multiples of 4"):
            give(torch.rand(1, 3, 16, 17), [0])
        with pytest.raises(ValueError, match=f"4x12, but {kind.__name__} needs at least 8x8"):
            give(torch.rand(1, 3, 4, 12), [0])
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_the_smallest_image_of_an_antialiased_patchgan():
    for layers in (1, 2, 3):
        discriminator = PatchGAN(width=2, layers=layers, antialias=True)
        size = discriminator.min_size
        assert discriminator(torch.zeros(1, 3, size, size)).shape[-2:] == (1, 1)
        with pytest.raises(RuntimeError):
            discriminator.model(torch.zeros(1, 3, size - 1, size - 1))


def test_recomputed_blocks_count_a_batch_once():
    networks = [AntialiasedResNetGenerator(width=2, blocks=2, norm="batch").double() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    assert recompute_blocks(networks[1]) == 2
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    for network in networks:
        network(images).square().sum().backward()
        loss = network(images).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        (gradient,) = torch.autograd.grad(network(images.requires_grad_()).sum(), images, create_graph=True)
        gradient.square().sum().backward()
    torch.testing.assert_close(networks[1].state_dict(), networks[0].state_dict())
    assert {layer.momentum for layer in networks[1].modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}
    compiled = torch.compile(networks[1].forward, backend="aot_eager", dynamic=False)
    for forward in (networks[0].forward, compiled):
        forward(images).square().sum().backward()
    torch.testing.assert_close(networks[1].state_dict(), networks[0].state_dict())


def test_features_train_with_recomputed_blocks_and_on_the_meta_device():
    network = AntialiasedResNetGenerator(width=2, blocks=2).double()
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    gradients = []
    for recompute in (False, True):
        for block in network.model[12:14]:
            block.recompute = recompute
        network.zero_grad()
        sum(f.square().sum() for f in network.features(images, network.nce_layers)).backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)
    meta = network.to("meta").forward_with_features(images.to("meta"), network.nce_layers)
    assert meta[0].shape == images.shape
