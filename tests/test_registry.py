from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from ganparts import (
    ADVERSARIAL_LOSSES,
    AUGMENTATIONS,
    BACKBONES,
    CONSISTENCY_LOSSES,
    DISCRIMINATORS,
    GENERATORS,
    PENALTIES,
    PRESETS,
    REPLAY_BUFFERS,
    Pair,
    build_cyclegan,
    make_optimizers,
    train_step,
)
from ganparts.registry import Registry, UnknownPartError

PROMISED = [
    (
        GENERATORS,
        "attention_gan attention_unet256 ganilla keras_unet256 painter resnet6 resnet6_antialias resnet9 "
        "resnet9_antialias timm_unet ugatit unet128 unet256 unet_vit",
    ),
    (
        DISCRIMINATORS,
        "batch_head keras_patchgan multiscale_patchgan munit patchgan patchgan_antialias pixel projected r3gan "
        "spectral_patchgan stylegan2 two_objective ugatit_global ugatit_local unet_discriminator",
    ),
    (ADVERSARIAL_LOSSES, "bce hinge logistic lsgan rahinge ralsgan rasgan rsgan two_objective wgan"),
    (CONSISTENCY_LOSSES, "charbonnier features l1 l2 lpips ms_ssim ssim"),
    (PENALTIES, "consistency gradient_penalty lecam r1 r1_r2 r2 zero_centered"),
    (REPLAY_BUFFERS, "history none queue"),
    (BACKBONES, "alexnet efficientnet_lite0 efficientnet_lite1 efficientnet_lite2 timm vgg16"),
    (
        PRESETS,
        "cut fastcut ganilla inpainting keras_monet monet monet_contrast monet_one_sided paper pix2pix restyle "
        "two_objective ugatit uvcgan2",
    ),
]


@pytest.mark.parametrize(("table", "names"), PROMISED, ids=lambda value: getattr(value, "kind", ""))
def test_promised_names_are_there_and_mapping_agrees(table: Registry, names: str):
    assert table.names() == names.split()
    assert list(table) == names.split()
    assert len(table) == len(names.split())
    assert all(name in table and callable(table[name]) for name in names.split())
    assert "absent" not in table


def _defaults(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


@pytest.mark.parametrize(
    "table", [ADVERSARIAL_LOSSES, AUGMENTATIONS, CONSISTENCY_LOSSES, PENALTIES, REPLAY_BUFFERS], ids=lambda t: t.kind
)
def test_a_part_has_the_same_defaults_by_its_name_and_by_its_class(table: Registry[Any]):
    for name in table:
        by_name, by_class = _defaults(table[name]), _defaults(get_type_hints(table[name])["return"])
        both = by_name.keys() & by_class.keys() - ({"weight"} if name == "two_objective" else set())
        assert {option: by_name[option] for option in both} == {option: by_class[option] for option in both}, name


OTHER = {"sum": "mean", "mean": "sum", "mixed": "fake", "image": "place"}
OTHER_OF_TYPE = {float: 0.25, int: 3, bool: False, tuple: (0.25,)}


@pytest.mark.parametrize(
    "table", [ADVERSARIAL_LOSSES, CONSISTENCY_LOSSES, PENALTIES, REPLAY_BUFFERS], ids=lambda t: t.kind
)
def test_every_option_reaches_its_part(table: Registry[Any]):
    for name in table.keys() - {"features", "lpips"}:  # which need a network
        for option, default in _defaults(table[name]).items():
            other = OTHER[default] if isinstance(default, str) else OTHER_OF_TYPE[type(default)]
            assert repr(table.create(name, **{option: other})) != repr(table.create(name)), (name, option)


def test_names_match_a_pattern():
    assert GENERATORS.names("*unet*") == [
        "attention_unet256",
        "keras_unet256",
        "timm_unet",
        "unet128",
        "unet256",
        "unet_vit",
    ]
    assert GENERATORS.names("absent*") == []


def test_unknown_name_is_a_plain_sentence_with_the_nearest_and_the_rest():
    with pytest.raises(KeyError) as caught:
        GENERATORS.create("resnt9")
    text = str(caught.value)
    assert isinstance(caught.value, UnknownPartError)
    assert text.startswith("there is no generator named 'resnt9' (did you mean 'resnet9'?); there are: attention_")
    assert all(name in text for name in GENERATORS)
    with pytest.raises(UnknownPartError, match="no preset named 'papr'"):
        build_cyclegan("papr")


def test_unknown_option_names_option_part_and_what_it_takes():
    with pytest.raises(
        TypeError, match=r"generator 'resnet9' has no option 'wdth' \(did you mean 'width'\?\).*takes: width"
    ):
        GENERATORS.create("resnet9", wdth=32)


@pytest.mark.parametrize(
    ("table", "name", "options", "message"),
    [
        (GENERATORS, "resnet9", {"width": "a"}, "the generator 'resnet9' takes a whole number for width, .* given 'a'"),
        (GENERATORS, "resnet9", {"width": 2.5}, "takes a whole number for width, but was given 2.5"),
        (GENERATORS, "resnet9", {"residual": 1}, "takes True or False for residual, but was given 1"),
        (ADVERSARIAL_LOSSES, "lsgan", {"weight": "a"}, "loss 'lsgan' takes a number for weight, but was given 'a'"),
        (ADVERSARIAL_LOSSES, "lsgan", {"weight": True}, "takes a number for weight, but was given True"),
        (REPLAY_BUFFERS, "history", {"size": 2.5}, "takes a whole number for size, but was given 2.5"),
    ],
)
def test_an_option_of_another_type_is_refused(table: Registry, name: str, options: dict, message: str):
    with pytest.raises(TypeError, match=message):
        table.create(name, **options)


def test_options_have_the_types_of_their_annotations():
    table: Registry[dict] = Registry("thing")

    @table.register("all")
    def everything(
        *,
        name: str = "",
        share: float | None = 1,
        many: list[int] | int = 0,
        rest=None,
        width: int = None,  # noqa: RUF013  # pyright: ignore[reportArgumentType]
    ) -> dict:
        return {"name": name, "share": share, "many": many, "rest": rest}

    @table.register("free")
    def free(*, size="small"):
        return {"size": size}

    free.__annotations__["size"] = "a text, and no type"
    given = {"name": "called so", "share": 2, "many": [1], "rest": object()}
    assert table.create("all", **given) == given
    assert table.create("all", share=None, width=None)["share"] is None
    assert table.create("all", name=Path("here"))["name"] == Path("here")
    assert table.create("free", size=3) == {"size": 3}
    assert table.create("all", share=np.float32(0.5), many=np.int64(3))["many"] == 3
    with pytest.raises(TypeError, match="the thing 'all' takes a number or None for share, but was given 'much'"):
        table.create("all", share="much")


def test_duplicate_is_refused_and_remove_frees_the_name():
    table: Registry[nn.Module] = Registry("thing")
    table.register("one")(nn.Identity)
    with pytest.raises(ValueError, match=r"thing 'one' is already registered by torch\.nn.*Identity"):
        table.register("one")(nn.ReLU)
    assert isinstance(table.create("one"), nn.Identity)
    table.remove("one")
    table.register("one")(nn.ReLU)
    assert isinstance(table.create("one"), nn.ReLU)
    with pytest.raises(UnknownPartError):
        table.remove("two")
    for name in (5, "", nn.ReLU):
        with pytest.raises(TypeError, match=r'a thing is registered under a name, as register\("mine"\)'):
            table.register(name)  # pyright: ignore[reportArgumentType]


def test_messages_list_what_there_is():
    table = Registry("thing")
    with pytest.raises(UnknownPartError) as empty:
        table.create("vase")
    assert str(empty.value) == "there is no thing named 'vase'; there are: none"
    table.register("cup")(lambda: None)
    table.register("bowl")(lambda *, size=1, depth=2: None)
    with pytest.raises(UnknownPartError) as unknown:
        table.create("vase")
    assert str(unknown.value) == "there is no thing named 'vase'; there are: bowl, cup"
    with pytest.raises(TypeError) as plain:
        table.create("cup", size=3)
    assert str(plain.value) == "the thing 'cup' has no option 'size'; it takes: none"
    with pytest.raises(TypeError) as other:
        table.create("bowl", colour="red")
    assert str(other.value) == "the thing 'bowl' has no option 'colour'; it takes: size, depth"
    with pytest.raises(TypeError, match=r"no option 'size_of_it' \(did you mean 'size'\?\)"):
        table.create("bowl", size_of_it=3)
    assert repr(table) == "<thing table: bowl, cup>"
    table.register("dish")(partial(dict, round=True))
    with pytest.raises(ValueError, match=r"'dish' is already registered by functools\.functools\.partial\(.*dict"):
        table.register("dish")(dict)


def test_register_returns_the_builder_unchanged_and_create_passes_options():
    table: Registry[list] = Registry("thing")

    @table.register("pair")
    def pair(*, first: int = 1, second: int = 2) -> list:
        return [first, second]

    assert pair(first=5) == [5, 2]
    assert table.create("pair", second=7) == [1, 7]


def test_a_module_remembers_how_it_was_built():
    part = GENERATORS.create("resnet6", width=4)
    assert part.built_from == ("generator", "resnet6", {"width": 4})
    levels = [2, 4]
    part = GENERATORS.create("unet_vit", levels=levels, channels=4, heads=2, blocks=1, hidden=4, code=4)
    levels.append(8)  # as a sweep may do; the part was built without it
    assert part.built_from[2]["levels"] == [2, 4]  # pyright: ignore[reportIndexIssue]


class Tint(nn.Module):
    def __init__(self, strength: float = 1.0):
        super().__init__()
        self.shift = nn.Parameter(torch.full((1, 3, 1, 1), strength))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tanh(images + self.shift)


@pytest.fixture
def _tint():
    GENERATORS.register("tint")(Tint)
    yield
    GENERATORS.remove("tint")


@pytest.mark.usefixtures("_tint")
@pytest.mark.parametrize("choice", ["tint", Tint, partial(Tint, strength=0.5), ("tint", partial(Tint, 0.5))])
def test_a_third_party_part_trains_by_name_or_as_a_builder(choice):
    model = build_cyclegan(generator=choice, discriminator="pixel")
    before = model.generator_ab.shift.clone()
    losses = train_step(model, Pair(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)), make_optimizers(model))
    assert set(losses) >= {"gan_ab", "cycle_a", "identity_b", "disc_a"}
    assert not torch.equal(model.generator_ab.shift, before)


def test_a_choice_by_name_tells_its_name_and_options():
    assert GENERATORS.named("resnet6") == ("resnet6", {})
    choice = partial(GENERATORS.create, "resnet6", width=4)
    name, options = GENERATORS.named(choice) or ("", {})
    assert (name, options) == ("resnet6", {"width": 4})
    options["width"] = 8  # a copy
    assert choice.keywords == {"width": 4}
    nested = partial(choice, norm="batch")
    assert GENERATORS.named(nested) == ("resnet6", {"width": 4, "norm": "batch"})


@pytest.mark.parametrize(
    "choice",
    [
        partial(nn.Conv2d, 3, 3, 1),
        partial(GENERATORS.create),
        partial(DISCRIMINATORS.create, "patchgan"),  # of another table
        GENERATORS["resnet6"],
        nn.Conv2d(3, 3, 1),
        ("resnet6", "resnet9"),
        None,
    ],
)
def test_other_choices_have_no_name(choice):
    assert GENERATORS.named(choice) is None
