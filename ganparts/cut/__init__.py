"""CUT and FastCUT: one-sided unpaired translation with a contrastive loss."""

from ganparts.cut.assembly import CUT, build_cut
from ganparts.cut.presets import CUTPreset

__all__ = ["CUT", "CUTPreset", "build_cut"]
