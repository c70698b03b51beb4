"""Projected GAN's discriminator: the source's numbers, its parameter counts, sizes, and what it saves."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from golden_files import golden_names, part_of, read, relative_error
from torch import Tensor, nn

from ganparts import (
    BACKBONES,
    DISCRIMINATORS,
    GENERATORS,
    CycleGAN,
    Pair,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import memory_need
from ganparts.discriminators import FeatureDiscriminator
from ganparts.losses import Hinge

RANDOM = partial(BACKBONES.create, "efficientnet_lite0", weights="random")
build = partial(DISCRIMINATORS.create, "projected", backbone=RANDOM)


def judge_of(golden: dict[str, Tensor]) -> tuple[FeatureDiscriminator, list[Tensor]]:
    """The heads of a golden file, every setting read from its tensors, and their features."""
    weights = part_of(golden, "weights.")
    scales = range(len([key for key in weights if key.endswith("_ccm.weight")]))
    separable = any("depthwise" in key for key in weights)
    last = "pointwise.weight_orig" if separable else "weight_orig"
    blocks = [
        len([key for key in weights if key.startswith(f"discriminator.mini_discs.{scale}.") and key.endswith(last)])
        - (0 if separable else 1)
        for scale in scales
    ]
    end = weights[f"discriminator.mini_discs.0.main.{blocks[0]}.weight_orig"]
    judge = FeatureDiscriminator(
        [weights[f"projector.scratch.layer{scale}_ccm.weight"].shape[1] for scale in scales],
        [8 * 2**count for count in blocks],
        width=end.shape[1] // 8,
        projection_width=weights["projector.scratch.layer0_ccm.weight"].shape[0],
        separable=separable,
    ).double()
    judge.load_state_dict(weights)
    return judge, [golden[f"feature.{scale}"] for scale in scales]


def assert_sums(value: Tensor | None, expected: Tensor, name: str) -> None:
    assert value is not None, name
    total, absolute = expected
    assert abs(value.sum() - total) <= 1e-9 * absolute + 1e-12, name
    assert abs(value.abs().sum() - absolute) <= 1e-9 * absolute + 1e-12, name


@pytest.mark.parametrize("name", golden_names("projected_d_*"))
def test_training_is_the_sources_golden(name: str):
    golden = read(name)
    judge, features = judge_of(golden)
    inputs = [feature.clone().requires_grad_() for feature in features]
    for fixed in judge.projector.buffers():
        fixed.requires_grad_()
    mixed = judge.projector(inputs)
    for scale, projected in enumerate(mixed):
        assert relative_error(projected.sum((2, 3)), golden[f"projected.{scale}.sum"]) < 1e-9
        assert relative_error(projected.abs().sum((2, 3)), golden[f"projected.{scale}.abs"]) < 1e-9
        assert relative_error(projected[:, :4, 1:6, 2:7], golden[f"projected.{scale}.slice"]) < 1e-9
    logits = judge(inputs)
    assert logits.shape == (len(inputs[0]), 1, 1, golden["output"].shape[1])
    assert relative_error(logits[:, 0, 0], golden["output"]) < 1e-9
    logits.square().mean().backward()
    tensors = dict(judge.named_parameters()) | dict(judge.projector.named_buffers(prefix="projector"))
    gradients = part_of(golden, "grad.")
    for scale, feature in enumerate(inputs):
        assert_sums(feature.grad, gradients.pop(f"feature.{scale}"), f"feature.{scale}")
    assert gradients.keys() == tensors.keys()
    for key, expected in gradients.items():
        assert_sums(tensors[key].grad, expected, key)
    state = judge.state_dict()
    for key, expected in part_of(golden, "after.").items():
        assert relative_error(state[key], expected) < 1e-9, key

    with torch.no_grad():
        second, third = judge(features), judge([feature.flip(3) for feature in features])
    assert relative_error(second[:, 0, 0], golden["second.output"]) < 1e-9
    assert relative_error(third[:, 0, 0], golden["third_flipped.output"]) < 1e-9
    loss = Hinge()
    both = golden["hinge.D_real"] + golden["hinge.D_fake"]
    assert relative_error(2 * loss.discriminator(second, third), both) < 1e-9  # the source's is not halved
    assert relative_error(loss.generator(third), golden["hinge.G"]) < 1e-9


@torch.no_grad()
@pytest.mark.parametrize("name", golden_names("projected_d_*"))
def test_evaluating_is_the_sources_golden(name: str):
    golden = read(name)
    judge, features = judge_of(golden)
    judge.eval()
    before = copy.deepcopy(judge.state_dict())
    assert relative_error(judge(features)[:, 0, 0], golden["output_eval"]) < 1e-9
    assert all(torch.equal(value, before[key]) for key, value in judge.state_dict().items())
    for layer in judge.modules():
        if hasattr(layer, "weight_orig"):
            left, _, right = torch.linalg.svd(layer.weight_orig.flatten(1), full_matrices=False)
            layer.weight_u.copy_(left[:, 0])
            layer.weight_v.copy_(right[0])
    assert relative_error(judge(features)[:, 0, 0], golden["output_svd"]) < 1e-9


@pytest.mark.parametrize(("separable", "count"), [(False, 10_331_328), (True, 696_512)])
def test_parameter_counts_are_the_published_ones(separable: bool, count: int):
    with torch.device("meta"):
        discriminator = build(separable=separable)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == count
    mixing = sum(buffer.numel() for buffer in discriminator.judge.projector.buffers())
    network = discriminator.backbone.network.model
    seen = [*network.conv_stem.parameters(), *network.bn1.parameters(), *network.blocks.parameters()]
    assert mixing + sum(parameter.numel() for parameter in seen) == 3_335_616


@pytest.mark.parametrize(
    ("image_size", "size", "places"),
    [(256, 256, 4 * 25), (256, 224, 4 * 16), (256, 128, 4), (128, 128, 4 * 25), (224, 224, 4 * 16), (128, 64, 4)],
)
def test_logits_of_each_size(image_size: int, size: int, places: int):
    discriminator = build(image_size=image_size, width=2, projection_width=2).eval()
    assert discriminator(torch.zeros(1, 3, size, size)).shape == (1, 1, 1, places)


def test_grey_images_are_seen_as_colours():
    discriminator = build(image_size=128, width=2, projection_width=2, in_channels=1).eval()
    images = torch.rand(2, 1, 128, 128) * 2 - 1
    expected = discriminator.judge(discriminator.backbone(images.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(discriminator(images), expected)


@pytest.mark.parametrize("in_channels", [3, 1])
def test_zoom_enlarges_the_images_that_the_backbone_sees(in_channels: int):
    options = {"width": 2, "projection_width": 2, "in_channels": in_channels}
    plain = build(image_size=128, **options).eval()
    zoomed = build(image_size=64, zoom=2, **options).eval()
    zoomed.load_state_dict(plain.state_dict())
    images = torch.rand(2, in_channels, 64, 64) * 2 - 1
    assert zoomed(images).shape == (2, 1, 1, 4 * 25)
    expected = plain(nn.functional.interpolate(images, size=(128, 128), mode="bilinear"))
    torch.testing.assert_close(zoomed(images), expected, rtol=0, atol=0)
    assert (zoomed.size_multiple, zoomed.min_size) == (16, plain.min_size // 2)
    assert zoomed(images[..., :48, :32]).numel() > 0
    with pytest.raises(ValueError, match="16x32, but ProjectedDiscriminator needs at least 32x32"):
        zoomed(images[..., :16, :32])
    thrice = build(image_size=32, zoom=3, **options)
    assert (thrice.size_multiple, thrice.min_size) == (32, 32)
    assert thrice(images).shape[:3] == (2, 1, 1)
    with pytest.raises(ValueError, match="zoom=0"):
        build(zoom=0)


def test_heads_halve_down_to_8():
    blocks = {}
    for image_size in (96, 128, 224, 256, 512):
        heads = build(image_size=image_size, width=2, projection_width=2).judge.discriminator.mini_discs
        blocks[image_size] = [len(head.main) - 1 for head in heads]
    assert blocks == {
        **{96: [2, 1, 0, 0], 128: [3, 2, 1, 0]},
        **{224: [4, 3, 2, 1], 256: [4, 3, 2, 1], 512: [5, 4, 3, 2]},
    }


def test_sizes_that_cannot_be_are_refused():
    discriminator = build(image_size=256, width=2, projection_width=2)
    with pytest.raises(ValueError, match="96x96, but ProjectedDiscriminator needs at least 128x128"):
        discriminator(torch.zeros(1, 3, 96, 96))
    with pytest.raises(ValueError, match=r"200x256, .* multiples of 32: .* to 192x256"):
        discriminator(torch.zeros(1, 3, 200, 256))
    with pytest.raises(ValueError, match="in_channels=4: the backbone sees images of 3 channels, or of 1"):
        build(in_channels=4)
    for image_size in (64, 1024):
        with pytest.raises(ValueError, match="take an image_size from 96 to 512, divided by zoom"):
            build(image_size=image_size, width=2)
    features = [torch.zeros(1, channels, 8, 8) for channels in (24, 40, 112, 320)]
    with pytest.raises(ValueError, match=r"4 feature maps, .* but these are 8x8, 8x8, 8x8, 8x8"):
        discriminator.judge(features)
    with pytest.raises(ValueError, match=r"strides \[4, 8, 16, 16, 16\]"):
        build(backbone=partial(BACKBONES.create, "alexnet", weights="random"))


def test_only_the_heads_learn_and_the_mixing_is_saved():
    discriminator = build(image_size=128, width=2, projection_width=2)
    images = torch.rand(2, 3, 128, 128, requires_grad=True)
    Hinge().generator(discriminator(images)).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in discriminator.parameters())
    assert not any("backbone" in key for key in discriminator.state_dict())
    assert not any("projector" in key for key, _ in discriminator.named_parameters())
    other = build(image_size=128, width=2, projection_width=2)
    other.load_state_dict(discriminator.state_dict())
    assert torch.equal(discriminator.eval()(images), other.eval()(images))
    copied = copy.deepcopy(discriminator)  # after a training step, too
    assert copied.backbone is discriminator.backbone
    assert torch.equal(discriminator(images), copied(images))
    assert discriminator.images_are_independent is False


def test_it_trains_in_a_model_whose_memory_is_planned():
    def model() -> CycleGAN:
        discriminator = partial(build, image_size=128, width=2, projection_width=2)
        return build_cyclegan(generator=partial(GENERATORS.create, "resnet6", width=2), discriminator=discriminator)

    planned = model()
    state = torch.get_rng_state()
    assert memory_need(planned, lambda size: Pair(*torch.empty(2, size, 3, 128, 128))).per_pair > 0
    assert torch.equal(torch.get_rng_state(), state)
    trained = model()
    assert trained.discriminator_a.backbone is trained.discriminator_b.backbone
    optimizers = make_optimizers(trained)
    before = copy.deepcopy(trained)
    losses = train_step(trained, Pair(*torch.rand(2, 1, 3, 128, 128)), optimizers)
    assert all(torch.isfinite(loss) for loss in losses.values())
    for domain in ("a", "b"):
        new, old = (getattr(part, f"discriminator_{domain}").judge for part in (trained, before))
        assert not torch.equal(
            new.discriminator.mini_discs[0].main[0].main[0].weight_orig,
            old.discriminator.mini_discs[0].main[0].main[0].weight_orig,
        )
        for fixed, was in zip(new.projector.buffers(), old.projector.buffers(), strict=True):
            assert torch.equal(fixed, was)


def test_the_default_is_lite0_with_the_wheels_weights():
    discriminator = DISCRIMINATORS.create("projected", image_size=128, width=2)
    assert discriminator.backbone is BACKBONES.create("efficientnet_lite0")
    assert isinstance(discriminator.judge, nn.Module)
