"""A user's choices over a preset of inpainting, as a command line has them, and what they settle on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from ganparts.adversarial.options import GeneratorOptions, Settled, chosen, part_help, preset_help, preset_number
from ganparts.adversarial.presets import preset_named
from ganparts.inpainting.presets import InpaintingPreset
from ganparts.registry import CONSISTENCY_LOSSES

__all__ = ["PresetOptions"]


@dataclass(frozen=True)
class PresetOptions(GeneratorOptions):
    """Options of inpainting. None stands for the preset's value."""

    preset: Annotated[str, preset_help(InpaintingPreset)] = "inpainting"
    loss: Annotated[str | None, part_help(CONSISTENCY_LOSSES, "Loss between filled and whole images")] = None
    hole_side: int | None = preset_number(least=1)
    """Side of a hole, in pixels."""
    hole_fraction: float | None = preset_number(least=0)
    """Share of an image that is holes, from 0 to 1."""
    weight_decay: float | None = preset_number(least=0)
    """Weight decay of AdamW."""
    distort: bool = True
    """Rotate images and change their colours."""

    def settle(self, *, small: bool = False) -> Settled:
        """The preset with these choices in it; ``small`` scales down what no option chose, for a CPU.

        The learning rate follows the batch size, as published, unless it is given.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given, or a preset of another method.
            ValueError: a text that names no parts, or a fraction above 1.
        """
        preset = preset_named(self.preset, InpaintingPreset, "inpainting")
        holes = replace(preset.holes, **chosen({"side": self.hole_side, "fraction": self.hole_fraction}))
        changes: dict[str, Any] = chosen({"weight_decay": self.weight_decay})
        if not self.distort:
            changes["distortion"] = None
        settled = self.apply(preset, small=small, losses=("loss",), holes=holes, **changes)
        if self.learning_rate is None:
            rate = preset.learning_rate * settled.preset.batch_size / preset.batch_size
            settled = settled._replace(preset=replace(settled.preset, learning_rate=rate))
        return settled
