"""A user's choices over a preset of CUT, as a command line has them, and what they settle on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ganparts.adversarial.options import Settled, TrainingOptions, chosen, named_preset
from ganparts.adversarial.presets import preset_named
from ganparts.cut.presets import CUTPreset

__all__ = ["PresetOptions"]


@dataclass(frozen=True)
class PresetOptions(TrainingOptions):
    """Options of a CUT. None stands for the preset's value."""

    preset: Annotated[str, named_preset(CUTPreset)] = "cut"
    nce_weight: float | None = field(default=None, metadata={"least": 0})
    """Factor on the contrastive loss, which keeps the content."""
    nce_identity: bool | None = None
    """Compare paintings with their translations, too."""
    flip_equivariance: bool | None = None
    """Mirror the source at random, and its features back."""
    patches: int | None = field(default=None, metadata={"least": 2})
    """Patches to compare in each layer."""

    def settle(self, *, small: bool = False) -> Settled:
        """The preset with these choices in it; ``small`` scales down what no option chose, for a CPU.

        Raises:
            UnknownPartError: a name that is not registered.
            TypeError: a part without an option that was given, or a preset of another method.
            ValueError: a text that names no parts.
        """
        names = ("nce_weight", "nce_identity", "flip_equivariance", "patches")
        changes = chosen({name: getattr(self, name) for name in names})
        return self.apply(preset_named(self.preset, CUTPreset, "CUT"), small=small, **changes)
