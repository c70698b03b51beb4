"""Which device a run uses, and whether this PyTorch has kernels for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from ganparts._version import __version__
from ganparts.distributed import local_processes, local_rank, processes

__all__ = ["DeviceError", "available_memory", "explain_out_of_memory", "make_deterministic", "pick_device", "versions"]


class DeviceError(RuntimeError):
    """A device that cannot be used; the message says why and what to do."""


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``, after one real kernel has run on it.

    Of several processes on a machine, each gets a GPU of its own.

    ``torch.cuda.is_available()`` is True even for a card that this build of PyTorch has no kernels for (a P100 under a
    build for CUDA 12.8); then the first kernel fails. So one is run here.

    Args:
        name: ``"auto"`` (CUDA if there is a card, else the CPU), or a torch device such as ``"cuda:1"``.

    Raises:
        DeviceError: no such device, or no kernels for it.
    """
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"{name!r} is not a device that PyTorch knows: use 'auto', 'cpu' or 'cuda'") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"{name!r} is not supported: use 'cpu' or 'cuda'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"there is no CUDA device for {name!r} that this PyTorch ({torch.__version__}) can use: use --device cpu, "
            "or install a CUDA build and a driver"
        )
    if device.type == "cuda" and processes() > 1:
        device = _of_this_process(device)
    if device.type == "cuda" and device.index is not None and device.index >= (count := torch.cuda.device_count()):
        raise DeviceError(f"there is no {name}: this machine has {count} CUDA device(s), counted from cuda:0")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are made on the current one
    try:
        torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3, device=device), torch.ones(1, 1, 3, 3, device=device)).cpu()
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(_explain(device, error)) from error
    return device


def _of_this_process(device: torch.device) -> torch.device:
    if device.index is not None:
        raise DeviceError(f"--device {device} is one GPU, but each process takes its own: use --device cuda, or auto")
    if local_processes() > torch.cuda.device_count():
        raise DeviceError(
            f"there are {local_processes()} processes on this machine for {torch.cuda.device_count()} GPU(s), but each "
            f"takes its own: start torchrun with --nproc-per-node {torch.cuda.device_count()}"
        )
    return torch.device("cuda", local_rank())


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide a run's numbers."""
    import torchvision

    packages = {"torch": torch.__version__, "torchvision": torchvision.__version__, "ganparts": __version__}
    return {"python": sys.version.split()[0]} | {name: str(version) for name, version in packages.items()}


def make_deterministic(wished: bool = True) -> None:
    """Make PyTorch compute the same numbers in every run of one build on one device, or raise where it cannot.

    Call it before CUDA is used.
    """
    if wished:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)


def available_memory(device: torch.device) -> int:
    """Bytes that tensors may take on a device.

    On CUDA this is 85% of what is free. The rest is left for the work space of convolutions, for sample pictures and
    for fragmentation. On a CPU it is the free memory of the machine, or of its container, and each process on the
    machine has its part of it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.85 * (free + cached))
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return min(int(fields["MemAvailable"].split()[0]) * 1024, _left_in_container()) // local_processes()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize


def _left_in_container(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that a container may still take; more than any machine has if it has no limit (cgroup version 2).

    Files that the system keeps in memory only because it was free count as free.
    """
    try:
        limit, used = ((groups / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit == "max":
            return sys.maxsize
        statistics = groups / "memory.stat"
        lines = statistics.read_text().splitlines() if statistics.exists() else []
        kept = dict(line.split() for line in lines).get("inactive_file", 0)
        return max(0, int(limit) - int(used) + int(kept))
    except (OSError, ValueError):
        return sys.maxsize


def explain_out_of_memory(error: Exception) -> str | None:
    """Advice in one sentence if PyTorch ran out of memory, else None."""
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
        return (
            "out of memory: take a smaller batch (--batch-size), --memory lowest, smaller images (--crop) or "
            "narrower networks (--width), and see that nothing else uses the device"
        )
    return None


def _explain(device: torch.device, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if device.type != "cuda" or "no kernel image" not in str(error):
        return f"the device {str(device)!r} failed at its first operation: {reason}"
    major, minor = torch.cuda.get_device_capability(device)
    remedy = (
        "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cu126 "
        "(builds for CUDA 12.6, to PyTorch 2.14, are the last with kernels for capability 6.0)"
        if major < 7
        else "install a build of PyTorch for this card (https://pytorch.org/get-started)"
    )
    return (
        f"this PyTorch ({torch.__version__}, built for {', '.join(torch.cuda.get_arch_list())}) has no kernels for "
        f"{torch.cuda.get_device_name(device)} (capability {major}.{minor}): {remedy}"
    )
