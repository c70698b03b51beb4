"""Clean stops: Ctrl-C, a termination signal or a time limit end a run after its current step."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import NamedTuple

from ganparts.distributed import PeerLostError, highest

__all__ = ["StopSignals"]


_TIME_LIMIT = "the time limit"
_TIME, _OTHER, _SIGNAL = 1, 2, 1000  # what processes tell each other: a signal is 1000 and its number


class Agreed(NamedTuple):
    """What processes agreed on: whether to stop, and whether in a hurry."""

    requested: bool
    by_signal: bool


class StopSignals:
    """While entered, SIGINT (Ctrl-C) and SIGTERM (Kaggle, Slurm) set ``requested`` instead of ending the program.

    A second signal acts as usual. Once another process of the run is lost, SIGTERM is ignored: torchrun sends it to the
    processes that are left, and they first say why they end. Use it in the main thread only.

    Args:
        time_limit: minutes from now after which a stop is requested too; None for no limit.
    """

    def __init__(self, *, time_limit: float | None = None) -> None:
        self.reason: str | None = None
        self.by_signal = False
        self._deadline = float("inf") if time_limit is None else time.monotonic() + 60 * time_limit
        self._before: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether the run should stop; ``reason`` then says why."""
        if self.reason is None and time.monotonic() > self._deadline:
            self.reason = _TIME_LIMIT
        return self.reason is not None

    def agree(self) -> Agreed:
        """Whether any process should stop. All must call it after the same step; then they stop for one reason."""
        if not self.requested:
            mine = 0
        elif self.by_signal:
            mine = _SIGNAL + signal.Signals[str(self.reason)]
        else:
            mine = _TIME if self.reason == _TIME_LIMIT else _OTHER
        code = highest(mine)
        if code >= _SIGNAL:
            self.reason, self.by_signal = signal.Signals(code - _SIGNAL).name, True
        elif code == _TIME:
            self.reason = self.reason or _TIME_LIMIT
        return Agreed(code > 0, code >= _SIGNAL)

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._restore()
        if isinstance(error, PeerLostError):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def request(self, reason: str) -> None:
        """Ask the run to stop, and say why."""
        self.reason = self.reason or reason

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name
        self.by_signal = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before.clear()
