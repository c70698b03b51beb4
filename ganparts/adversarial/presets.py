"""What the presets of all methods have in common: the numbers of training and of its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ganparts.adversarial.schedules import ConstantThenLinear
from ganparts.distributed import processes
from ganparts.registry import PRESETS

__all__ = ["TrainingSettings", "preset_named"]

SettingsT = TypeVar("SettingsT", bound="TrainingSettings")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimizer, schedule, length and data of a preset.

    Args:
        learning_rate: Adam's, before the schedule.
        discriminator_learning_rate: of the discriminators, if they have their own.
        betas: Adam's.
        eps: Adam's.
        ema_decay: of the generators' moving averages, at most (see :class:`Averages`); None for none.
        schedule: factor on the learning rates as a function of (step, total steps).
        epochs: length of the run.
        steps_per_epoch: None for as many as the larger domain has batches.
        batch_size: pairs in a step, of each process.
        resize: images are resized so that their shorter side has this many pixels (bicubic); None for not at all.
        crop: a random square of this many pixels is cut out.
        flip: whether images are mirrored with probability 1/2.
        squash: resize both sides to ``resize``, as the reference implementation does; images that are not square are
            distorted.
        suits_cpu: whether a CPU can train with these settings, so that nothing needs to be scaled down for one.
    """

    learning_rate: float = 2e-4
    discriminator_learning_rate: float | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    ema_decay: float | None = None
    schedule: Callable[[int, int], float] = field(default_factory=ConstantThenLinear)
    epochs: int = 200
    steps_per_epoch: int | None = None
    batch_size: int = 1
    resize: int | None = 286
    crop: int = 256
    flip: bool = True
    squash: bool = False
    suits_cpu: bool = False

    def epoch_steps(self, pairs: int) -> int:
        """The steps of an epoch of ``pairs`` pairs, which the processes that train together share."""
        return self.steps_per_epoch or -(-pairs // (self.batch_size * processes()))

    def numbers(self) -> dict[str, Any]:
        """These settings without the choices of parts."""
        return {each.name: getattr(self, each.name) for each in fields(TrainingSettings)}

    def framing(self) -> dict[str, Any]:
        """How images are framed, as data sets of pairs take it."""
        return {"resize": self.resize, "crop": self.crop, "flip": self.flip, "squash": self.squash}

    def optimizer_numbers(self) -> dict[str, Any]:
        """The keyword arguments for :func:`~ganparts.make_optimizers`."""
        own = self.discriminator_learning_rate
        rates = {} if own is None else {"discriminators": own}
        return {"learning_rate": self.learning_rate, "betas": self.betas, "eps": self.eps, "rates": rates}


def preset_named(preset: str | SettingsT, kind: type[SettingsT], builder: str) -> SettingsT:
    """The preset of a kind that a name stands for; a preset is returned unchanged.

    Raises:
        UnknownPartError: there is no such name.
        TypeError: a preset of another kind.
    """
    found = PRESETS.create(preset) if isinstance(preset, str) else preset
    if not isinstance(found, kind):
        fitting = ", ".join(name for name in PRESETS if isinstance(PRESETS.create(name), kind))
        raise TypeError(f"{builder} takes one of the presets {fitting}, or a {kind.__name__}, but was given {preset!r}")
    return found
