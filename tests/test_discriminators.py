"""The discriminators of other papers, against golden values and against their formulas."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from golden_files import golden_names, part_of, read, relative_error
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as hooked_spectral_norm

from ganparts import DISCRIMINATORS
from ganparts.blocks import ReflectionPad2d
from ganparts.discriminators import (
    BatchHeadDiscriminator,
    FeatureQueue,
    MultiScalePatchGAN,
    R3GANDiscriminator,
    StyleGAN2Discriminator,
    UGATITDiscriminator,
    UNetDiscriminator,
)
from ganparts.testing import check_discriminator

EXACT = 1e-9


def fingerprint(tensor: Tensor) -> Tensor:
    return torch.stack([tensor.sum(), tensor.abs().sum()])


def check_gradients(network: nn.Module, golden: dict[str, Tensor], prefix: str) -> None:
    """Every gradient in the file is the network's; a bias without gradient is one that a norm cancels."""
    parameters = dict(network.named_parameters())
    expected = part_of(golden, prefix)
    expected.pop("input", None)
    assert expected.keys() == parameters.keys()
    for name, value in expected.items():
        gradient = parameters[name].grad
        if gradient is None:
            assert value.abs().max() < 1e-12
            assert name.endswith("bias")
        else:
            assert (fingerprint(gradient) - value).abs().max() <= EXACT * value[1].item() + 1e-12, name


def backward(*outputs: Tensor) -> None:
    torch.stack([output.square().mean() for output in outputs]).sum().backward()


@pytest.mark.parametrize("name", golden_names("pix2pixhd_multiscale*"))
def test_multiscale_golden(name):
    golden = read(name)
    weights = part_of(golden, "weights.")
    scales = len({key.split(".")[0] for key in weights})
    convs = sum(key.startswith("layer0.") and key.endswith(".weight") and weights[key].ndim == 4 for key in weights)
    width, in_channels = weights["layer0.0.weight"].shape[:2]
    network = MultiScalePatchGAN(in_channels, width=width, scales=scales, layers=convs - 2).double()
    network.load_state_dict(weights)
    images = golden["input"].requires_grad_()
    maps = network(images)
    assert len(maps) == scales
    for scale, logits in enumerate(maps):
        assert relative_error(logits, golden[f"output.{scale}"]) < EXACT
    real = torch.stack([(logits - 1).square().mean() for logits in maps]).sum()
    fake = torch.stack([logits.square().mean() for logits in maps]).sum()
    assert relative_error(real, golden["lsgan.real"]) < EXACT
    assert relative_error(fake, golden["lsgan.fake"]) < EXACT
    backward(*maps)
    check_gradients(network, golden, "grad.")
    assert images.grad is not None
    assert relative_error(fingerprint(images.grad), golden["grad.input"]) < EXACT


@pytest.mark.parametrize("name", golden_names("ugatit_disc*"))
def test_ugatit_golden(name):
    golden = read(name)
    weights = part_of(golden, "weights.")
    layers = 1 + sum(key.startswith("model.") and key.endswith("weight_orig") for key in weights)
    width, in_channels = weights["model.1.weight_orig"].shape[:2]
    network = UGATITDiscriminator(in_channels, width=width, layers=layers).double()

    def load() -> None:
        missing, unexpected = network.load_state_dict(weights, strict=False)
        assert not unexpected
        assert not missing

    def check(prefix: str, image: Tensor, cam: Tensor, heatmap: Tensor) -> None:
        assert relative_error(image, golden[f"{prefix}.image"]) < EXACT
        assert relative_error(cam.flatten(1), golden[f"{prefix}.cam"]) < EXACT
        assert relative_error(heatmap, golden[f"{prefix}.heatmap"]) < EXACT

    load()
    with torch.no_grad():
        check("output_eval", *network.eval().forward_with_attention(golden["input"]))
        for key, value in network.state_dict().items():
            if key.endswith("weight_orig"):
                u, _, v = torch.linalg.svd(value.flatten(1), full_matrices=False)
                network.get_buffer(key.replace("_orig", "_u")).copy_(u[:, 0])
                network.get_buffer(key.replace("_orig", "_v")).copy_(v[0])
        check("output_svd", *network(golden["input"]), network.forward_with_attention(golden["input"])[2])
    load()
    images = golden["input"].requires_grad_()
    outputs = network.train().forward_with_attention(images)
    assert outputs[1].shape == (len(images), 1, 2, 1)
    check("output", *outputs)
    buffers = dict(network.named_buffers())
    for key, value in part_of(golden, "after.").items():
        assert relative_error(buffers[key], value) < EXACT, key
    backward(*outputs)
    check_gradients(network, golden, "grad.")
    assert images.grad is not None
    assert relative_error(fingerprint(images.grad), golden["grad.input"]) < EXACT


def batch_head_of(weights: dict[str, Tensor]) -> BatchHeadDiscriminator:
    convs = sum(key.startswith("_body.") and key.endswith("original") for key in weights)
    width, in_channels = weights["_body.model.0.parametrizations.weight.original"].shape[:2]
    network = BatchHeadDiscriminator(
        in_channels,
        width=width,
        layers=convs - 1,
        head="batch_norm" if "_head.norm.weight" in weights else "batch_stdev",
    ).double()
    network.load_state_dict(weights, strict=True)
    return network


def check_buffers(network: nn.Module, expected: dict[str, Tensor]) -> None:
    buffers = dict(network.named_buffers())
    for key, value in expected.items():
        assert relative_error(buffers[key].double(), value.double()) < EXACT, key
    assert expected


@pytest.mark.parametrize("name", golden_names("uvcgan2_d_*"))
def test_batch_head_golden(name):
    golden = read(name)
    weights = part_of(golden, "weights.")
    real, fake = 2 * golden["real"] - 1, 2 * golden["fake"] - 1  # theirs are in [0, 1]
    network = batch_head_of(weights)
    with torch.no_grad():
        assert relative_error(network.eval()(real[0]), golden["eval.output"]) < EXACT
        assert relative_error(network._body(golden["real"][0]), golden["eval.body"]) < EXACT
        network.train()
        for step, images in enumerate(real):
            logits = network(images, queue="real", push=True)
            assert relative_error(logits, golden[f"queue.output.{step}"]) < EXACT
        assert relative_error(network(fake[0], queue="real"), golden["queue.output.readonly"]) < EXACT
    assert network.queue_real.entries is not None
    stored = torch.stack([fingerprint(entry) for entry in network.queue_real.entries])
    assert relative_error(stored, golden["queue.content.fp"]) < EXACT
    check_buffers(network, part_of(golden, "queue.after."))

    network = batch_head_of(weights)
    for step, (r, f, alpha) in enumerate(zip(real, fake, golden["alpha"], strict=True)):
        network.zero_grad()
        mixed = (alpha * r + (1 - alpha) * f).requires_grad_()
        per_image = network(mixed, queue="mixed", alpha=alpha).mean((1, 2, 3))
        (slope,) = torch.autograd.grad(per_image.sum(), mixed, create_graph=True)
        penalty = 4 * slope.square().sum((1, 2, 3)).mean()  # a pixel's range is twice theirs
        assert relative_error(penalty, golden["step.gp"][step]) < EXACT
        penalty.backward()
        r, f = network(r, queue="real", push=True), network(f, queue="fake", push=True)
        loss = 0.5 * ((r - 1).square().mean() + f.square().mean())
        assert relative_error(loss, golden["step.loss"][step]) < EXACT
        loss.backward()
        check_gradients(network, golden, f"step.{step}.grad.")
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with torch.no_grad():
            judged = network(fake[(step + 1) % len(fake)], queue="fake")
        assert relative_error((judged - 1).square().mean(), golden["step.G"][step]) < EXACT
        network.load_state_dict(before)
    check_buffers(network, part_of(golden, "step.after."))


PARAMETERS: list[tuple[str, dict[str, Any], int]] = [
    ("multiscale_patchgan", {}, 5_529_474),
    ("multiscale_patchgan", {"scales": 3}, 8_294_211),
    ("munit", {}, 8_271_171),
    ("spectral_patchgan", {}, 2_764_737),
    ("spectral_patchgan", {"style": "ugatit"}, 2_764_736),
    ("ugatit_local", {}, 3_290_560),
    ("ugatit_global", {}, 53_130_176),
    ("batch_head", {"head": "batch_norm"}, 5_121_985),
    ("batch_head", {}, 5_125_569),
    ("unet_discriminator", {}, 44_067_651 - 65),  # the source's class holds a linear layer that it never uses
    ("unet_discriminator", {"size": 128}, 31_481_667 - 65),
    ("stylegan2", {}, 24_001_089),
    ("stylegan2", {"width": 128}, 28_864_129),
    ("r3gan", {}, 23_009_568),
]
SHAPES = {  # of the logits of 256x256 images
    "multiscale_patchgan": [(1, 35, 35), (1, 19, 19)],
    "munit": [(1, 16, 16), (1, 8, 8), (1, 4, 4)],
    "spectral_patchgan": [(1, 30, 30)],
    "ugatit_local": [(1, 30, 30), (1, 2, 1)],
    "ugatit_global": [(1, 6, 6), (1, 2, 1)],
    "batch_head": [(1, 31, 31)],
    "unet_discriminator": [(1, 256, 256), (1, 1, 1)],
    "stylegan2": [(1, 1, 1)],
    "r3gan": [(1, 1, 1)],
}
SMALL: dict[str, partial[nn.Module]] = {  # of float64, for 32x32 images or 96x96
    "multiscale_patchgan": partial(DISCRIMINATORS.create, "multiscale_patchgan", width=2, layers=2),
    "munit": partial(DISCRIMINATORS.create, "munit", width=2, layers=2),
    "spectral_patchgan": partial(DISCRIMINATORS.create, "spectral_patchgan", width=2),
    "spectral_patchgan ugatit": partial(DISCRIMINATORS.create, "spectral_patchgan", width=2, style="ugatit"),
    "ugatit_local": partial(DISCRIMINATORS.create, "ugatit_local", width=2),
    "ugatit_global": partial(DISCRIMINATORS.create, "ugatit_global", width=2, layers=4),
    "batch_head stdev": partial(DISCRIMINATORS.create, "batch_head", width=2),
    "batch_head norm": partial(DISCRIMINATORS.create, "batch_head", width=2, head="batch_norm"),
    "unet_discriminator": partial(DISCRIMINATORS.create, "unet_discriminator", width=2, size=128),
    "stylegan2": partial(DISCRIMINATORS.create, "stylegan2", width=4, size=32),
    "stylegan2 alone": partial(DISCRIMINATORS.create, "stylegan2", width=4, size=32, group=1),
    "r3gan": partial(DISCRIMINATORS.create, "r3gan", width=8, size=32, blocks=1),
}


def small(name: str) -> nn.Module:
    """Of float64, with every parameter random: some begin at 0, which would hide others."""
    network = SMALL[name]().double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    return network


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64) * 2 - 1


def maps_of(logits: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (logits,) if isinstance(logits, Tensor) else logits


def flat(logits: Tensor | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([scale.flatten(1) for scale in maps_of(logits)], 1)


def close(value: Tensor, expected: Tensor) -> None:
    assert value.shape == expected.shape
    assert relative_error(value, expected) < EXACT


@pytest.mark.parametrize(("name", "options", "count"), PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str, options: dict[str, Any], count: int):
    with torch.device("meta"):
        network = DISCRIMINATORS.create(name, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", SHAPES)
def test_they_are_planned_on_the_meta_device(name: str):
    with torch.device("meta"):
        network = DISCRIMINATORS.create(name, in_channels=4)
        logits = maps_of(network(torch.zeros(2, 4, 256, 256)))
        assert [tuple(scale.shape) for scale in logits] == [(2, *shape) for shape in SHAPES[name]]
        if getattr(network, "has_queues", False):
            network(torch.zeros(2, 4, 256, 256), queue="real", push=True)
            network(torch.zeros(2, 4, 256, 256), queue="mixed", alpha=torch.zeros(()))


def test_planning_does_not_import_pytorchs_compiler():
    code = f"""
        import sys, torch
        from ganparts import DISCRIMINATORS
        before = set(sys.modules)
        with torch.device("meta"):
            for name in {list(SHAPES)}:
                DISCRIMINATORS.create(name)
        assert not {{"sympy", "torch._dynamo"}} & (set(sys.modules) - before)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in DISCRIMINATORS])
def test_variants_keep_the_contracts(name: str):
    check_discriminator(SMALL[name], size=32)


@pytest.mark.parametrize("name", SMALL)
def test_only_biases_that_a_norm_cancels_are_frozen(name: str):
    frozen = {key for key, parameter in SMALL[name]().named_parameters() if not parameter.requires_grad}
    assert all(key.endswith("bias") for key in frozen)


@pytest.mark.parametrize("name", ["batch_head stdev", "batch_head norm"])
def test_states_of_queues_are_saved_loaded_and_copied(name: str):
    network, images = small(name), random_images(2, 3, 32, 32)
    network(images)  # training changes buffers
    network(images, queue="real", push=True)
    loaded, copied = SMALL[name]().double(), deepcopy(network)
    loaded.load_state_dict(network.state_dict())
    expected = flat(network.eval()(images)), flat(network.train()(images))
    for twin in (loaded, copied):
        assert twin.state_dict().keys() == network.state_dict().keys()
        assert torch.equal(flat(twin.eval()(images)), expected[0])
        assert torch.equal(flat(twin.train()(images)), expected[1])


@pytest.mark.parametrize("name", SMALL)
def test_whether_images_are_independent_is_declared_honestly(name: str):
    network, images = small(name).train(), random_images(2, 3, 32, 32)
    state = deepcopy(network.state_dict())
    together = flat(network(images))
    network.load_state_dict(state)
    apart = torch.cat([flat(network(image)) for image in images.split(1)])
    assert (relative_error(together, apart) < EXACT) == network.images_are_independent


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_gradients_are_right(name: str):
    network, images = small(name).eval(), random_images(2, 3, 32, 32).requires_grad_()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def penalty() -> Tensor:
        logits = flat(network(images)).sum()
        (slope,) = torch.autograd.grad(logits, images, create_graph=True)
        return slope.square().sum()

    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)  # of last biases there is none
    directions = [torch.randn_like(parameter) for parameter in parameters]
    slope = sum((d * g).sum() for d, g in zip(directions, gradients, strict=True) if g is not None)

    def moved(step: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
        value = penalty().item()
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= step * direction
        return value

    measured = (moved(1e-7) - moved(-1e-7)) / 2e-7
    assert measured == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_halves_come_close(name: str):
    network, images = SMALL[name]().eval(), torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = flat(network(images))
        with torch.autocast("cpu", torch.bfloat16):
            halves = flat(network.train()(images))
    assert torch.isfinite(halves).all()
    assert halves.shape == expected.shape


def test_spectral_norm_keeps_its_precision_under_autocast():
    network = SMALL["ugatit_local"]()
    twin = deepcopy(network)
    images = torch.rand(1, 3, 32, 32)
    network(images)
    with torch.autocast("cpu", torch.bfloat16):
        twin(images)
    for key, value in network.named_buffers():
        assert torch.equal(value, dict(twin.named_buffers())[key]), key


@torch.no_grad()
def test_feature_matching_checkpoints_of_pix2pixhd_load():
    network = MultiScalePatchGAN(width=2, scales=2)
    published = {}
    for key, value in network.state_dict().items():
        layer, place, kind = key.split(".")
        group = (int(place) + 1) // 3
        inside = int(place) - max(0, 3 * group - 1)
        published[f"{layer.replace('layer', 'scale')}_layer{group}.{inside}.{kind}"] = torch.randn_like(value)
    assert "scale1_layer4.0.weight" in published
    network.load_state_dict(published)
    assert torch.equal(network.get_parameter("layer1.11.weight"), published["scale1_layer4.0.weight"])
    assert torch.equal(network.get_parameter("layer0.0.bias"), published["scale0_layer0.0.bias"])


@torch.no_grad()
@pytest.mark.parametrize(("scales", "least"), [(1, 12), (2, 23), (3, 45)])
def test_multiscale_with_padding_1_is_a_patchgan_at_each_scale(scales: int, least: int):
    network = MultiScalePatchGAN(width=2, scales=scales, layers=2, padding=1).double()
    images = random_images(1, 3, least, least)
    maps = network(images)
    assert maps[-1].shape[-2:] == (1, 1)
    for scale, logits in enumerate(maps):
        plain = DISCRIMINATORS.create("patchgan", width=2, layers=2).double()
        plain.model.load_state_dict(network.get_submodule(f"layer{scales - 1 - scale}").state_dict())
        close(logits, plain(images))
        ones = torch.ones_like(images)
        images = F.avg_pool2d(images, 3, 2, 1) / F.avg_pool2d(ones, 3, 2, 1)
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        network(torch.zeros(1, 3, least - 1, 64))


def test_pix2pixhd_doubles_channels_up_to_512():
    for width, expected in ((2, [2, 4, 8, 16, 32, 1]), (128, [128, 256, 512, 512, 512, 1])):
        with torch.device("meta"):
            network = MultiScalePatchGAN(width=width, scales=1, layers=4)
        convs = [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        assert convs == expected


@torch.no_grad()
def test_munit_is_its_formula():
    network = small("munit")
    w = dict(network.named_parameters())
    images = random_images(2, 3, 32, 32)
    for scale, logits in enumerate(network(images)):
        x = images
        for layer in range(2):
            weight, bias = (w[f"cnns.{scale}.{layer}.conv.{kind}"] for kind in ("weight", "bias"))
            x = F.leaky_relu(F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), weight, bias, 2), 0.2)
        close(logits, F.conv2d(x, w[f"cnns.{scale}.2.weight"], w[f"cnns.{scale}.2.bias"]))
        images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
    size = DISCRIMINATORS.create("munit", width=2).min_size
    assert DISCRIMINATORS.create("munit", width=2)(torch.zeros(1, 3, size, size))[-1].shape[-1] == 1


def test_spectral_patchgans_are_plain_ones_with_pytorchs_spectral_norm():
    images = random_images(2, 3, 32, 32)
    network = small("spectral_patchgan")
    plain = DISCRIMINATORS.create("patchgan", width=2).double()
    for layer in plain.model[:-1]:
        if isinstance(layer, nn.Conv2d):
            parametrizations.spectral_norm(layer)
    plain.load_state_dict(network.state_dict())
    for _ in range(2):
        close(network(images), plain((images + 1) / 2))
    close(network.eval()(images), plain.eval()((images + 1) / 2))

    network = small("spectral_patchgan ugatit")
    layers: list[nn.Module] = []
    for i, (channels, more, stride) in enumerate([(3, 2, 2), (2, 4, 2), (4, 8, 2), (8, 16, 1), (16, 1, 1)]):
        layers += [ReflectionPad2d(1), hooked_spectral_norm(nn.Conv2d(channels, more, 4, stride, bias=i < 4))]
        layers += [nn.LeakyReLU(0.2)] if i < 4 else []
    plain = nn.Sequential(*layers).double()
    plain.load_state_dict({key.removeprefix("model."): value for key, value in network.state_dict().items()})
    for _ in range(2):
        close(network(images), plain(images))
    close(network.eval()(images), plain.eval()(images))


def test_first_spectral_norms_are_nearly_converged():
    for name in ("spectral_patchgan", "ugatit_local", "unet_discriminator"):
        for layer in SMALL[name]().eval().modules():
            weight = getattr(layer, "weight_orig", None)
            if weight is not None:
                largest = torch.linalg.svdvals(weight.flatten(1)).max()
                estimate = layer.weight_u @ weight.flatten(1) @ layer.weight_v
                assert 0.9 < estimate / largest <= 1.0001


def test_a_batch_head_compares_with_what_the_queue_holds():
    """Batches of 2 in a queue of 3, against concatenation with the true length."""
    for head in ("batch_stdev", "batch_norm"):
        network = BatchHeadDiscriminator(width=2, head=head).double().train()
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0.0, 0.3)
        running = deepcopy(network._head)
        ring: list[Tensor] = []
        for step in range(4):
            images = random_images(2, 3, 24, 32)
            state = deepcopy(network.state_dict())
            logits = network(images, queue="fake", push=True)
            network.load_state_dict(state)
            network(images, queue="fake", push=True)
            body = deepcopy(network._body).eval()(images / 2 + 0.5)  # with the vectors that this call left
            joint = torch.cat([body, *ring])
            if head == "batch_norm":
                expected = running.net(running.norm(joint))
                close(network._head.norm.running_mean, running.norm.running_mean)
                close(network._head.norm.running_var, running.norm.running_var)
            else:
                deviation = (joint.var(0, correction=0) + 1e-6).sqrt().mean()
                x = torch.cat([joint, deviation.expand(len(joint), 1, *joint.shape[2:])], 1)
                expected = running.net(x)
            close(logits, expected[:2])
            for place, features in zip((2 * step % 3, (2 * step + 1) % 3), body.detach().split(1), strict=True):
                if place == len(ring):
                    ring.append(features)
                else:
                    ring[place] = features
        assert network.queue_fake.entries is not None
        close(network.queue_fake.entries, torch.cat(ring))
        assert network.queue_real.entries is None


def test_reading_leaves_queues_and_the_plain_call_ignores_them():
    network = small("batch_head stdev").eval()
    first, second = random_images(1, 3, 32, 32), random_images(1, 3, 32, 32)
    plain = network(second)
    assert torch.equal(network(second, queue="real"), plain)  # which is empty
    network(first, queue="real", push=True)
    held = deepcopy(network.queue_real.state_dict())
    assert torch.equal(network(second), plain)
    assert not torch.equal(network(second, queue="real"), plain)
    assert torch.equal(network(second, queue="fake"), plain)
    assert all(torch.equal(value, held[key]) for key, value in network.queue_real.state_dict().items())


def test_batch_norm_that_is_evaluated_uses_running_statistics_alone():
    network = small("batch_head norm").eval()
    first, second = random_images(2, 3, 32, 32), random_images(1, 3, 32, 32)
    network(first, queue="real", push=True)
    state = deepcopy(network._head.state_dict())
    assert torch.equal(network(second, queue="real"), network(second))
    assert all(torch.equal(value, state[key]) for key, value in network._head.state_dict().items())
    features = network._body(second / 2 + 0.5)
    normalised = (features - state["norm.running_mean"][:, None, None]) / (
        state["norm.running_var"][:, None, None] + 1e-5
    ).sqrt()
    scaled = normalised * state["norm.weight"][:, None, None] + state["norm.bias"][:, None, None]
    close(network(second), network._head.net(scaled))


def test_mixed_queues_are_mixed_place_by_place():
    network = small("batch_head stdev").eval()
    images = random_images(3, 1, 3, 32, 32)
    network(images[0], queue="real", push=True)
    network(images[1], queue="fake", push=True)
    for alpha, queue in ((0.0, "fake"), (1.0, "real")):
        mixed = network(images[2], queue="mixed", alpha=torch.tensor([alpha]))
        close(mixed, network(images[2], queue=queue))
    real, fake = network.queue_real.entries, network.queue_fake.entries
    assert real is not None
    assert fake is not None
    mixed = network(images[2], queue="mixed", alpha=torch.tensor(0.25))
    fake.copy_(0.25 * real + 0.75 * fake)
    close(mixed, network(images[2], queue="fake"))


def test_a_queue_keeps_the_last_features_and_its_memory():
    queue = FeatureQueue(3)
    empty = deepcopy(queue.state_dict())
    assert queue.filled.tolist() == [False, False, False]
    features = torch.arange(5.0)[:, None, None, None].requires_grad_()
    queue.push(features[:2])
    assert queue.filled.tolist() == [True, True, False]
    queue.push(features)  # more than it holds: the last three
    assert queue.filled.tolist() == [True, True, True]
    entries = queue.entries
    assert entries is not None
    assert not entries.requires_grad
    assert entries.flatten().tolist() == [3.0, 4.0, 2.0]
    saved = deepcopy(queue.state_dict())
    queue.load_state_dict(empty)
    assert queue.filled.tolist() == [False, False, False]
    queue.load_state_dict(saved)
    assert queue.entries is entries  # a recorded step goes on with the same memory
    assert entries.flatten().tolist() == [3.0, 4.0, 2.0]
    queue.push(torch.tensor([7.0, float("nan"), float("inf")])[:, None, None, None])  # the last two stay out
    assert entries.flatten().tolist() == [3.0, 4.0, 7.0]
    other = FeatureQueue(2)
    other.load_state_dict(saved)
    assert other.size == 3
    queue.load_state_dict({})  # a published file
    assert queue.filled.tolist() == [False, False, False]
    with pytest.raises(ValueError, match=r"shape \[1, 1, 1\], but these images give \[1, 2, 2\].*one size"):
        queue.push(torch.zeros(1, 1, 2, 2))


def test_queues_keep_full_precision_under_autocast():
    network = DISCRIMINATORS.create("batch_head", width=2, head="batch_norm")
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            logits = network(torch.rand(1, 3, 32, 32), queue="real", push=True)
    assert torch.isfinite(logits).all()
    assert network.queue_real.entries.dtype == torch.float32


def conv_of(weights: dict[str, Tensor], name: str, x: Tensor, *, padding: int = 0) -> Tensor:
    """A convolution whose weight is divided by its largest singular value."""
    weight, bias = weights[f"{name}.weight_orig"], weights[f"{name}.bias"]
    return F.conv2d(x, weight / torch.linalg.matrix_norm(weight.flatten(1), 2), bias, padding=padding)


@torch.no_grad()
@pytest.mark.parametrize("size", [128, 256])
def test_the_unet_discriminator_is_its_formula(size: int):
    network = UNetDiscriminator(width=1, size=size).double()
    for layer in network.modules():
        weight = getattr(layer, "weight_orig", None)
        if weight is not None:
            nn.init.normal_(weight)
            nn.init.normal_(layer.bias)
            u, _, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            layer.weight_u.copy_(u[:, 0])
            layer.weight_v.copy_(v[0])
    w = dict(network.named_parameters())
    images = random_images(2, 3, size // 2, size)
    pixels, whole = network.eval()(images)

    x, encoded = images, []
    for level in range(5 if size == 128 else 6):
        h = conv_of(w, f"down.{level}.conv1", x.relu() if level else x, padding=1)
        h = conv_of(w, f"down.{level}.conv2", h.relu(), padding=1)
        x = F.avg_pool2d(h + conv_of(w, f"down.{level}.skip", x), 2)
        encoded.append(x)
    linear = w["whole.weight_orig"] / w["whole.weight_orig"].norm()
    close(whole[:, 0, 0], x.relu().sum((2, 3)) @ linear.T + w["whole.bias"])
    for level in range(len(encoded)):
        if level:
            x = torch.cat([x, encoded[-1 - level]], 1)
        big = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        h = conv_of(w, f"up.{level}.conv1", big.relu(), padding=1)
        x = conv_of(w, f"up.{level}.conv2", h.relu(), padding=1) + conv_of(w, f"up.{level}.skip", big)
    close(pixels, F.conv2d(x, w["pixels.weight"], w["pixels.bias"]))


def blurred(x: Tensor, padding: int) -> Tensor:
    line = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
    x = F.pad(x, (padding,) * 4)
    x = x.unfold(2, 4, 1) @ line
    return x.unfold(3, 4, 1) @ line


@torch.no_grad()
@pytest.mark.parametrize(("batch", "group"), [(1, 1), (3, 3), (6, 3), (8, 4), (5, 1)])
def test_stylegan2_is_its_formula(batch: int, group: int):
    network = StyleGAN2Discriminator(width=4, size=16).double()
    w = {key: nn.init.normal_(parameter) for key, parameter in network.named_parameters()}
    images = random_images(batch, 3, 16, 16)

    def conv(name: str, x: Tensor, **options: int) -> Tensor:
        weight = w[f"{name}.weight"]
        return F.conv2d(x, weight / weight[0].numel() ** 0.5, **options)

    def active(name: str, x: Tensor) -> Tensor:
        x = x + w[f"{name}.bias"].reshape(1, -1, *[1] * (x.ndim - 2))
        return torch.where(x > 0, x, 0.2 * x) * 2**0.5

    x = active("from_rgb", conv("from_rgb", images))
    for block in ("blocks.0", "blocks.1"):
        h = active(f"{block}.conv0", conv(f"{block}.conv0", x, padding=1))
        h = active(f"{block}.conv1", conv(f"{block}.conv1", blurred(h, 2), stride=2))
        x = (h + conv(f"{block}.skip", blurred(x, 1))[..., ::2, ::2]) / 2**0.5
    deviations = []
    for image in range(batch):
        stride = batch // group
        members = x[image % stride :: stride]
        assert len(members) == group
        deviations.append((members.var(0, correction=0) + 1e-8).sqrt().mean())
    x = torch.cat([x, torch.stack(deviations)[:, None, None, None].expand(batch, 1, 4, 4)], 1)
    x = active("conv", conv("conv", x, padding=1)).flatten(1)
    x = active("hidden", x @ w["hidden.weight"].T / x.shape[1] ** 0.5)
    expected = x @ w["out.weight"].T / x.shape[1] ** 0.5 + w["out.bias"]
    close(network(images)[..., 0, 0], expected)


@torch.no_grad()
def test_r3gan_is_its_formula():
    network = R3GANDiscriminator(width=8, size=32, blocks=2).double()
    convs = [layer for layer in network.trunk if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [8, 16, 32, 64]
    w = {key: nn.init.normal_(parameter, 0.0, 0.3) for key, parameter in network.named_parameters()}
    images = random_images(2, 3, 32, 32)
    x = F.conv2d(images, w["trunk.0.weight"])
    place = 1
    for channels in (8, 16, 32, 64):
        for _ in range(2):
            layers = [w[f"trunk.{place}.layers.{i}.{'bias' if i % 2 else 'weight'}"] for i in range(5)]
            h = F.leaky_relu(F.conv2d(x, layers[0]) + layers[1][:, None, None], 0.2)
            h = torch.cat(
                [
                    F.conv2d(part, weight, padding=1)
                    for part, weight in zip(h.split(16, 1), layers[2].split(16), strict=True)
                ],
                1,
            )
            assert layers[2].shape == (2 * channels, 16, 3, 3)
            x = x + F.conv2d(F.leaky_relu(h + layers[3][:, None, None], 0.2), layers[4])
            place += 1
        if channels < 64:
            x = F.conv2d(blurred(x, 1)[..., ::2, ::2], w[f"trunk.{place + 1}.weight"])
            place += 2
    x = (x * w["pool.weight"][:, 0]).sum((2, 3))
    close(network(images)[..., 0, 0], x @ w["out.weight"].T)


def test_r3gan_keeps_its_widest_channels_without_a_convolution_and_begins_as_published():
    network = R3GANDiscriminator(width=48, size=256, blocks=1)
    widths = [layer.out_channels for layer in network.trunk if isinstance(layer, nn.Conv2d)]
    assert widths == [48, 96, 192, 384]  # 3 times halved with as many channels
    gain = (2 / 1.04) ** 0.5 * 7**-0.25
    for layer in network.trunk:
        if hasattr(layer, "layers"):
            first, second, last = layer.layers[0], layer.layers[2], layer.layers[4]
            assert not last.weight.any()
            for conv in (first, second):
                wanted = gain / conv.weight[0].numel() ** 0.5
                assert conv.weight.std().item() == pytest.approx(wanted, rel=0.05)
    assert R3GANDiscriminator(width=2, size=8)(torch.zeros(1, 3, 8, 8)).shape == (1, 1, 1, 1)


def test_others_begin_as_published():
    stylegan = StyleGAN2Discriminator(width=8, size=8)
    assert stylegan.hidden.weight.std().item() == pytest.approx(1.0, rel=0.05)
    unet = UNetDiscriminator(width=2, size=128)
    weight = unet.up[0].conv2.weight_orig.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)
    for network in (SMALL["multiscale_patchgan"](), SMALL["munit"](), SMALL["spectral_patchgan"]()):
        for key, parameter in network.named_parameters():
            if key.endswith("bias"):
                assert not parameter.any()
            elif parameter.numel() > 500:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.2)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (partial(DISCRIMINATORS.create, "multiscale_patchgan", scales=0), "scales=0: there is at least 1"),
    (partial(DISCRIMINATORS.create, "multiscale_patchgan", layers=0), "layers=0: each scale has 1 to 16"),
    (partial(DISCRIMINATORS.create, "multiscale_patchgan", padding=0), "padding=0: it is 2"),
    (partial(DISCRIMINATORS.create, "munit", scales=0), "scales=0, layers=4: there is at least 1 of each"),
    (partial(DISCRIMINATORS.create, "spectral_patchgan", style="sn"), "style='sn' is not known: use one of 'uvcgan2'"),
    (partial(DISCRIMINATORS.create, "spectral_patchgan", layers=17, style="ugatit"), "layers=17: .* 1 to 16"),
    (partial(DISCRIMINATORS.create, "ugatit_local", layers=2), "layers=2: .* 3 to 16"),
    (partial(DISCRIMINATORS.create, "batch_head", head="mean"), "head='mean' is not known: use one of 'batch_norm'"),
    (partial(DISCRIMINATORS.create, "batch_head", queue_size=0), "queue_size=0: .* at least 1"),
    (partial(DISCRIMINATORS.create, "unet_discriminator", size=64), "size=64: .* 128 or 256"),
    (partial(DISCRIMINATORS.create, "stylegan2", size=96), "size=96: .*power of two of at least 8"),
    (partial(DISCRIMINATORS.create, "stylegan2", size=4), "size=4: .*power of two of at least 8"),
    (partial(DISCRIMINATORS.create, "stylegan2", group=0), "group=0: .*at least 1"),
    (partial(DISCRIMINATORS.create, "r3gan", size=0), "size=0: .*power of two of at least 8"),
    (partial(DISCRIMINATORS.create, "r3gan", blocks=0), "blocks=0: .*at least 1"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_options_out_of_range_are_refused(build: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_images_of_a_wrong_size_are_refused():
    for name, kind in (("stylegan2", "StyleGAN2"), ("r3gan", "R3GAN")):
        with pytest.raises(ValueError, match=f"32x64, but {kind}Discriminator judges 32x32 alone: resize or crop"):
            SMALL[name]()(torch.zeros(1, 3, 32, 64))
    with pytest.raises(ValueError, match=r"40x64.*multiples of 32: .* to 32x64"):
        SMALL["unet_discriminator"]()(torch.zeros(1, 3, 40, 64))
    for name, least in (
        ("ugatit_local", 24),
        ("ugatit_global", 12),
        ("batch_head norm", 24),
        ("spectral_patchgan", 24),
    ):
        network = SMALL[name]()
        network(torch.zeros(1, 3, least, least))
        kind = type(network).__name__
        with pytest.raises(ValueError, match=f"{least - 1}x{least}, but {kind} needs at least {least}x{least}"):
            network(torch.zeros(1, 3, least - 1, least))


def test_queues_that_mean_nothing_are_refused():
    network, images = SMALL["batch_head norm"](), torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match="queue='old' is not known: use 'real', 'fake', 'mixed' or None"):
        network(images, queue="old")
    for queue, options in ((None, {}), ("mixed", {"alpha": torch.ones(())})):
        with pytest.raises(ValueError, match=r"push=True with queue=.*only if it is 'real' or 'fake'"):
            network(images, queue=queue, push=True, **options)
    for queue, options in (("mixed", {}), ("real", {"alpha": torch.ones(())}), (None, {"alpha": torch.ones(())})):
        with pytest.raises(ValueError, match="'mixed' needs alpha, and nothing else takes it"):
            network(images, queue=queue, **options)
    network(images, queue="real", push=True)
    with pytest.raises(ValueError, match="judge images of one size, or pass queue=None"):
        network(torch.zeros(1, 3, 64, 64), queue="real")
