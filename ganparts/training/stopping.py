"""Clean stops: Ctrl-C, a termination signal or a time limit end a run after its current step."""

from __future__ import annotations

import signal
import time
from types import FrameType

__all__ = ["StopSignals"]


class StopSignals:
    """While entered, SIGINT (Ctrl-C) and SIGTERM (Kaggle, Slurm) set ``requested`` instead of ending the program.

    A second signal acts as usual. Use it in the main thread only.

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
            self.reason = "the time limit"
        return self.reason is not None

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

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
