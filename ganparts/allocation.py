"""How a process gets memory for tensors on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# parameters of mallopt, from glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Let the C library keep the memory of freed tensors for the next ones, until the process ends.

    PyTorch's CPU tensors come from the C library's ``malloc``. By default, glibc returns large blocks to the operating
    system as soon as they are freed. The next block is then mapped and zeroed page by page again, which can take as
    long as the network itself. All threads also share one arena, since memory kept by one thread would be lost to the
    others. The command ``ganparts`` calls this function when it starts, and the recipes call it if they train on a CPU.
    Call it in a program of your own if its process may keep its memory, before it starts threads.

    Returns:
        Whether the C library accepted it. It is not asked where the environment configures ``malloc`` already
        (``MALLOC_*`` or ``GLIBC_TUNABLES``), and only glibc can do it: not macOS, Windows or Alpine. Another allocator
        that is preloaded (jemalloc, tcmalloc) is not affected.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1), mallopt(_ARENA_MAX, 1)])
