"""What a network does to an image, as a small picture: one bar a run of convolutions at one size."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Stage(NamedTuple):
    """Convolutions in a row whose maps have one size."""

    height: int
    width: int
    channels: list[int]
    """Of the maps, in order, without repetitions."""
    convolutions: int


class Structure(NamedTuple):
    """The stages of a network, in the order in which they are computed; the image is the first."""

    stages: list[Stage]
    skips: list[tuple[int, int]]
    """Pairs of stages: what the first computes also goes past those between into the second."""
    outputs: list[list[int]]
    """The shapes of what it returns, without the batch."""


def structure_of(network: torch.nn.Module, side: int) -> Structure:
    """Run a network on the meta device, and note its convolutions and what joins them.

    Args:
        network: on the meta device.
        side: height and width of the image.
    """
    image = torch.zeros(1, 3, side, side, device="meta")
    noted = _Noted(image)
    with torch.no_grad(), torch.device("meta"), noted:
        outputs = network(image)
    maps = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return Structure(noted.stages, sorted(noted.skips), [list(each.shape[1:]) for each in maps])


class _Noted(TorchDispatchMode):
    """Follows an image through a network: each tensor belongs to the last stage that it comes from."""

    def __init__(self, image: Tensor):
        super().__init__()
        self.stages = [Stage(*image.shape[2:], [image.shape[1]], 0)]
        self.skips: set[tuple[int, int]] = set()
        self.origins = {id(image): 0}
        self.alive: list[Tensor] = [image]  # so that no tensor gets the number of another

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        inputs = [self.origins[id(each)] for each in tree_leaves(args) if id(each) in self.origins]
        if not inputs:
            return result
        name = function.overloadpacket.__name__
        origin = max(inputs)
        if name == "convolution" and result.ndim == 4:
            origin = self._convolved(origin, result)
        elif name in ("cat", "add", "add_"):
            self.skips |= {(early, origin) for early in inputs if origin - early > 1}
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self.origins[id(each)] = origin
                self.alive.append(each)
        return result

    def _convolved(self, origin: int, result: Tensor) -> int:
        height, width = result.shape[2:]
        last = self.stages[-1]
        # maps of one size are one stage, except the image, and a branch that begins anew
        if len(self.stages) > 1 and origin == len(self.stages) - 1 and (last.height, last.width) == (height, width):
            channels = last.channels if last.channels[-1] == result.shape[1] else [*last.channels, result.shape[1]]
            self.stages[-1] = Stage(height, width, channels, last.convolutions + 1)
        else:
            self.stages.append(Stage(height, width, [result.shape[1]], 1))
        return len(self.stages) - 1


_STEP, _BAR, _TALL, _LABEL, _BOTTOM = 50, 24, 110, 18, 38
_LEAST = 700  # pixels; a wider picture is scaled down to its column, but no further than this


def drawing(structure: Structure, title: str) -> str:
    """The structure as SVG: bars as tall as the maps (in octaves), channels above, sizes below, skips as arcs."""
    stages = structure.stages
    largest = max(stage.height for stage in stages).bit_length()
    middle = [_STEP * place + _STEP / 2 for place in range(len(stages))]
    tops = [-max(6.0, _TALL * stage.height.bit_length() / largest) for stage in stages]  # upwards from the bars' feet
    parts, highest = [], min(tops) - _LABEL
    for first, last in structure.skips:
        starts, ends = tops[first] - _LABEL, tops[last] - _LABEL
        peak = min(starts, ends) - min(90, 14 * (last - first))
        highest = min(highest, (starts + ends) / 8 + 0.75 * peak)
        x0, x1 = middle[first], middle[last]
        curve = f"M{x0:.0f} {starts:.0f}C{x0:.0f} {peak:.0f} {x1:.0f} {peak:.0f} {x1:.0f} {ends:.0f}"
        parts.append(f'<path class="skip" d="{curve}"/>')
    for place, (stage, x, top) in enumerate(zip(stages, middle, tops, strict=True)):
        kind, note = ("stage", f"{stage.convolutions} conv") if place else ("image", "image")
        box = f'x="{x - _BAR / 2:.0f}" y="{top:.0f}" width="{_BAR}" height="{-top:.0f}"'
        parts.append(f'<rect class="{kind}" {box} rx="2"/>')
        parts.append(f'<text x="{x:.0f}" y="{top - 5:.0f}">{_channels(stage)}</text>')
        parts.append(f'<text x="{x:.0f}" y="15">{_size(stage)}</text>')
        parts.append(f'<text class="note" x="{x:.0f}" y="29">{note}</text>')
    wide, tall = _STEP * len(stages), round(_BOTTOM - highest + 4)
    size = f'viewBox="0 {-tall + _BOTTOM} {wide} {tall}" width="{wide}" height="{tall}"'
    style = f'style="min-width:{min(wide, _LEAST)}px"'
    return f'<div class="structure"><svg {size} {style} role="img" aria-label="{title}">{"".join(parts)}</svg></div>'


def in_words(structure: Structure) -> str:
    """The structure as a line of text, for the picture's label."""
    return ", ".join(f"{_channels(stage)} channels at {_size(stage)}" for stage in structure.stages)


def _channels(stage: Stage) -> str:
    first, last = stage.channels[0], stage.channels[-1]
    return str(last) if first == last else f"{first}-{last}"


def _size(stage: Stage) -> str:
    return f"{stage.height}²" if stage.height == stage.width else f"{stage.height}x{stage.width}"
