"""How fast a training step can be at most on a card: its operations and bytes, at the rates that the vendor publishes.

These are bounds, no forecasts: real kernels reach neither rate, and start one after the other. Nothing is run: the step
is counted on the meta device, and the card need not be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganparts.adversarial.optimizers import Optimizers

__all__ = ["CARDS", "Bound", "Bounds", "Card", "Work", "bounds", "count_step"]

_ADAM = 7 * 4  # bytes for each trained number: it, its gradient and two averages are read, all but the gradient written


class Card(NamedTuple):
    """What a vendor publishes of a card."""

    name: str
    capability: tuple[int, int]
    tflops: dict[str, float]
    """Dense TFLOP/s of convolutions in each precision that PyTorch has on it, sums in fp32."""
    gigabytes: float
    """Memory bandwidth, in GB/s."""
    source: str


CARDS: dict[str, Card] = {
    "P100": Card(
        "Tesla P100 PCIe 16 GB",
        (6, 0),
        {"fp32": 9.3, "fp16": 9.3},  # PyTorch sums in fp32, so convolutions never reach the doubled rate of fp16
        732,
        "NVIDIA Tesla P100 PCIe data sheet",
    ),
    "T4": Card("Tesla T4", (7, 5), {"fp32": 8.1, "fp16": 65}, 320, "NVIDIA T4 data sheet"),
    "V100": Card("Tesla V100 SXM2", (7, 0), {"fp32": 15.7, "fp16": 125}, 900, "NVIDIA V100 data sheet"),
    "A100": Card(
        "A100 SXM 80 GB",
        (8, 0),
        {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312},
        2039,
        "NVIDIA A100 data sheet, without sparsity",
    ),
    "H100": Card(
        "H100 SXM 80 GB",
        (9, 0),
        {"fp32": 67, "tf32": 494, "bf16": 989, "fp16": 989},
        3350,
        "NVIDIA H100 data sheet, without sparsity (half of what it prints for tensor cores)",
    ),
    "RTX4090": Card(
        "GeForce RTX 4090",
        (8, 9),
        {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2, "fp16": 165.2},
        1008,
        "NVIDIA Ada GPU architecture white paper, without sparsity, sums in fp32",
    ),
}


class Work(NamedTuple):
    """What a training step must do."""

    flop: int
    """Operations of convolutions and matrix products, computed directly."""
    winograd_flop: float
    """The same if every convolution of stride 1 takes the multiplications of Winograd's F(2x2) alone (Lavin and Gray
    2015, arXiv 1509.09308), 16 instead of 36 for four outputs of a 3x3 kernel."""
    convolution_bytes: int
    """Memory traffic in 32 bits, if each convolution and matrix product reads and writes each of its tensors once."""
    optimizer_bytes: int
    """Memory traffic of Adam, if it reads and writes each number once."""
    all_bytes: int
    """Memory traffic in 32 bits, if each operation of PyTorch reads and writes each of its tensors once."""


class Bound(NamedTuple):
    """A time that a kind of implementation cannot beat."""

    milliseconds: float
    work: str
    holds_for: str


class Bounds(NamedTuple):
    """The bounds of a step on a card, in one precision."""

    direct: Bound
    """From the step's operations, with every convolution computed directly."""
    winograd: Bound | None
    """From its operations in fp32, where libraries may compute some convolutions with fewer multiplications."""
    fused: Bound
    """From its memory traffic."""
    unfused: Bound | None
    """From its memory traffic in 32 bits as PyTorch has it without compilation."""

    @property
    def milliseconds(self) -> float:
        """What no implementation with direct convolutions can beat."""
        return max(self.direct.milliseconds, self.fused.milliseconds)


def count_step(train: Callable[[Optimizers], object], optimizers: Optimizers) -> Work:
    """Count a training step.

    Args:
        train: trains once with optimizers; networks and images are on the meta device. It runs twice.
        optimizers: of all networks.

    Raises:
        ValueError: the step does not run on the meta device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    trained = {id(p): p for each in optimizers.values() for group in each.param_groups for p in group["params"]}
    try:
        train(optimizers)  # replay buffers and averages are allocated
        with FlopCounterMode(display=False) as counter, _Moved() as moved:
            train(optimizers)
    except Exception as error:  # a part may raise anything on tensors without data
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the operations of this step cannot be counted ({reason[:200]})") from error
    flop = counter.get_total_flops()
    return Work(
        flop=flop,
        winograd_flop=flop - moved.saved_flop,
        convolution_bytes=moved.by_products,
        optimizer_bytes=_ADAM * sum(parameter.numel() for parameter in trained.values()),
        all_bytes=moved.by_all,
    )


def bounds(work: Work, card: Card, precision: str) -> Bounds:
    """The bounds of a step on a card.

    Raises:
        ValueError: the card has no such precision.
    """
    if precision not in card.tflops:
        raise ValueError(f"a {card.name} has no {precision}: choose one of {', '.join(card.tflops)}")
    rate, size = card.tflops[precision], 2 if precision in ("bf16", "fp16") else 4

    def computing(flop: float, holds_for: str) -> Bound:
        return Bound(flop / rate / 1e9, f"{flop / 1e12:.3f} TFLOP", holds_for)

    def moving(amount: float, holds_for: str) -> Bound:
        return Bound(amount / card.gigabytes / 1e6, f"{amount / 1e9:.2f} GB", holds_for)

    winograd = "Winograd's F(2x2) where the stride is 1"  # which libraries have for no tensor cores
    least = work.convolution_bytes * size / 4 + work.optimizer_bytes
    return Bounds(
        direct=computing(work.flop, "direct convolutions"),
        winograd=computing(work.winograd_flop, winograd) if precision == "fp32" else None,
        fused=moving(least, "all but convolutions fused, nothing kept in cache between them"),
        unfused=moving(work.all_bytes, "a kernel for each operation of PyTorch") if size == 4 else None,
    )


class _Moved(TorchDispatchMode):
    """Counts bytes that operations read and write, and operations that Winograd's way would save."""

    def __init__(self) -> None:
        super().__init__()
        self.by_all = self.by_products = 0
        self.saved_flop = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given, made = _tensors((args, kwargs)), _tensors(result)
        storages = {tensor.untyped_storage()._cdata for tensor in given}
        if not func._schema.is_mutable and all(tensor.untyped_storage()._cdata in storages for tensor in made):
            return result  # a view
        moved = sum(tensor.numel() * 4 for tensor in (*given, *made))
        self.by_all += moved
        name = func._schema.name.removeprefix("aten::")
        if name in ("convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm"):
            self.by_products += moved
        if name == "convolution":
            self.saved_flop += _saved(args[0], args[1], result, stride=args[3], transposed=args[6])
        elif name == "convolution_backward":
            once = _saved(args[1], args[2], args[0], stride=args[4], transposed=args[7])
            images, weights = args[10][:2]  # whether it computes the gradients at its images and at its weights
            self.saved_flop += once * (images + weights)
        return result


def _saved(images: Tensor, weight: Tensor, output: Tensor, *, stride: list[int], transposed: bool) -> float:
    """Operations that Winograd's way saves in one convolution."""
    if weight.ndim != 4 or set(stride) != {1}:
        return 0.0
    height, width = weight.shape[2:]
    flop = 2 * (images if transposed else output).numel() * weight[0].numel()
    return flop * (1 - (height + 1) * (width + 1) / (4 * height * width))


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
