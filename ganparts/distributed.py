"""Several processes that train one model together, as ``torchrun`` starts them.

In a program that torchrun did not start there is one process: every function then does what its name says for that one.

What processes tell each other goes over a group of its own on the CPU (gloo), so it neither waits for a GPU nor for the
messages between GPUs. That group has no short timeout: one process may be busy for an hour while the others
wait. A process that ends closes its connections, which the others notice at their next message. A machine that vanishes
closes nothing, so processes on several machines also send signs of life (:func:`watch`).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

__all__ = [
    "PeerLostError",
    "first_to_speak",
    "from_first",
    "gather",
    "highest",
    "is_first",
    "join",
    "leave",
    "leave_word",
    "local_processes",
    "local_rank",
    "processes",
    "rank",
    "restarts",
    "share",
    "talking",
    "wait_for_all",
    "watch",
    "word_from_elsewhere",
]

ValueT = TypeVar("ValueT")

_PATIENCE = timedelta(days=7)  # for a process that reads, evaluates or writes while the others wait

_BEAT, _SILENCE = 5.0, 60.0  # seconds between two signs of life, and without one until a process counts as lost

_WORD, _HEARD = "word", "heard"  # why the run ends, and how many machines know
_SPEAKING, _LISTENING = 1.0, 5.0  # seconds that one waits until the others know, and the others for what it says

_left = threading.Event()
_control: Any = None  # the group for what processes tell each other; None for PyTorch's default one
_store: Any = None


class PeerLostError(RuntimeError):
    """Another process of the run ended, or cannot be reached.

    Args:
        message: for a user.
        told: whether the other process says itself why the run ends.
    """

    def __init__(self, message: str, *, told: bool = False):
        super().__init__(message)
        self.told = told


def join() -> None:
    """Join the processes that torchrun started, if it did; call it before anything else is done.

    Tensors on GPUs travel by NCCL, others by gloo. If your program has made PyTorch's process group already, that one
    is used, and stays after :func:`leave`.

    Raises:
        PeerLostError: the others cannot be reached.
    """
    global _control, _store
    if dist.is_initialized():
        _control = _control or dist.new_group(backend="gloo", timeout=_PATIENCE)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    with talking():
        shared, number, count = next(iter(rendezvous("env://")))
        _store = PrefixStore(f"ganparts/{restarts()[0]}", shared)  # torchrun keeps the store when it starts again
        nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if nccl else "gloo",
            store=PrefixStore("group", _store),
            rank=number,
            world_size=count,
        )
        _control = dist.new_group(backend="gloo", timeout=_PATIENCE)


def leave() -> None:
    """End what :func:`join` began. Call it where all processes arrive, not after an error."""
    global _control, _store
    _left.set()
    if _control is not None:
        dist.destroy_process_group(_control if _store is None else None)  # the user's own group stays
        _control = _store = None


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return rank() == 0


def local_rank() -> int:
    """The number of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if processes() > 1 else 0


def local_processes() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if processes() > 1 else 1


def restarts() -> tuple[int, int]:
    """How often torchrun has started the processes again, and how often it may (``--max-restarts``)."""
    done, most = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return int(done), int(most)


def share(value: Any) -> Any:
    """The first process's value, in all of them; it must be one that pickle can carry."""
    if processes() == 1:
        return value
    values = [value]
    with talking():
        dist.broadcast_object_list(values, src=0, group=_control, device=torch.device("cpu"))
    return values[0]


def from_first(compute: Callable[[], ValueT]) -> ValueT:
    """What ``compute()`` gives in the first process; the others wait for it.

    If it raises there, the others raise :class:`PeerLostError`; if it ends the program, they end, too.
    """
    if processes() == 1:
        return compute()
    if is_first():
        try:
            answer = compute()
        except BaseException as error:
            with suppress(PeerLostError):
                share(("exit", error.code) if isinstance(error, SystemExit) else ("error", None))
            raise
        share(("answer", answer))
        return answer
    kind, answer = share(None)
    if kind == "exit":
        raise SystemExit(answer)
    if kind == "error":
        raise PeerLostError("the first process of the run ended with an error", told=True)
    return answer


def gather(value: ValueT) -> list[ValueT] | None:
    """The values of all processes in the first one, by rank; None in the others."""
    if processes() == 1:
        return [value]
    values: list[Any] | None = [None] * processes() if is_first() else None
    with talking():
        dist.gather_object(value, values, dst=0, group=_control)
    return values


def highest(number: int) -> int:
    """The largest of all processes' numbers, in all of them."""
    if processes() == 1:
        return number
    value = torch.tensor(number, dtype=torch.int64)
    with talking():
        dist.all_reduce(value, dist.ReduceOp.MAX, group=_control)
    return int(value)


def wait_for_all() -> None:
    """Wait until every process is here."""
    highest(0)


def first_to_speak() -> bool:
    """Whether no other process has said yet why the run ends; True for the first that asks."""
    if _store is None:
        return True
    try:
        return _store.add("spoken", 1) == 1
    except RuntimeError:  # the machine that held the store is gone
        return True


def leave_word(reason: str) -> None:
    """Tell the other machines why the run ends, and wait a moment for those that listen already."""
    others = processes() // local_processes() - 1
    if _store is None or others == 0:
        return
    with suppress(RuntimeError):  # the machine that held the store is gone
        _store.set(_WORD, f"{_machine()} {reason}")
        _until(lambda: _store.add(_HEARD, 0) >= others, _SPEAKING)


def word_from_elsewhere() -> str | None:
    """Why the run ends, if a process on another machine says so; only one process of each machine hears it."""
    if _store is None or local_processes() == processes() or local_rank() != 0:
        return None
    with suppress(RuntimeError):
        if _until(lambda: _store.check([_WORD]), _LISTENING):
            machine, _, reason = _store.get(_WORD).decode().partition(" ")
            if machine != _machine():
                _store.add(_HEARD, 1)
                return reason
    return None


def _machine() -> str:
    return os.environ.get("GROUP_RANK", "0")


def _until(happened: Callable[[], bool], seconds: float) -> bool:
    """Wait until something has happened; whether it did in time."""
    end = time.monotonic() + seconds
    while not (done := happened()) and time.monotonic() < end:
        time.sleep(0.05)
    return done


def watch(lost: Callable[[PeerLostError], object]) -> None:
    """Call ``lost``, from a thread, once a process on another machine gives no sign of life for a minute.

    Without several machines it does nothing. The first process listens to all others, and they listen to it.
    """
    if local_processes() == processes():
        return
    _left.clear()
    heard = dict.fromkeys(range(1, processes()) if is_first() else (0,), (-1, time.monotonic()))
    threading.Thread(target=_count_aloud, args=(rank(), heard), daemon=True).start()
    threading.Thread(target=_listen, args=(heard, lost), daemon=True).start()


def _count_aloud(own: int, heard: dict[int, tuple[int, float]]) -> None:
    """Give signs of life, and take down the others'. It hangs if the machine with the store is gone."""
    with suppress(RuntimeError):  # that machine closed the connection; nobody is heard from any more
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        talk = dist.TCPStore(address, port, is_master=False)  # pyright: ignore[reportPrivateImportUsage]
        store = PrefixStore(f"ganparts/alive/{restarts()[0]}", talk)  # of its own: another may be waiting for an answer
        while not _left.wait(_BEAT):
            store.add(str(own), 1)
            for each, (before, _) in heard.items():
                if (count := store.add(str(each), 0)) != before:
                    heard[each] = count, time.monotonic()


def _listen(heard: dict[int, tuple[int, float]], lost: Callable[[PeerLostError], object]) -> None:
    while not _left.wait(_BEAT):
        now = time.monotonic()
        if silent := [str(each) for each, (_, when) in heard.items() if now - when > _SILENCE]:
            which = "process " + silent[0] if len(silent) == 1 else "processes " + ", ".join(silent)
            lost(PeerLostError(f"nothing was heard from {which} for {_SILENCE:.0f} s: is the machine cut off?"))
            return


@contextmanager
def talking() -> Iterator[None]:
    """Around messages between processes: where one fails, another process is gone.

    Raises:
        PeerLostError: in the place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"\[[^\]]*\.(cc|cpp|h|py):\d+\]\s*", "", str(error)).partition("\n")[0].partition(". ")[0][:200]
        raise PeerLostError(f"another process of the run ended, or cannot be reached ({reason})") from error
