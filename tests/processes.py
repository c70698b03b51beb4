"""Several processes for a test, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ganparts.distributed import join, leave

__all__ = ["in_processes", "outcomes"]


def in_processes(function: Callable[..., Any], folder: Path, *arguments: Any, count: int = 2) -> list[Any]:
    """What ``function(rank, *arguments)`` gives in each of ``count`` processes that have joined."""
    results = outcomes(function, folder, *arguments, count=count)
    assert all(code == 0 for code, _ in results), results
    return [torch.load(folder / f"result_{rank}.pt", weights_only=False) for rank in range(count)]


def outcomes(
    function: Callable[..., Any], folder: Path, *arguments: Any, count: int = 2, joined: bool = True
) -> list[tuple[int | None, str]]:
    """Exit code and output of each process."""
    folder.mkdir(parents=True, exist_ok=True)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's own, which outlives them
    context = multiprocessing.get_context("forkserver")  # autograd in this process may have threads, so it cannot fork
    context.set_forkserver_preload(["ganparts", "ganparts.training", "ganparts.metrics", "ganparts.data"])
    children = [
        context.Process(target=_run, args=(function, folder, rank, count, store.port, arguments, joined))
        for rank in range(count)
    ]
    with warnings.catch_warnings():  # from Python 3.12 on about threads, of which none holds a lock here
        warnings.simplefilter("ignore", DeprecationWarning)
        for child in children:
            child.start()
    for child in children:
        child.join(300)
        child.kill()
        child.join()
    return [(child.exitcode, (folder / f"said_{rank}.txt").read_text()) for rank, child in enumerate(children)]


def _run(
    function: Callable[..., Any], folder: Path, rank: int, count: int, port: int, arguments: Any, joined: bool
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    torch.set_num_threads(1)
    warnings.simplefilter("default")
    with (folder / f"said_{rank}.txt").open("w", buffering=1) as said, redirect_stdout(said), redirect_stderr(said):
        try:
            if joined:
                join()
            result = function(rank, *arguments)
            if joined:
                leave()
            torch.save(result, folder / f"result_{rank}.pt")
        except SystemExit as ended:
            said.flush()
            os._exit(int(ended.code or 0))
        except BaseException:
            traceback.print_exc()
            said.flush()
            os._exit(1)
    os._exit(0)
