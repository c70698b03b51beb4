"""Command-line options that override a preset of CycleGAN, and the settings that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from ganparts.adversarial.options import Settled, TrainingOptions, chosen, part_help, preset_help, preset_number
from ganparts.adversarial.presets import preset_named
from ganparts.cyclegan.presets import Preset
from ganparts.registry import CONSISTENCY_LOSSES

__all__ = ["PresetOptions"]

_LIGHT = {"monet": ("painter", "a painter of width 32 with 4 blocks"), "ugatit": ("ugatit", "the light U-GAT-IT")}
"""What generates on a CPU, by preset."""


@dataclass(frozen=True)
class PresetOptions(TrainingOptions):
    """Options of a CycleGAN. None stands for the preset's value."""

    preset: Annotated[str, preset_help(Preset)] = "monet"
    cycle: Annotated[str | None, part_help(CONSISTENCY_LOSSES, "Cycle loss")] = None
    identity: Annotated[str | None, part_help(CONSISTENCY_LOSSES, "Identity loss")] = None
    cycle_weight: float | None = preset_number(least=0)
    """Factor on the loss between an image and its translation there and back."""
    identity_weight: float | None = preset_number(least=0)
    """Factor on the loss between a target image and its translation; 0 switches it off."""
    attention_weight: float | None = preset_number(least=0)
    """Factor on the loss of the generators' attention, for generators that have it (ugatit); 0 switches it off."""

    def settle(self, *, small: bool = False) -> Settled:
        """The preset with these choices in it.

        Args:
            small: use smaller defaults for every option that is not set, for a CPU, where the preset would take
                weeks. The paper's ResNet also becomes a U-Net with learning rate 5e-4 and identity weight 2, and
                U-GAT-IT the light one.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given, or a preset of another method.
            ValueError: a text that names no parts.
        """
        preset, notes = preset_named(self.preset, Preset, "a CycleGAN"), []
        if small and self.preset == "paper" and self.generator is None:
            generator = f"unet128(upsample={self.upsample or 'resize_conv'!r})"
            weights = replace(preset.weights, identity=2.0)
            preset = replace(preset, generator=generator, learning_rate=5e-4, weights=weights)
            notes = ["a U-Net with learning rate 5e-4 and identity weight 2 instead of ResNet-9"]
        if small and self.preset in _LIGHT and self.generator is None:
            generator, note = _LIGHT[self.preset]
            preset, notes = replace(preset, generator=generator), [note]
        weights = chosen(
            {"cycle": self.cycle_weight, "identity": self.identity_weight, "attention": self.attention_weight}
        )
        return self.apply(
            preset,
            small=small,
            notes=notes,
            losses=("cycle", "identity"),
            weights=replace(preset.weights, **weights),
        )
