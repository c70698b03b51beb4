"""Every preset, of whatever method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from ganparts import CUT, PRESETS, CycleGAN, Pix2Pix, build_cut, build_cyclegan, build_pix2pix, make_optimizers
from ganparts.adversarial import TrainingSettings, build_critics
from ganparts.cut.presets import CUTPreset
from ganparts.cyclegan import LossWeights, Preset
from ganparts.inpainting import InpaintingPreset, build_inpainting
from ganparts.pix2pix.presets import Pix2PixPreset
from ganparts.registry import UnknownPartError

BUILDERS: Mapping[type[TrainingSettings], Callable[[Any], Any]] = {
    Preset: build_cyclegan,
    CUTPreset: build_cut,
    Pix2PixPreset: build_pix2pix,
    InpaintingPreset: build_inpainting,
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_with_the_builder_of_its_kind(name: str):
    preset = PRESETS.create(name)
    for kind, build in BUILDERS.items():
        if isinstance(preset, kind):
            with torch.device("meta"):
                models = build(name), build(preset)
                make_optimizers(models[0], **preset.optimizer_numbers())
            shapes = [{key: tensor.shape for key, tensor in model.state_dict().items()} for model in models]
            assert shapes[0] == shapes[1]
        else:
            with pytest.raises(TypeError, match=rf"takes one of the presets .*, or a {kind.__name__}, but was given"):
                build(name)


@pytest.mark.parametrize(
    "preset",
    [
        Preset(),
        CUTPreset(generator="resnet6", content="l1", content_weight=1.0, identity="l1", identity_weight=1.0),
        Pix2PixPreset(),
    ],
    ids=lambda preset: type(preset).__name__,
)
def test_every_choice_of_a_preset_can_be_made_anew(preset: TrainingSettings):
    build: Callable[..., Any] = BUILDERS[type(preset)]
    parameters = inspect.signature(build).parameters
    values: dict[str, list[Any]] = {"layers": [(0, 4)], "weights": [LossWeights(3.0, 2.0)]}
    for option in parameters.keys() - {"preset"}:
        kind = parameters[option].annotation
        with torch.device("meta"):
            if kind == "bool" or option in values:
                for value in values.get(option, [True, False]):
                    assert getattr(build(preset, **{option: value}), option) == value
            elif kind in ("int", "float"):
                with pytest.raises(ValueError, match=f"^{option}=-1: "):
                    build(preset, **{option: -1})
            else:
                with pytest.raises(UnknownPartError, match="named 'no such part'"):
                    build(preset, **{option: "no such part"})
                with pytest.raises(TypeError, match=f"^{option} .* 3$"):
                    build(preset, **{option: 3})


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_preset_takes_its_numbers_by_name_alone(kind: Any):
    with pytest.raises(TypeError, match="positional argument"):
        kind("resnet9")


def test_every_kind_has_a_preset():
    assert {type(PRESETS.create(name)) for name in PRESETS} == set(BUILDERS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_schedule_of_a_preset_is_as_long_as_its_run(name: str):
    preset = PRESETS.create(name)
    assert preset.schedule.epochs == preset.epochs
    rates = [preset.schedule(step, preset.epochs) for step in range(preset.epochs)]
    assert rates[0] == 1.0
    period = getattr(preset.schedule, "period", preset.epochs)  # from one restart to the next
    for begin in range(0, preset.epochs, period):
        assert rates[begin : begin + period] == sorted(rates[begin : begin + period], reverse=True)
    assert rates[-1] > 0
    assert preset.resize is None or preset.resize >= preset.crop


@pytest.mark.parametrize(
    ("function", "kind"),
    [(CycleGAN, Preset), (CUT, CUTPreset), (Pix2Pix, Pix2PixPreset), (build_critics, CUTPreset)],
)
def test_what_is_built_without_a_preset_has_the_defaults_of_one(function: Callable[..., Any], kind: Any):
    parameters = inspect.signature(function).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    assert defaults
    assert defaults == {name: getattr(kind(), name) for name in defaults}
