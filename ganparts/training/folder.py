"""The folder that a run leaves: where everything lies, and how it gets there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ganparts.training.checkpoint import load_checkpoint, save_checkpoint
from ganparts.training.samples import save_grid

__all__ = ["RunFolder"]


class RunFolder:
    """A run's configuration, losses, samples, checkpoint, weights and paintings.

    ==================  ====================================================
    ``config.json``     the options, and the numbers that they settled on
    ``losses.csv``      a row every so many steps
    ``samples/``        grids of the same photos, ``step_0000270.png``
    ``checkpoint.pt``   everything that a run needs to go on
    ``generator/``      weights and configuration, for ``from_pretrained``
    ``images.zip``      paintings
    ==================  ====================================================

    Args:
        path: made if it does not exist.
        stateful: what a checkpoint holds, by name: the model, the optimizers.
    """

    def __init__(self, path: Path, **stateful: Any):
        self.path, self.stateful = path, stateful
        self.losses, self.generator, self.images = path / "losses.csv", path / "generator", path / "images.zip"
        self.options: dict[str, Any] = {}
        (path / "samples").mkdir(parents=True, exist_ok=True)

    def describe(self, options: dict[str, Any], settled: dict[str, Any]) -> dict[str, str]:
        """Write ``config.json``: the options (they go into checkpoints too), what they settled on, and the parts.

        Args:
            options: as the user gave them. Paths become text.
            settled: the numbers of the run.

        Returns:
            The parts of the model that were built by name, in words, by their place in it.
        """
        self.options = json.loads(json.dumps(options, default=str))
        parts = {
            place: f"{name}({', '.join(f'{option}={value!r}' for option, value in chosen.items())})"
            for place, part in self.stateful["model"].named_children()
            for _, name, chosen in [vars(part).get("built_from") or (None, type(part).__name__, {})]
        }
        text = json.dumps({"options": options, "settled": settled, "parts": parts}, indent=2, default=str)
        (self.path / "config.json").write_text(text + "\n")
        return parts

    def save(self, step: int) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.path / "checkpoint.pt", step=step, config=self.options, **self.stateful)

    def restore(self) -> int:
        """Put back what the checkpoint holds; the steps done."""
        step, _ = load_checkpoint(self.path / "checkpoint.pt", **self.stateful)
        return step

    def save_samples(self, step: int, photos: Tensor, stages: Sequence[nn.Module]) -> None:
        """Write the grid of a step; see :func:`save_grid`."""
        save_grid(self.path / "samples" / f"step_{step:07d}.png", photos, stages)
