"""Run a network over a large picture, a strip of rows at a time, with the numbers of a single run.

A :class:`FeatureMap` stands in for the tensor that a network is given. The network's ``forward`` runs on it once,
unchanged. PyTorch hands over each operation (``__torch_function__``), which is noted and not computed. Then every
convolution is computed once, in strips of full rows. Its result stays in memory or in a temporary file until the last
operation has read it. A norm takes its statistics from the whole map. Norms, activations, padding and sums are computed
again whenever they are read, which is cheap. So all statistics are exact, every pixel sees all of its surroundings, and
there are no seams.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ganparts.precision import at_least_fp32

__all__ = ["FeatureMap", "Node", "Plan", "TilingError"]

_ELEMENTS = 64  # numbers in a strip for each pixel of a tile: a ResNet's 64 channels at full size


class TilingError(ValueError):
    """A network that cannot run in tiles; the text names the operation and the remedy."""


class Plan:
    """What the maps of one picture share: the order of computing them, and where to keep them.

    Args:
        tile: side of a square; about as many pixels as it has are computed at a time, at full size and 64 channels.
        memory: bytes of maps to keep on the device; the others go to temporary files.
        device: where the network computes.
    """

    def __init__(self, *, tile: int, memory: int, device: torch.device):
        self.elements = _ELEMENTS * tile**2
        self.memory = memory
        self.device = device
        self._steps: list[weakref.ref[Node]] = []  # made before read, so in this order all is there when needed

    def add(self, node: Node) -> None:
        self._steps.append(weakref.ref(node))

    def run(self) -> None:
        """Compute every map to keep that something still needs."""
        while self._steps:
            if (node := self._steps.pop(0)()) is not None:
                node.settle()


class Node:
    """A feature map [1, C, H, W] whose rows are computed when asked for.

    Args:
        plan: the picture's plan.
        shape: (1, C, H, W).
        compute: gives the rows from start to stop (excluded), [1, C, stop - start, W].
        inputs: the maps that ``compute`` reads.
    """

    def __init__(
        self,
        plan: Plan,
        shape: Sequence[int],
        compute: Callable[[int, int], Tensor],
        inputs: Sequence[Node] = (),
    ):
        self.plan = plan
        self.shape = torch.Size(shape)
        self.rows = compute
        self.kept = False
        self.statistics: _Statistics | None = None
        height = self.shape[2]
        # numbers that a row of it takes, or if those are more, the rows of its inputs that it is computed from
        self.cost = max([self._numbers, *(node.cost_of_reading * node.shape[2] / height for node in inputs)])

    @property
    def _numbers(self) -> int:
        return self.shape[1] * self.shape[3]

    @property
    def cost_of_reading(self) -> float:
        return self._numbers if self.kept else self.cost

    def keep(self, *, statistics: bool = False) -> Node:
        """Compute this map only once, and take the statistics of its channels on the way; returns itself."""
        if statistics and self.statistics is None:
            self.statistics = _Statistics()
        if not self.kept:
            self.kept = True
            self.plan.add(self)
        return self

    def settle(self) -> None:
        """Compute this map now, release its inputs, and keep it until nothing refers to it."""
        store = None
        for start, stop in self.strips():
            rows = self.rows(start, stop)
            if store is None:
                store = _store(self.plan, self.shape, rows.dtype)
            if self.statistics is not None:
                self.statistics.add(at_least_fp32(rows))
            store.write(start, rows)
        assert store is not None
        self.rows = store.read

    def strips(self) -> Iterator[tuple[int, int]]:
        """Ranges of rows to compute at a time."""
        height = self.shape[2]
        step = max(1, int(self.plan.elements // self.cost))
        for start in range(0, height, step):
            yield start, min(start + step, height)


class _Statistics:
    """Mean and variance of each channel over strips (Chan et al. 1979), in float64: [1, C, 1, 1]."""

    def __init__(self):
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.variance: Tensor = torch.zeros(())

    def add(self, rows: Tensor) -> None:
        mean = rows.mean((2, 3), keepdim=True)
        variance = (rows - mean).square_().mean((2, 3), keepdim=True)  # on a CPU, var_mean takes ten times as long
        variance, mean = variance.double(), mean.double()
        count = rows.shape[2] * rows.shape[3]
        share = count / (self.count + count)
        off = mean - self.mean.to(mean)
        self.variance = (1 - share) * self.variance.to(mean) + share * variance + share * (1 - share) * off**2
        self.mean = self.mean.to(mean) + share * off
        self.count += count


def _store(plan: Plan, shape: torch.Size, dtype: torch.dtype) -> _Held | _Filed:
    """Where a map is kept as it was computed, under autocast in bf16; it is read in fp32."""
    size = dtype.itemsize * shape.numel()
    return _Held(plan, shape, dtype, size) if size <= plan.memory else _Filed(plan, shape, dtype)


class _Held:
    """A map in the device's memory."""

    def __init__(self, plan: Plan, shape: torch.Size, dtype: torch.dtype, size: int):
        self.tensor = torch.empty(shape, dtype=dtype, device=plan.device)
        self.plan, self.size = plan, size
        plan.memory -= size

    def write(self, start: int, rows: Tensor) -> None:
        self.tensor[:, :, start : start + rows.shape[2]] = rows

    def read(self, start: int, stop: int) -> Tensor:
        return at_least_fp32(self.tensor[:, :, start:stop])

    def __del__(self) -> None:
        self.plan.memory += self.size


class _Filed:
    """A map in a temporary file, row after row; it is not memory-mapped, so it takes no memory."""

    def __init__(self, plan: Plan, shape: torch.Size, dtype: torch.dtype):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  closed, and so removed, with this object
        self.device, self.dtype = plan.device, dtype
        self.channels, self.width = shape[1], shape[3]
        self.row_size = dtype.itemsize * self.channels * self.width

    def write(self, start: int, rows: Tensor) -> None:
        self.file.seek(start * self.row_size)
        try:
            self.file.write(_bytes(rows[0].transpose(0, 1).contiguous().cpu()))
        except OSError as error:
            raise OSError(
                f"feature maps of a large picture go to temporary files in {tempfile.gettempdir()}, which failed: "
                f"{error.strerror or error}: set TMPDIR to a folder with more space, or make the picture smaller"
            ) from error

    def read(self, start: int, stop: int) -> Tensor:
        rows = torch.empty(stop - start, self.channels, self.width, dtype=self.dtype)
        self.file.seek(start * self.row_size)
        self.file.readinto(_bytes(rows))
        return at_least_fp32(rows.transpose(0, 1)[None].to(self.device))

    def __del__(self) -> None:
        self.file.close()


def _bytes(tensor: Tensor) -> Any:
    """The memory of a tensor, to be read or written."""
    return tensor.view(torch.uint8).numpy().data.cast("B")  # NumPy knows no bf16


class FeatureMap:
    """Acts as a tensor, float [1, C, H, W], and notes its operations for :class:`Plan`.

    Raises:
        TilingError: an operation is not in :mod:`ganparts.translate.operations`.
    """

    dtype = torch.float32
    ndim = 4
    is_cuda = False  # no kernel is chosen for it

    def __init__(self, node: Node):
        self.node = node

    @property
    def shape(self) -> torch.Size:
        return self.node.shape

    @property
    def device(self) -> torch.device:
        return self.node.plan.device

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def is_floating_point(self) -> bool:
        return True

    def is_contiguous(self, **_: object) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not callable(method := getattr(Tensor, name, None)):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.__torch_function__(method, (), (self, *args), kwargs)

    def __add__(self, other: object) -> FeatureMap:
        return self.add(other)

    def __mul__(self, other: object) -> FeatureMap:
        return self.mul(other)

    def __sub__(self, other: object) -> FeatureMap:
        return self.sub(other)

    def __rsub__(self, other: object) -> FeatureMap:
        return self.mul(-1).add(other)

    def __truediv__(self, other: object) -> FeatureMap:
        return self.div(other)

    def __neg__(self) -> FeatureMap:
        return self.mul(-1)

    __radd__, __rmul__ = __add__, __mul__

    def __iadd__(self, other: object) -> FeatureMap:
        return self.add_(other)  # another name of the tensor sees it

    def __isub__(self, other: object) -> FeatureMap:
        return self.sub_(other)

    def __imul__(self, other: object) -> FeatureMap:
        return self.mul_(other)

    def __itruediv__(self, other: object) -> FeatureMap:
        return self.div_(other)

    def __len__(self) -> int:
        return self.shape[0]

    def _refused(self, *_: object) -> FeatureMap:
        raise _refusal("an operator other than + - * /")

    __pow__ = __rpow__ = __ipow__ = __rtruediv__ = __floordiv__ = __mod__ = __abs__ = __invert__ = _refused
    __matmul__ = __rmatmul__ = __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __xor__ = _refused

    def __getitem__(self, index: object) -> FeatureMap:
        raise _refusal("indexing")

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from ganparts.translate.operations import OPERATIONS

        name = getattr(func, "__name__", str(func))
        kwargs = dict(kwargs or {})
        in_place = bool(kwargs.pop("inplace", False)) or (name.endswith("_") and not name.endswith("__"))
        operation = OPERATIONS.get(name.strip("_"))
        if operation is None:
            raise _refusal(name)
        node = operation(*map(_nodes, args), **{key: _nodes(value) for key, value in kwargs.items()})
        if not in_place:
            return cls(node)
        args[0].node = node
        return args[0]


def _nodes(value: Any) -> Any:
    if isinstance(value, FeatureMap):
        return value.node
    return [_nodes(item) for item in value] if isinstance(value, list | tuple) else value


def _refusal(name: str) -> TilingError:
    return TilingError(
        f"the network uses {name!r}, which cannot be computed a strip at a time: make the picture smaller (--resize), "
        "or give the picture to the network in one piece (tile=0, --tile 0) if it fits into memory"
    )
