"""Early warnings: what goes wrong in training, said while there is time to do something about it.

:func:`gradient_norms` and :func:`picture_statistics` compute on the device; a :class:`Watch` is told their values at
intervals, says what it saw, and appends it to ``warnings.jsonl``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ganparts.blocks import evaluating

__all__ = ["Finding", "Watch", "gradient_norms", "picture_statistics"]

_LASTING = 3  # looks at pictures in a row that show it, before it is said
_WON = 0.01  # of a discriminator's loss at the beginning
_WON_LOOKS = 20  # rows in a row
_EXPLODED = 100.0  # times its own moving average


@torch.no_grad()
def gradient_norms(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The norm of each network's gradients, scalars on the device: ``grad_norm_<name>``; to be asked after a step."""
    return {
        f"grad_norm_{name}": torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        for name, network in networks.items()
    }


@torch.no_grad()
def picture_statistics(photos: Tensor, paintings: Tensor) -> dict[str, Tensor]:
    """What tells a painting from a failure, scalars on the device.

    Args:
        photos: float [N, 3, H, W] in [-1, 1], at least 2 that differ.
        paintings: of them, of the same shape.

    Returns:
        ``difference``: mean absolute difference of painting and photo; ``correlation``: of a photo's and its painting's
        values, the mean over pictures (-1: inverted); ``contrast``: standard deviation within a painting, the mean over
        pictures; ``brightness``: mean value; ``variety``: standard deviation between paintings against that between
        photos.
    """
    photos, paintings = photos.float(), paintings.float()
    flat = [images.flatten(1) - images.flatten(1).mean(1, keepdim=True) for images in (photos, paintings)]
    norms = flat[0].norm(dim=1) * flat[1].norm(dim=1)
    return {
        "difference": (paintings - photos).abs().mean(),
        "correlation": ((flat[0] * flat[1]).sum(1) / norms.clamp_min(1e-9)).mean(),
        "contrast": flat[1].std(1).mean(),
        "brightness": paintings.mean(),
        "variety": paintings.std(0).mean() / photos.std(0).mean().clamp_min(1e-9),
    }


@dataclass(frozen=True)
class Finding:
    """Something that goes wrong.

    Args:
        step: at which it was said.
        kind: in a word or two.
        what: was seen, with its values.
        since: the step from which on it was so.
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
        "paintings are of one colour (contrast {contrast:.3f}, mean value {brightness:.2f} of -1 to 1).",
        "Go on from an earlier checkpoint with a lower learning rate; in half precision try bf16 or fp32.",
    ),
    _Sign(
        "output equals input",
        lambda seen: seen["difference"] < 0.01,
        "paintings are the photos (mean difference {difference:.4f}).",
        "Lower the identity and cycle weights, or start with another seed.",
    ),
    _Sign(
        "inverted colours",
        lambda seen: seen["correlation"] < -0.3,
        "paintings are negatives of the photos (correlation {correlation:.2f}).",
        "Raise the identity weight (half the cycle weight), or start with another seed.",
    ),
    _Sign(
        "collapse",
        lambda seen: seen["variety"] < 0.05 and seen["contrast"] >= 0.02,
        "all paintings are alike (they vary {variety:.1%} as much as the photos).",
        "Lower the learning rate, raise the cycle weight, or augment what discriminators see.",
    ),
)


class Watch:
    """Looks at losses, gradient norms and pictures, and warns once for as long as a thing lasts.

    Args:
        path: of ``warnings.jsonl``, appended to, a line a warning, after those of steps beyond ``start`` are dropped.
        start: steps already done.
        say: is given each warning.
    """

    def __init__(self, path: Path, *, start: int = 0, say: Callable[[Finding], object] = print):
        self.path, self.say = path, say
        self._since: dict[str, list[int]] = {}
        self._first: dict[str, float] = {}
        self._usual: dict[str, float] = {}
        if path.exists():
            path.write_text("".join(line + "\n" for line in _up_to(path.read_text().splitlines(), start)))

    def numbers(self, step: int, values: Mapping[str, float], *, guarded: bool = False) -> bool:
        """Look at a row of losses and gradient norms.

        Args:
            step: of the row.
            values: by name.
            guarded: a scaler leaves steps out whose gradients are not finite, and meets some by design: gradient norms
                may be so.

        Returns:
            Whether the weights are safe: all is finite, or the optimizers are guarded.
        """
        looked_at = {name: value for name, value in values.items() if not (guarded and name.startswith("grad_norm_"))}
        broken = [name for name, value in looked_at.items() if not math.isfinite(value)]
        self._judge(
            step,
            "not finite",
            bool(broken),
            f"{', '.join(broken)} became {', '.join(str(values[name]) for name in broken)}.",
            "Lower the learning rate; in fp16 try bf16 or fp32.",
        )
        for name, value in values.items():
            if name.startswith("disc_") and math.isfinite(value):
                first = self._first.setdefault(name, value)
                self._judge(
                    step,
                    f"discriminator won ({name})",
                    value < _WON * first,
                    f"{name} is {value:.2g} and was {first:.2g} at first: nothing that it says teaches the generator.",
                    "Augment what discriminators see, or make them smaller or slower.",
                    looks=_WON_LOOKS,
                )
            if name.startswith("grad_norm_") and math.isfinite(value):
                usual = self._usual.get(name, value)
                self._judge(
                    step,
                    f"gradient exploded ({name})",
                    value > _EXPLODED * usual > 0,
                    f"{name} is {value:.3g} where {usual:.3g} is usual.",
                    "If it comes again, lower the learning rate.",
                )
                self._usual[name] = 0.95 * usual + 0.05 * min(value, _EXPLODED * usual)
        return guarded or not broken

    @torch.no_grad()
    def pictures(self, step: int, generator: nn.Module, photos: Tensor) -> None:
        """Look at what a generator makes of photos, float [N, 3, H, W] in [-1, 1]; fetches five numbers."""
        with evaluating(generator):
            statistics = picture_statistics(photos, generator(photos))
        seen = dict(zip(statistics, torch.stack(list(statistics.values())).tolist(), strict=True))
        for sign in _SIGNS:
            what = sign.what.format(**seen)
            self._judge(step, sign.kind, sign.shows(seen), what, sign.advice, looks=_LASTING)

    def _judge(self, step: int, kind: str, shows: bool, what: str, advice: str, *, looks: int = 1) -> None:
        if not shows:
            self._since.pop(kind, None)
            return
        steps = self._since.setdefault(kind, [])
        steps.append(step)
        if len(steps) == looks:  # said once; the next time after it was gone
            self._tell(Finding(step, kind, what, steps[0], advice))

    def _tell(self, finding: Finding) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(vars(finding)) + "\n")
        self.say(finding)


def _up_to(lines: Iterable[str], step: int) -> Iterable[str]:
    for line in lines:
        try:
            if json.loads(line)["step"] <= step:
                yield line
        except (ValueError, TypeError, KeyError):
            continue
