"""Early warnings of what goes wrong in training, while there is time to do something about it.

A :class:`Watch` is given losses, gradient norms and pictures at intervals. It reports what it sees, and appends it to
``warnings.jsonl``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganparts.blocks import evaluating
from ganparts.disk import naming_file, replace_file

__all__ = ["Finding", "Watch", "picture_statistics"]

_LASTING = 3  # looks at pictures in a row that show it, before it is said
_WON = 0.01  # of a discriminator's loss at the beginning
_WON_LOOKS = 20  # rows in a row
_EXPLODED = 100.0  # times its own moving average
_SETTLING = 5  # looks at gradients before they are judged: those of a generator that begins as the identity are tiny
_STUCK = 20  # rows in a row whose steps were skipped
_LEAST_SCALE = 1.0  # of losses; below it fp16 is not what is wrong


@torch.no_grad()
def picture_statistics(images: Tensor, translated: Tensor) -> dict[str, Tensor]:
    """Statistics that show when translation has failed, scalars on the device.

    Args:
        images: float [N, 3, H, W] in [-1, 1].
        translated: what a generator made of them, of the same shape.

    Returns:
        ``difference``: mean absolute difference of an image and its translation; ``correlation``: of their values, the
        mean over images (-1: inverted); ``contrast``: standard deviation within a translation, the mean over images;
        ``brightness``: mean value; ``variety``: standard deviation between translations, relative to that between
        images, 1 if these are alike.
    """
    images, translated = images.float(), translated.float()
    flat = [values.flatten(1) - values.flatten(1).mean(1, keepdim=True) for values in (images, translated)]
    norms = flat[0].norm(dim=1) * flat[1].norm(dim=1)
    spread, usual = (values.std(0, unbiased=False).mean() for values in (translated, images))
    return {
        "difference": (translated - images).abs().mean(),
        "correlation": ((flat[0] * flat[1]).sum(1) / norms.clamp_min(1e-9)).mean(),
        "contrast": flat[1].std(1).mean(),
        "brightness": translated.mean(),
        "variety": torch.where(usual > 1e-6, spread / usual.clamp_min(1e-9), torch.ones_like(usual)),
    }


@dataclass(frozen=True)
class Finding:
    """A warning: something goes wrong in training.

    Args:
        step: at which the warning was given.
        kind: of problem, in a word or two.
        what: was seen, with values.
        since: the first step at which it was seen.
        advice: what usually helps.
    """

    step: int
    kind: str
    what: str
    since: int
    advice: str

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step}, since step {self.since}: {self.what} {self.advice}"


@dataclass(frozen=True)
class _Sign:
    """How something that goes wrong shows in the statistics of pictures."""

    kind: str
    shows: Callable[[Mapping[str, float]], bool]
    what: str
    advice: str


_SIGNS = (
    _Sign(
        "constant picture",
        lambda seen: seen["contrast"] < 0.02,
        "translated images have a single colour (contrast {contrast:.3f}, mean value {brightness:.2f} of -1 to 1).",
        "Continue from an earlier checkpoint with a lower learning rate; in half precision try bf16 or fp32.",
    ),
    _Sign(
        "output equals input",
        lambda seen: seen["difference"] < 0.01,
        "translated images equal their sources (mean difference {difference:.4f}).",
        "Lower the weights that keep content (identity, cycle), or start with another seed.",
    ),
    _Sign(
        "inverted colours",
        lambda seen: seen["correlation"] < -0.3,
        "translated images are negatives of their sources (correlation {correlation:.2f}).",
        "Raise the identity weight (half the cycle weight), or start with another seed.",
    ),
    _Sign(
        "collapse",
        lambda seen: seen["variety"] < 0.05 and seen["contrast"] >= 0.02,
        "all translated images are alike (they vary {variety:.1%} as much as their sources).",
        "Lower the learning rate, raise the cycle weight, or augment what discriminators see.",
    ),
)


class Watch:
    """Looks at losses, gradient norms and pictures. It warns of each problem once, until the problem goes away.

    Args:
        path: of ``warnings.jsonl``, to which a line is appended for each warning.
        say: is given each warning.
    """

    def __init__(self, path: Path, *, say: Callable[[Finding], object] = print):
        self.path, self.say = path, say
        self._since: dict[str, tuple[int, int]] = {}  # the first step of each problem that lasts, and how many looks
        self._first: dict[str, float] = {}
        self._usual: dict[str, float] = {}
        self._norms: dict[str, int] = {}  # how many of each were seen, up to _SETTLING
        self._skipped = 0

    def forget_beyond(self, step: int) -> None:
        """Drop the warnings of steps that a resumed run does again."""
        if self.path.exists():
            kept = [line + "\n" for line in _up_to(self.path.read_text().splitlines(), step)]
            replace_file(self.path, "".join(kept).encode())

    def state_dict(self) -> dict[str, object]:
        """What it remembers: first losses, usual norms, and since when each problem lasts."""
        return {
            "since": {kind: list(seen) for kind, seen in self._since.items()},
            "first": dict(self._first),
            "usual": dict(self._usual),
            "norms": dict(self._norms),
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        self._since = {kind: (int(first), int(seen)) for kind, (first, seen) in state["since"].items()}
        self._first, self._usual = dict(state["first"]), dict(state["usual"])
        self._norms = dict(state.get("norms", dict.fromkeys(self._usual, _SETTLING)))  # older checkpoints have none
        self._skipped = int(state["skipped"])

    def numbers(self, step: int, values: Mapping[str, float], *, scaled: bool = False, skipping: bool = False) -> bool:
        """Look at a row of losses and gradient norms.

        Args:
            step: of the row.
            values: by name; ``loss_scale`` is the factor on the losses.
            scaled: losses are scaled for fp16, which meets gradients that are not finite by design: it skips such
                steps and lowers the scale. Losses must be finite all the same.
            skipping: the user asked to skip steps that are not finite, whether losses or gradients are not.

        Returns:
            Whether training goes well: all is finite, or such steps are skipped and not too many in a row.
        """
        skips = scaled or skipping
        odd = [name for name, value in values.items() if not math.isfinite(value)]
        broken = [name for name in odd if not (skips and name.startswith("grad_norm_"))]
        self._skipped = self._skipped + 1 if odd and skips else 0
        lost = values.get("loss_scale", _LEAST_SCALE) < _LEAST_SCALE or self._skipped >= _STUCK
        self._judge(
            step,
            "not finite",
            bool(broken),
            f"{', '.join(broken)} became {', '.join(str(values[name]) for name in broken)}.",
            "Lower the learning rate; in fp16 try bf16 or fp32.",
        )
        self._judge(
            step,
            "nothing is learned",
            lost,
            f"{self._skipped} logged steps in a row were skipped, since they were not finite"
            + (f" (loss scale {values['loss_scale']:.2g})." if "loss_scale" in values else "."),
            "Lower the learning rate; in fp16 try bf16 or fp32.",
        )
        for name, value in values.items():
            if name.startswith("disc") and math.isfinite(value):
                self._judge_discriminator(step, name, value)
            if name.startswith("grad_norm_") and math.isfinite(value):
                self._judge_gradient(step, name, value)
        return not lost and (skipping or not broken)

    def _judge_discriminator(self, step: int, name: str, loss: float) -> None:
        first = self._first.setdefault(name, loss)
        self._judge(
            step,
            f"discriminator won ({name})",
            0 <= loss < _WON * first,  # critics of a Wasserstein loss go below 0
            f"{name} is {loss:.2g} and was {first:.2g} at first: the generator cannot learn from it.",
            "Augment what discriminators see, or make them smaller or slower.",
            looks=_WON_LOOKS,
        )

    def _judge_gradient(self, step: int, name: str, norm: float) -> None:
        usual, seen = self._usual.get(name, norm), self._norms.get(name, 0)
        if seen < _SETTLING:
            self._usual[name], self._norms[name] = max(usual, norm), seen + 1
            return
        self._judge(
            step,
            f"gradient exploded ({name})",
            norm > _EXPLODED * usual > 0,
            f"{name} is {norm:.3g} where {usual:.3g} is usual.",
            "If it comes again, lower the learning rate.",
        )
        self._usual[name] = 0.95 * usual + 0.05 * min(norm, _EXPLODED * usual)

    @torch.no_grad()
    def pictures(self, step: int, generator: nn.Module, images: Tensor) -> None:
        """Look at what a generator makes of images, float [N, 3, H, W] in [-1, 1]; fetches five numbers."""
        with evaluating(generator):
            statistics = picture_statistics(images, generator(images))
        seen = dict(zip(statistics, torch.stack(list(statistics.values())).tolist(), strict=True))
        for sign in _SIGNS:
            what = sign.what.format(**seen)
            self._judge(step, sign.kind, sign.shows(seen), what, sign.advice, looks=_LASTING)

    def _judge(self, step: int, kind: str, shows: bool, what: str, advice: str, *, looks: int = 1) -> None:
        if not shows:
            self._since.pop(kind, None)
            return
        first, seen = self._since.get(kind, (step, 0))
        self._since[kind] = first, seen + 1
        if seen + 1 == looks:  # said once; the next time after it was gone
            self._tell(Finding(step, kind, what, first, advice))

    def _tell(self, finding: Finding) -> None:
        with naming_file(self.path), self.path.open("a") as file:
            file.write(json.dumps(vars(finding)) + "\n")
        self.say(finding)


def _up_to(lines: Iterable[str], step: int) -> Iterable[str]:
    for line in lines:
        try:
            if json.loads(line)["step"] <= step:
                yield line
        except (ValueError, TypeError, KeyError):
            continue
