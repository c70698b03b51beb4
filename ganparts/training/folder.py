"""The folder that a run leaves: where everything lies, and how it gets there."""

from __future__ import annotations

import json
import re
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
        options: as the user gave them; they go into checkpoints too. Paths become text.
        settled: the numbers of the run; a run that goes on must settle on the same.
        stateful: what a checkpoint holds, by name: the ``model``, the optimizers.
    """

    def __init__(self, path: Path, *, options: dict[str, Any], settled: dict[str, Any], **stateful: Any):
        self.path, self.stateful = path, stateful
        self.losses, self.generator, self.images = path / "losses.csv", path / "generator", path / "images.zip"
        self.parts = {
            place: f"{name}({', '.join(f'{option}={value!r}' for option, value in chosen.items())})"
            for place, part in stateful["model"].named_children()
            for _, name, chosen in [vars(part).get("built_from") or (None, type(part).__name__, {})]
        }
        self.config = json.loads(
            json.dumps({"options": options, "settled": settled, "parts": self.parts}, default=_in_words)
        )

    def start(self, *, resume: bool) -> int:
        """Put back what the checkpoint holds, if the run goes on, and write ``config.json``; the steps done.

        Raises:
            ValueError: the checkpoint's run settled on something else; the message says on what. Or there is a run
                already that shall not go on.
            OSError: the folder cannot be written, or has no checkpoint.
        """
        step, checkpoint = 0, self.path / "checkpoint.pt"
        if not resume and checkpoint.exists():
            raise ValueError(
                f"{self.path} holds a run already: go on with it (--resume {self.path}), or take another folder"
            )
        if resume:
            saved = load_checkpoint(checkpoint)[1]
            for kind in ("parts", "settled"):
                for name, value in self.config[kind].items():
                    if saved[kind].get(name) != value:
                        raise ValueError(
                            f"{checkpoint} is of a run with {name} {saved[kind].get(name)}, but here it would go on "
                            f"with {value}: go on with the same device, data and version of ganparts"
                        )
            step, _ = load_checkpoint(checkpoint, **self.stateful)
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            (self.path / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        except OSError as error:
            raise OSError(f"cannot write the run folder {self.path}: {error.strerror}; take another one") from None
        return step

    def save(self, step: int) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.path / "checkpoint.pt", step=step, config=self.config, **self.stateful)

    def save_samples(self, step: int, photos: Tensor, stages: Sequence[nn.Module]) -> None:
        """Write the grid of a step; see :func:`save_grid`."""
        save_grid(self.path / "samples" / f"step_{step:07d}.png", photos, stages)


def _in_words(value: object) -> str:
    """A value that JSON lacks as text, without addresses: the same in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
