"""A user's choices over a preset of pix2pix, as a command line has them, and what they settle on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ganparts.adversarial.options import Settled, TrainingOptions, chosen, part_help, preset_help, preset_number
from ganparts.adversarial.presets import preset_named
from ganparts.pix2pix.presets import Pix2PixPreset
from ganparts.registry import CONSISTENCY_LOSSES

__all__ = ["PresetOptions"]


@dataclass(frozen=True)
class PresetOptions(TrainingOptions):
    """Options of a pix2pix. None stands for the preset's value."""

    preset: Annotated[str, preset_help(Pix2PixPreset)] = "pix2pix"
    reconstruction: Annotated[str | None, part_help(CONSISTENCY_LOSSES, "Loss between translation and target")] = None
    reconstruction_weight: float | None = preset_number(least=0)
    """Factor on the reconstruction loss."""

    def settle(self, *, small: bool = False) -> Settled:
        """The preset with these choices in it; ``small`` scales down what no option chose, for a CPU.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given, or a preset of another method.
            ValueError: a text that names no parts.
        """
        preset = preset_named(self.preset, Pix2PixPreset, "pix2pix")
        changes = chosen({"reconstruction_weight": self.reconstruction_weight})
        return self.apply(preset, small=small, losses=("reconstruction",), **changes)
