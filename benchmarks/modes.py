"""The ways of training that benchmarks compare: the textbook's, and ours under each policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.textbook import textbook_step
from benchmarks.textbook_cut import textbook_cut_step, textbook_pix2pix_step
from ganparts import (
    CUT,
    GENERATORS,
    CycleGAN,
    LossWeights,
    Pair,
    Pix2Pix,
    build_cut,
    build_cyclegan,
    build_pix2pix,
    make_optimizers,
    train_step,
)
from ganparts.blocks import recompute_blocks
from ganparts.training import PolicyOptions, choose_policy

__all__ = ["METHODS", "MODES", "Mode", "build", "chosen_modes", "make_step", "possible_modes"]


class Mode(NamedTuple):
    """One way of training.

    Args:
        options: of the policy.
        level: of memory; None for the textbook's step.
    """

    options: PolicyOptions
    level: str | None = "fast"


_EAGER = PolicyOptions("fp32", "channels_first", "1", "off", "off")
MODES: dict[str, Mode] = {
    "textbook": Mode(_EAGER, None),
    "textbook_tf32": Mode(PolicyOptions("tf32", "channels_first", "1", "off", "off"), None),
    "textbook_bf16_compiled": Mode(PolicyOptions("bf16", "channels_last", "1", "off", "on"), None),
    "ours": Mode(_EAGER),
    "low": Mode(_EAGER, "low"),
    "lowest": Mode(_EAGER, "lowest"),
    "streams": Mode(PolicyOptions("fp32", "channels_first", "2", "off", "off")),
    "captured": Mode(PolicyOptions("fp32", "channels_first", "1", "on", "off")),
    "captured_low": Mode(PolicyOptions("fp32", "channels_first", "1", "on", "off"), "low"),
    "captured_lowest": Mode(PolicyOptions("fp32", "channels_first", "1", "on", "off"), "lowest"),
    "tf32_captured": Mode(PolicyOptions("tf32", "channels_first", "1", "on", "off")),
    "tf32_last_captured": Mode(PolicyOptions("tf32", "channels_last", "1", "on", "off")),
    "auto": Mode(PolicyOptions()),
}
"""Ways of training by name; those in half precision follow."""
for _half in ("bf16", "fp16"):  # the second is for cards without the first, such as a T4
    MODES |= {
        f"{_half}_captured": Mode(PolicyOptions(_half, "channels_last", "1", "on", "off")),
        f"{_half}_captured_streams": Mode(PolicyOptions(_half, "channels_last", "2", "on", "off")),
        f"{_half}_compiled_captured": Mode(PolicyOptions(_half, "channels_last", "1", "on", "on")),
    }


P100_MODES = ("ours", "low", "lowest", "captured", "captured_low", "captured_lowest")
CUDA_MODES = (
    *("textbook_bf16_compiled", "ours", "captured", "tf32_captured", "tf32_last_captured", "bf16_captured"),
    *("bf16_captured_streams", "bf16_compiled_captured", "low", "lowest"),
)
T4_MODES = ("ours", "captured", "fp16_captured", "fp16_captured_streams", "fp16_compiled_captured", "low", "lowest")


def chosen_modes(device: torch.device, names: tuple[str, ...] = (), *, p100: bool = False) -> dict[str, Mode]:
    """The textbook's step as people run it on a device, and what is to be compared with it.

    Args:
        device: what runs them.
        names: of ``MODES``; none for all that make sense on the device.
        p100: only what a P100 can do.

    Raises:
        ValueError: an unknown name, or the device can do none of the named modes.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    p100 = p100 or (6, 0) <= capability < (7, 0)
    tf32 = capability >= (8, 0) and not p100  # PyTorch's default for convolutions
    baseline = "textbook_tf32" if tf32 else "textbook"
    if device.type != "cuda":
        default = ("ours", "low", "lowest")
    else:
        default = P100_MODES if p100 else CUDA_MODES if capability >= (8, 0) else T4_MODES
    return {baseline: MODES[baseline]} | possible_modes(device, names or default)


def possible_modes(device: torch.device, names: Sequence[str]) -> dict[str, Mode]:
    """Those of the named modes that a device can do. A line says why others are left out.

    Raises:
        ValueError: an unknown name, or the device can do none of them.
    """
    possible: dict[str, Mode] = {}
    reason = ""
    for name in names:
        if name not in MODES:
            raise ValueError(f"there is no mode {name!r}; there are: {', '.join(MODES)}")
        try:
            choose_policy(device, MODES[name].options)
        except ValueError as error:
            reason = str(error)
            print(f"{name} is left out: {reason.partition(':')[0]}")
        else:
            possible[name] = MODES[name]
    if not possible:
        raise ValueError(reason)
    return possible


METHODS = {"cyclegan": "resnet9", "cut": "resnet9_antialias", "fastcut": "resnet9_antialias", "pix2pix": "unet256"}
"""The methods whose steps are compared, and their published generators."""


def build(
    generator: str, *, width: int, identity_weight: float, replay: str, method: str = "cyclegan"
) -> CycleGAN | CUT | Pix2Pix:
    """One of ``METHODS`` as published, with a generator of some width; the other options are those of CycleGAN."""
    make_generator = partial(GENERATORS.create, generator, width=width)
    if method == "pix2pix":
        return build_pix2pix(generator=make_generator)
    if method != "cyclegan":
        return build_cut(method, generator=make_generator)
    weights = LossWeights(identity=identity_weight)
    return build_cyclegan(generator=make_generator, discriminator="patchgan", replay=replay, weights=weights)


def make_step(mode: Mode, model: CycleGAN | CUT | Pix2Pix, pair: Pair) -> Callable[[], dict[str, Tensor]]:
    """A function that trains a copy of ``model`` once, in this mode, on ``pair`` and its device."""
    device = pair.a.device
    model = deepcopy(model).to(device)
    policy = choose_policy(device, mode.options)
    policy.prepare(model)
    optimizers = make_optimizers(model, scaling=policy.scaling)
    networks = list(model.stages().values())
    stateful: dict[str, Any] = {"model": model, "optimizers": optimizers}
    drawn = _fix_draws(model, pair) if isinstance(model, CUT) else {}
    if mode.level is None:
        networks += model.networks()["discriminators"].values()
        once: Callable[[Pair, int], dict[str, Tensor]] = partial(_textbook, model, optimizers, drawn)
    else:
        recompute_blocks(model, mode.level == "lowest")
        ways: dict[str, Any] = {"low_memory": mode.level != "fast"}
        if isinstance(model, CycleGAN):
            ways["side_stream"] = policy.side_stream()
        once = lambda pair, number: train_step(model, pair, optimizers, **ways)  # noqa: E731
    step = policy.wrap(once, networks=networks, **stateful)

    def run() -> dict[str, Tensor]:
        policy.set_backends()  # other modes have other ones
        return step(pair, 0)

    return run


def _fix_draws(model: CUT, pair: Pair) -> dict[str, Any]:
    """Every step of CUT compares the same patches and mirrors its images, so that two steps' losses can be compared."""
    torch.manual_seed(0)
    with torch.no_grad():
        positions = model.draw_positions(model.generator.features(pair.a, model.layers))
    flip = torch.ones((), dtype=torch.bool, device=pair.a.device)
    vars(model).update(draw_positions=lambda features: positions, draw_flip=lambda images: flip)
    return {"positions": [positions, positions], "flip": model.flip_equivariance}


def _textbook(model: Any, optimizers: Any, drawn: dict[str, Any], pair: Pair, number: int) -> dict[str, Tensor]:
    if isinstance(model, CUT):
        return textbook_cut_step(model, pair, optimizers, **drawn)
    if isinstance(model, Pix2Pix):
        return textbook_pix2pix_step(model, pair, optimizers)
    return textbook_step(
        model, pair, optimizers, replay_a=_memories(model.critics_a), replay_b=_memories(model.critics_b)
    )


def _memories(critics: torch.nn.ModuleList) -> list[Any]:
    return [critic.replay for critic in critics]
