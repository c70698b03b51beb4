"""A user's choices over a preset of CUT, as a command line has them, and what they settle on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

from ganparts.adversarial.options import Settled, TrainingOptions, chosen, part_help, preset_help, preset_number
from ganparts.adversarial.presets import preset_named
from ganparts.cut.presets import CUTPreset, left_out
from ganparts.registry import CONSISTENCY_LOSSES

__all__ = ["PresetOptions"]

OptionsT = TypeVar("OptionsT", bound="PresetOptions")


@dataclass(frozen=True)
class PresetOptions(TrainingOptions):
    """Options of a CUT. None stands for the preset's value."""

    preset: Annotated[str | None, preset_help(CUTPreset, "None: restyle on a CPU, else monet_one_sided")] = None
    nce_weight: float | None = preset_number(least=0)
    """Factor on the contrastive loss, which keeps the content."""
    nce_identity: bool | None = None
    """Compare target images with their translations, too."""
    flip_equivariance: bool | None = None
    """Mirror the source at random, and mirror its features back."""
    patches: int | None = preset_number(least=2)
    """Patches to compare in each layer."""

    content: Annotated[str | None, part_help(CONSISTENCY_LOSSES, "Loss between translation and source, or none")] = None
    content_weight: float | None = preset_number(least=0)
    """Factor on the content loss."""
    identity: Annotated[
        str | None, part_help(CONSISTENCY_LOSSES, "Loss between target and its translation, or none")
    ] = None
    identity_weight: float | None = preset_number(least=0)
    """Factor on the identity loss."""
    grid_weight: float | None = preset_number(least=0)
    """Factor on the pattern of four pixels in translations, which a generator's own grid leaves."""
    shift_weight: float | None = preset_number(least=0)
    """Factor on the difference between translations of shifted images and shifted translations, against patterns."""

    def with_preset(self: OptionsT, *, small: bool) -> OptionsT:
        """With a preset: where none was given, ``restyle`` on a CPU, unless these options ask for another generator."""
        return replace(self, preset=self._preset(small))

    def _preset(self, small: bool) -> str:
        own = (self.generator, self.width, self.upsample) != (None, None, None)
        return self.preset or ("restyle" if small and not own else "monet_one_sided")

    def settle(self, *, small: bool = False) -> Settled:
        """The preset with these choices in it; ``small`` scales down what no option chose, for a CPU.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given, or a preset of another method.
            ValueError: a text that names no parts.
        """
        names = ("nce_weight", "nce_identity", "flip_equivariance", "patches")
        weights = ("content_weight", "identity_weight", "grid_weight", "shift_weight")
        changes = chosen({name: getattr(self, name) for name in (*names, *weights)})
        preset = preset_named(self._preset(small), CUTPreset, "CUT")
        settled = self.apply(preset, small=small, losses=("content", "identity"), **changes)
        given = chosen({"content": self.content, "identity": self.identity}) | changes
        losses = {name: None if value == "none" else value for name, value in given.items()}
        return settled._replace(preset=replace(settled.preset, **left_out(losses)))
