"""What a command line's words stand for: parts with options, sizes, and what a CPU scales down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from ganparts import (
    AUGMENTATIONS,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
    Pair,
    build_cut,
    build_cyclegan,
    build_pix2pix,
    make_optimizers,
    train_step,
)
from ganparts.adversarial import TrainingSettings
from ganparts.adversarial.choices import parse_choice
from ganparts.adversarial.options import TrainingOptions
from ganparts.augment import AdaptiveAugment, DiffAugment
from ganparts.cli.doctor import DoctorOptions
from ganparts.cut.options import PresetOptions as CUTOptions
from ganparts.cyclegan.options import PresetOptions
from ganparts.generators import ResNetGenerator
from ganparts.inpainting import Holes, build_inpainting
from ganparts.inpainting.options import PresetOptions as InpaintingOptions
from ganparts.pix2pix.options import PresetOptions as Pix2PixOptions
from ganparts.registry import UnknownPartError


def spelled(choice: Any) -> Any:
    """A choice with builders as (name, options)."""
    if isinstance(choice, tuple | list):
        return type(choice)(map(spelled, choice))
    return (choice.args[0], choice.keywords) if isinstance(choice, partial) else choice


@pytest.mark.parametrize(
    ("text", "expected", "critics"),
    [
        ("patchgan", "patchgan", [1, 1]),
        (" pixel , patchgan ", ("pixel", "patchgan"), [1, 1]),
        ("pixel+patchgan", ["pixel", "patchgan"], [2, 2]),
        ("pixel,patchgan + pixel", ("pixel", ["patchgan", "pixel"]), [1, 2]),
        ("pixel+pixel,patchgan", (["pixel", "pixel"], "patchgan"), [2, 1]),
        ("patchgan(layers=2)", ("patchgan", {"layers": 2}), [1, 1]),
        ("patchgan (layers=2)", ("patchgan", {"layers": 2}), [1, 1]),
        ("patchgan()", "patchgan", [1, 1]),
        ("patchgan(layers=2, norm='batch'),pixel", (("patchgan", {"layers": 2, "norm": "batch"}), "pixel"), [1, 1]),
        (
            "pixel,patchgan(layers=2)+pixel(norm='none', width=8)",
            ("pixel", [("patchgan", {"layers": 2}), ("pixel", {"norm": "none", "width": 8})]),
            [1, 2],
        ),
    ],
)
def test_parts_are_named_paired_listed_and_given_options(text: str, expected: Any, critics: list[int]):
    choice = parse_choice(text, DISCRIMINATORS)
    assert spelled(choice) == expected
    with torch.device("meta"):
        model = build_cyclegan(discriminator=choice, generator=partial(ResNetGenerator, width=2))
    assert [len(model.critics_a), len(model.critics_b)] == critics


def test_commas_and_plus_signs_inside_parentheses_belong_to_options():
    choice = parse_choice("resnet9(norm=('a', 'b+c')),unet128(upsample='a,b+c')", GENERATORS)
    assert spelled(choice) == (("resnet9", {"norm": ("a", "b+c")}), ("unet128", {"upsample": "a,b+c"}))


def test_options_that_all_parts_take_come_before_wishes_and_after_parentheses():
    def widths(text: str, **more: Any) -> list[int]:
        choice = parse_choice(text, DISCRIMINATORS, **more)
        each = choice if isinstance(choice, tuple) else (choice, choice)
        return [spelled(one)[1].get("width", 64) if isinstance(one, partial) else 64 for one in each]

    assert widths("patchgan") == [64, 64]
    assert widths("patchgan", wished={"width": 32}) == [32, 32]
    assert widths("patchgan", wished={"width": 128}) == [64, 64]  # a limit, never a target
    assert widths("patchgan", given={"width": 128}, wished={"width": 32}) == [128, 128]
    assert widths("patchgan(width=8),pixel", given={"width": 16}, wished={"width": 4}) == [8, 16]


def test_none_is_a_part_where_there_is_one_of_that_name_and_otherwise_nothing():
    assert parse_choice("none", REPLAY_BUFFERS) == "none"
    assert parse_choice("none", PENALTIES) is None
    assert parse_choice("none,history", REPLAY_BUFFERS) == ("none", "history")
    assert spelled(parse_choice("history(size=3)", REPLAY_BUFFERS)) == ("history", {"size": 3})


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("patchgna", UnknownPartError, "no discriminator named 'patchgna' .did you mean 'patchgan'"),
        ("pixel,patchgna+pixel", UnknownPartError, "'patchgna'"),
        ("", UnknownPartError, "no discriminator named ''"),
        ("pixel,pixel,pixel", ValueError, r"names 3 discriminators, but there are two domains: give one or two"),
        ("patchgan(layer=2)", TypeError, r"'patchgan' has no option 'layer' .did you mean 'layers'"),
        (
            "patchgan(layers=)",
            ValueError,
            r"'patchgan\(layers=\)' is no discriminator with options: write it as name\(",
        ),
        ("patchgan(2)", ValueError, "is no discriminator with options"),
        ("patchgan(layers=open('x'))", ValueError, "is no discriminator with options"),
        ("patchgan(**{'layers': 2})", ValueError, "is no discriminator with options"),
        ("patchgan(layers=2", ValueError, "is no discriminator with options"),
        ("patchgan(layers=2)x", ValueError, "is no discriminator with options"),
        ("patchgan)layers=2(", (ValueError, KeyError), "patchgan"),
    ],
)
def test_other_texts_are_refused(text: str, error: Any, message: str):
    with pytest.raises(error, match=message):
        parse_choice(text, DISCRIMINATORS)


def test_an_option_that_not_all_parts_have_is_refused_by_name():
    with pytest.raises(TypeError, match="'resnet9' has no option 'levels'"):
        parse_choice("unet256,resnet9", GENERATORS, given={"levels": 3})


def test_augmentations_are_named():
    assert parse_choice("none", AUGMENTATIONS) is None
    assert parse_choice("none, ada", AUGMENTATIONS) == (None, "ada")
    given = ("ada", {"target": 0.5, "threshold": 0.5})
    assert spelled(parse_choice("ada(target=0.5, threshold=0.5)", AUGMENTATIONS)) == given
    with pytest.raises(UnknownPartError, match=r"no augmentation named 'diffaugmnt' .did you mean 'diffaugment'"):
        parse_choice("diffaugmnt", AUGMENTATIONS)
    with pytest.raises(TypeError, match="'ada' has no option 'cutout'"):
        parse_choice("ada(cutout=0.2)", AUGMENTATIONS)


def test_augmentations_reach_each_discriminator():
    small = {"generator": "resnet6(width=2)", "discriminator": "pixel,pixel+pixel", "width": 2, "replay": "none"}
    options = PresetOptions(preset="paper", **small, augment="ada(images_to_full=4),none+diffaugment(cutout=0.2)")
    model = build_cyclegan(options.settle().preset)
    (adaptive,) = (critic.augment for critic in model.critics_a)
    assert isinstance(adaptive, AdaptiveAugment)
    nothing, cutout = (critic.augment for critic in model.critics_b)
    assert nothing is None
    assert isinstance(cutout, DiffAugment)
    assert (cutout.cutout, cutout.translation) == (0.2, 0.125)
    optimizers = make_optimizers(model)
    for _ in range(4):
        train_step(model, Pair(*torch.rand(2, 1, 3, 32, 32)), optimizers)
    assert adaptive.calls == 4
    twice = build_cyclegan(
        PresetOptions(preset="paper", **small, augment="ada").settle().preset
    )  # each with a p of its own
    assert len({id(critic.augment) for critic in (*twice.critics_a, *twice.critics_b)}) == 3
    assert PresetOptions(preset="two_objective", augment="none").settle().preset.augment is None
    for build, options in ((build_cut, CUTOptions), (build_pix2pix, Pix2PixOptions)):
        with torch.device("meta"):
            for critic in build(options(augment="diffaugment(policy=('color',))").settle().preset).critics:
                assert isinstance(critic.augment, DiffAugment)
                assert critic.augment.policy == ("color",)
    with torch.device("meta"):  # of the three augmentations of the preset's discriminators, one stays
        (critic,) = build_cut(CUTOptions(discriminator="pixel").settle().preset).critics
    assert isinstance(critic.augment, DiffAugment)
    with torch.device("meta"):
        monet = build_cyclegan(PresetOptions(preset="monet", discriminator="pixel").settle().preset)
    assert [len(critics) for critics in (monet.critics_a, monet.critics_b)] == [1, 1]


# --- sizes


@pytest.mark.parametrize(
    ("options", "preset", "expected"),
    [
        ({}, {}, (286, 256)),
        ({"crop": 128}, {}, (286, 128)),  # cut from images at the preset's size
        ({"crop": 300}, {}, (300, 300)),  # which is raised if it is smaller
        ({"crop": 300}, {"resize": None}, (None, 300)),
        ({"resize": 128}, {}, (128, 128)),  # nothing larger can be cut out
        ({"resize": 400}, {}, (400, 256)),
        ({"resize": "none"}, {}, (None, 256)),
        ({"resize": "none", "crop": 64}, {}, (None, 64)),
        ({"resize": 100, "crop": 64}, {}, (100, 64)),
        ({"resize": 100}, {"resize": None}, (100, 100)),
    ],
)
def test_sizes_follow_from_what_is_given(options: Any, preset: Any, expected: Any):
    settings = replace(TrainingSettings(), **preset)
    changed, notes = TrainingOptions(**options).apply(settings, small=False)
    assert (changed.resize, changed.crop) == expected
    assert notes == []


def test_numbers_are_those_given():
    settings = TrainingSettings()
    assert TrainingOptions().apply(settings, small=False) == (settings, [])
    given = {
        "learning_rate": 1e-3,
        "discriminator_learning_rate": 4e-3,
        "ema_decay": 0.99,
        "batch_size": 3,
        "squash": True,
    }
    changed, notes = TrainingOptions(**given).apply(settings, small=False)
    assert (changed, notes) == (replace(settings, **given), [])
    assert changed.optimizer_numbers()["rates"] == {"discriminators": 4e-3}
    assert settings.optimizer_numbers()["rates"] == {}
    assert changed.framing() == {"resize": 286, "crop": 256, "flip": True, "squash": True}
    squashed = replace(settings, squash=True)
    assert TrainingOptions(squash=False).apply(squashed, small=False).preset.squash is False


@pytest.mark.parametrize("kind", [TrainingOptions, InpaintingOptions, DoctorOptions])
def test_numbers_below_their_limits_are_refused_by_all_options(kind: Any):
    for values, message in (
        ({"batch_size": -3, "width": 2}, r"^--batch-size -3 is too small: give 1 or more$"),
        ({"width": 0}, r"^--width 0 is too small: give 1 or more$"),
        ({"resize": 0}, r"^--resize 0 is too small: give 1 or more$"),
        ({"crop": 0}, r"^--crop 0 is too small: give 1 or more$"),
        ({"learning_rate": 0.0}, r"^--learning-rate 0\.0 is too small: give more than 0$"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(**values)
    assert kind(width=1, learning_rate=1e-9, resize="none", squash=False).width == 1
    assert kind(resize=1, crop=1, batch_size=1).resize == 1


@pytest.mark.parametrize(
    ("kind", "losses"),
    [
        (PresetOptions, "cycle identity attention"),
        (CUTOptions, "nce content identity"),
        (Pix2PixOptions, "reconstruction"),
    ],
)
def test_weights_below_0_are_refused(kind: Any, losses: str):
    for loss in losses.split():
        with pytest.raises(ValueError, match=rf"^--{loss}-weight -0\.5 is too small: give 0 or more$"):
            kind(**{f"{loss}_weight": -0.5})
        kind(**{f"{loss}_weight": 0.0})


# --- what is settled on


@pytest.fixture
def narrow() -> Iterator[str]:
    @GENERATORS.register("narrow")
    def narrow(*, width: int = 16) -> ResNetGenerator:
        return ResNetGenerator(width=width, blocks=1)

    yield "narrow"
    GENERATORS.remove("narrow")


def width_of(choice: Any) -> int:
    with torch.device("meta"):
        network = GENERATORS.create(choice) if isinstance(choice, str) else choice()
    return next(layer.out_channels for layer in network.modules() if isinstance(layer, torch.nn.Conv2d))


def test_a_cyclegan_is_ours_unless_another_is_named():
    chosen, published = PresetOptions().settle().preset, PRESETS.create("monet")
    assert (chosen.crop, chosen.batch_size, chosen.resize) == (published.crop, published.batch_size, None)
    assert [len(each) for each in chosen.discriminator if isinstance(each, list)] == [3]


@pytest.mark.parametrize(
    ("options", "small", "expected"),
    [
        ({}, True, "restyle"),
        ({}, False, "monet_one_sided"),
        ({"preset": "cut"}, True, "cut"),
        ({"generator": "resnet6"}, True, "monet_one_sided"),
        ({"width": 8}, True, "monet_one_sided"),
        ({"content_weight": 1.0}, True, "restyle"),
    ],
)
def test_a_cpu_goes_on_from_the_painter_that_ships(options: Any, small: bool, expected: str):
    assert CUTOptions(**options).with_preset(small=small).preset == expected
    chosen, published = CUTOptions(**options).settle(small=small).preset, PRESETS.create(expected)
    assert chosen.discriminator_learning_rate == published.discriminator_learning_rate


def test_a_generator_that_is_built_already_takes_no_options():
    with pytest.raises(ValueError, match=r"^the preset's generator is built already, so --width cannot change it: "):
        CUTOptions(preset="restyle", width=8).settle()
    assert width_of(CUTOptions(preset="restyle", width=8, generator="painter").settle().preset.generator) == 8


class Large(torch.nn.Identity):
    size_multiple, min_size = 48, 200


def test_a_cpu_takes_presets_of_every_form():
    paper = PRESETS.create("paper")
    ready, notes = PresetOptions(preset="paper").apply(replace(paper, generator=Large(), crop=512), small=True)
    assert (ready.crop, notes) == (240, ["240 pixels", *notes[1:]])  # a multiple of 48, and not less than 200

    @GENERATORS.register("unsized")
    def unsized(*, width: int | None = None) -> ResNetGenerator:
        return ResNetGenerator(width=width or 4, blocks=1)

    try:
        assert (
            PresetOptions(preset="paper").apply(replace(paper, generator="unsized"), small=True).preset.generator
            == "unsized"
        )
    finally:
        GENERATORS.remove("unsized")


@pytest.mark.parametrize(
    ("parts", "crop"),
    [
        ({"generator": "painter,unet256"}, 256),
        ({"generator": "painter", "discriminator": "stylegan2"}, 256),
        ({"generator": "painter", "discriminator": "pixel,r3gan(size=64)+pixel"}, 64),
        ({"generator": "painter", "discriminator": "projected"}, 128),
        ({"generator": "unet128,resnet6"}, 128),
    ],
)
def test_a_cpus_crop_is_one_that_all_chosen_networks_take(parts: dict[str, str], crop: int):
    assert PresetOptions(preset="paper", **parts).settle(small=True).preset.crop == crop


def test_without_options_a_preset_stays_what_it_is():
    for name in ("paper", "keras_monet", "two_objective"):
        preset, notes = PresetOptions(preset=name).settle()
        published = PRESETS.create(name)
        assert (replace(preset, augment=None), notes) == (replace(published, augment=None), [])
        assert repr(preset.augment) == repr(published.augment)


def test_a_cpu_scales_down_what_no_option_chose():
    preset, notes = PresetOptions(preset="paper").settle(small=True)
    assert spelled(preset.generator) == ("unet128", {"upsample": "resize_conv", "width": 32})
    assert spelled(preset.discriminator) == ("patchgan", {"width": 32})
    assert (preset.crop, preset.resize, preset.learning_rate, preset.weights.identity) == (128, 143, 5e-4, 2.0)
    assert (preset.batch_size, preset.weights.cycle) == (1, 10.0)
    assert notes == [
        "a U-Net with learning rate 5e-4 and identity weight 2 instead of ResNet-9",
        "128 pixels",
        "width 32 of unet128",
        "width 32 of patchgan",
    ]
    two, notes = PresetOptions(preset="two_objective").settle(small=True)
    assert (two.batch_size, two.crop) == (1, 256)  # a Keras U-Net takes no smaller images
    assert notes == [
        "batch size 1",
        "width 32 of keras_unet256",
        "width 32 of keras_patchgan",
        "width 32 of two_objective",
    ]


def test_a_cpu_gets_the_light_ugatit():
    preset, notes = PresetOptions(preset="ugatit").settle(small=True)
    assert spelled(preset.generator) == ("ugatit", {"width": 32})
    assert spelled(preset.discriminator) == [("ugatit_local", {"width": 32}), ("ugatit_global", {"width": 32})]
    assert (preset.crop, preset.resize, preset.weights.attention) == (128, 143, 1000.0)
    assert notes[:2] == ["the light U-GAT-IT", "128 pixels"]
    preset, _ = PresetOptions(preset="ugatit", generator="resnet6", attention_weight=0.0).settle(small=True)
    assert spelled(preset.generator) == ("resnet6", {"width": 32})
    assert preset.weights.attention == 0


def test_a_cpu_gets_the_small_painter():
    preset, notes = PresetOptions(preset="monet").settle(small=True)
    assert preset.generator == "painter"
    assert (preset.crop, preset.resize, preset.batch_size) == (128, None, 1)
    assert notes == [
        "a painter of width 32 with 4 blocks",
        "batch size 1",
        "width 32 of patchgan",
        "width 32 of projected",
    ]
    assert spelled(preset.discriminator[0]) == ("patchgan", {"width": 32})  # the preset's own option is 48
    assert spelled(preset.discriminator[1][2]) == ("munit", {"width": 32})


def test_options_beat_those_of_a_presets_parts():
    preset, notes = PresetOptions(preset="monet", width=16).settle()
    assert spelled(preset.generator) == ("painter", {"width": 16, "blocks": 6})
    assert spelled(preset.discriminator[1][0]) == ("projected", {"image_size": 128, "width": 16})
    assert notes == []


def test_options_of_inpainting_reach_the_assembly():
    preset, notes = InpaintingOptions().settle()
    assert (preset, notes) == (PRESETS.create("inpainting"), [])
    preset, notes = InpaintingOptions().settle(small=True)
    assert spelled(preset.generator) == ("unet_vit", {"width": 32})
    assert (preset.batch_size, preset.crop, preset.resize) == (1, 128, 128)
    assert preset.learning_rate == pytest.approx(2 * 5e-3 / 512)  # it follows the batch
    assert notes == ["batch size 1", "128 pixels", "width 32 of unet_vit"]
    options = InpaintingOptions(
        generator="resnet6",
        width=4,
        loss="l2",
        hole_side=8,
        hole_fraction=0.25,
        weight_decay=0.0,
        distort=False,
        batch_size=3,
        learning_rate=1e-3,
    )
    preset, _ = options.settle()
    model = build_inpainting(preset)
    assert model.parts().keys() == {"generator", "loss", "holes", "distortion"}
    assert (model.holes, model.distortion) == (Holes(8, 0.25), None)
    assert preset.learning_rate == 1e-3
    (group,) = make_optimizers(model, **preset.optimizer_numbers())["generators"].param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0.0)
    with pytest.raises(ValueError, match=r"fraction=1\.5 is not a fraction"):
        InpaintingOptions(hole_fraction=1.5).settle()


def test_nothing_is_scaled_up(narrow: str):
    for options in ({"generator": narrow}, {"generator": f"{narrow}(width=8)"}):
        preset, _ = PresetOptions(**options).settle(small=True)
        assert width_of(preset.generator) == (16 if options["generator"] == narrow else 8)
    own = replace(PRESETS.create("paper"), crop=64, resize=64)
    PRESETS.register("small_images")(lambda: own)
    try:
        preset, notes = PresetOptions(preset="small_images", generator=narrow).settle(small=True)
    finally:
        PRESETS.remove("small_images")
    assert (preset.crop, preset.resize) == (64, 64)
    assert notes == ["width 32 of patchgan"]


def test_options_beat_what_a_cpu_scales_down(narrow: str):
    preset, notes = PresetOptions(preset="paper", width=48, generator="resnet9").settle(small=True)
    assert width_of(preset.generator) == 48
    assert notes == ["128 pixels"]
    preset, _ = PresetOptions(preset="paper", generator="resnet9(width=40)").settle(small=True)
    assert width_of(preset.generator) == 40
    preset, _ = PresetOptions(preset="paper", width=24, generator=f"{narrow},{narrow}(width=40)").settle(small=True)
    assert [width_of(each) for each in preset.generator] == [24, 40]
    preset, notes = PresetOptions(preset="two_objective", batch_size=4).settle(small=True)
    assert preset.batch_size == 4
    assert "batch size 1" not in notes
    preset, notes = PresetOptions(
        preset="paper", learning_rate=1e-5, identity_weight=0.0, crop=160, cycle_weight=3.0
    ).settle(small=True)
    assert (preset.learning_rate, preset.weights.identity, preset.weights.cycle) == (1e-5, 0.0, 3.0)
    assert (preset.crop, preset.resize) == (160, 286)
    preset, _ = PresetOptions(preset="paper", resize=200).settle(small=True)
    assert (preset.crop, preset.resize) == (200, 200)
    preset, _ = PresetOptions(preset="paper", upsample="transposed").settle(small=True)
    assert spelled(preset.generator)[1]["upsample"] == "transposed"
    preset, notes = PresetOptions(preset="paper", generator="resnet9").settle(small=True)
    assert (preset.learning_rate, preset.weights.identity) == (2e-4, 5.0)
    assert width_of(preset.generator) == 32


def test_options_of_every_part_reach_the_assembly():
    options = PresetOptions(
        preset="keras_monet",
        generator="resnet6(norm='none')",
        discriminator="pixel,patchgan(layers=2)+pixel",
        adversarial="lsgan,hinge+bce(real_label=0.9)",
        replay="history(size=3)",
        penalty="none",
        penalty_every=4,
        augment="none,diffaugment",
        cycle="l1",
        width=4,
    )
    preset, notes = options.settle()
    assert notes == []
    assert (preset.eps, preset.epochs) == (1e-7, 25)
    with torch.device("meta"):
        model = build_cyclegan(preset)
    assert [critic.loss.__class__.__name__ for critic in model.critics_b] == ["Hinge", "BCE"]
    assert model.critics_b[1].loss.real_label == 0.9
    assert [critic.replay.size for critic in (*model.critics_a, *model.critics_b)] == [3, 3, 3]
    assert [critic.penalty_every for critic in (*model.critics_a, *model.critics_b)] == [4, 4, 4]
    assert [critic.augment is None for critic in (*model.critics_a, *model.critics_b)] == [True, False, False]
    with pytest.raises(TypeError, match="'keras_unet256' has no option 'upsample'"):
        PresetOptions(preset="keras_monet", upsample="resize_conv").settle()
    with pytest.raises(UnknownPartError, match="no preset named 'papr'"):
        PresetOptions(preset="papr").settle()


# --- CUT and pix2pix


def test_without_options_presets_of_other_methods_stay_what_they_are():
    for options, name in ((CUTOptions, "cut"), (CUTOptions, "fastcut"), (Pix2PixOptions, "pix2pix")):
        preset, notes = options(preset=name).settle()
        published = PRESETS.create(name)
        assert spelled(preset.generator) == spelled(published.generator)
        assert (replace(preset, generator=None), notes) == (replace(published, generator=None), [])


@pytest.mark.parametrize(
    ("options", "fitting"),
    [(PresetOptions, "paper"), (CUTOptions, "restyle"), (Pix2PixOptions, "pix2pix"), (InpaintingOptions, "inpainting")],
)
def test_a_preset_of_another_method_is_refused(options: Any, fitting: str):
    for preset in {"paper", "pix2pix", "inpainting"} - {fitting}:
        with pytest.raises(TypeError, match=f"takes one of the presets .*{fitting}.*, but was given {preset!r}"):
            options(preset=preset).settle()


def test_a_cpu_scales_down_cut_and_pix2pix():
    assert not CUTOptions().settle(small=True).notes  # the default is made for a CPU
    preset, notes = CUTOptions(preset="cut").settle(small=True)
    assert spelled(preset.generator) == ("resnet9_antialias", {"width": 32})
    assert spelled(preset.discriminator) == ("patchgan_antialias", {"width": 32})
    assert (preset.crop, preset.resize, preset.nce_weight) == (128, 143, 1.0)
    assert notes == ["128 pixels", "width 32 of resnet9_antialias", "width 32 of patchgan_antialias"]
    preset, notes = Pix2PixOptions().settle(small=True)
    assert spelled(preset.generator) == ("unet256", {"norm": "batch", "dropout": 0.5, "width": 32})
    assert (preset.crop, preset.resize) == (256, 286)  # this U-Net takes no smaller images
    assert notes == ["width 32 of unet256", "width 32 of patchgan"]
    preset, notes = Pix2PixOptions(generator="unet128", width=48).settle(small=True)
    assert (width_of(preset.generator), preset.crop, notes) == (48, 128, ["128 pixels"])


def test_options_of_cut_reach_the_assembly():
    options = CUTOptions(
        preset="fastcut",
        generator="resnet6_antialias",
        discriminator="pixel+patchgan(layers=2)",
        penalty="r1(weight=2)",
        penalty_every=16,
        replay="queue",
        augment="diffaugment",
        nce_weight=3.0,
        nce_identity=True,
        flip_equivariance=False,
        patches=7,
        content="ssim(window=5)",
        content_weight=2.0,
        identity="l1",
        identity_weight=0.5,
        grid_weight=5.0,
        shift_weight=4.0,
        width=4,
        squash=True,
    )
    preset, notes = options.settle()
    assert (notes, preset.epochs, preset.squash) == ([], 200, True)
    with torch.device("meta"):
        model = build_cut(preset)
    assert [width_of(lambda network=each: network) for each in (model.generator, *model.discriminator)] == [4, 4, 4]
    numbers = (model.nce_weight, model.nce_identity, model.flip_equivariance, model.patches)
    assert (*numbers, model.grid_weight, model.shift_weight) == (3.0, True, False, 7, 5.0, 4.0)
    assert (type(model.content).__name__, model.content.window, model.content_weight) == ("SSIM", 5, 2.0)
    assert (type(model.identity).__name__, model.identity_weight) == ("L1Loss", 0.5)
    for critic in model.critics:
        assert (critic.penalty.weight, critic.penalty_every) == (2, 16)
        assert isinstance(critic.augment, DiffAugment)
        assert type(critic.replay) is type(REPLAY_BUFFERS.create("queue"))
    dropped, _ = CUTOptions(content="none", nce_weight=0.0).settle()
    assert (dropped.content, dropped.nce_weight) == (None, 0.0)


def test_options_of_pix2pix_reach_the_assembly():
    options = Pix2PixOptions(
        generator="resnet6(norm='none')",
        discriminator="patchgan(layers=2)+pixel(norm='none')",
        adversarial="hinge+lsgan",
        reconstruction="charbonnier",
        reconstruction_weight=7.0,
        width=4,
    )
    preset, notes = options.settle()
    assert notes == []
    with torch.device("meta"):
        model = build_pix2pix(preset)
    assert type(model.reconstruction) is type(CONSISTENCY_LOSSES.create("charbonnier"))
    assert model.reconstruction_weight == 7.0
    patch, pixel = model.discriminator
    assert patch.in_channels == pixel.in_channels == 6
    kinds = [{type(layer) for layer in network.modules()} for network in (patch, pixel)]
    assert [torch.nn.BatchNorm2d in each for each in kinds] == [True, False]  # the preset's norm, unless another is set
    assert [type(critic.loss).__name__ for critic in model.critics] == ["Hinge", "LSGAN"]
    with pytest.raises(UnknownPartError, match="no consistency loss named 'l3'"):
        Pix2PixOptions(reconstruction="l3").settle()
