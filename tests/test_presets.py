"""Every preset, of whatever method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from ganparts import PRESETS, build_cut, build_cyclegan, build_pix2pix, make_optimizers
from ganparts.adversarial import TrainingSettings
from ganparts.cut.presets import CUTPreset
from ganparts.cyclegan import Preset
from ganparts.inpainting import InpaintingPreset, build_inpainting
from ganparts.pix2pix.presets import Pix2PixPreset

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
