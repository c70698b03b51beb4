"""Files of weights: read safely, or refused with the way out; networks built for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ganparts.optional import UnavailableError

__all__ = ["build_quietly", "is_planning", "load_into", "read_weights", "wrong_weights"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of safetensors or of ``torch.save``, on the CPU; no other object is unpickled.

    Raises:
        UnavailableError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise UnavailableError(f"there is no file of weights {path}: check its path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of torch's many readers on a file that is none of theirs
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnavailableError(f"{path} is not a file of weights: {reason[0][:200]}. Fetch it again") from None


def load_into(
    network: nn.Module,
    path: Path,
    *,
    name: str,
    rename: Callable[[str], str] = str,
    keep: Callable[[str], bool] = lambda key: True,
) -> None:
    """Load a file of weights into a network; every tensor must have its place.

    Args:
        network: gets the weights.
        path: of the file.
        name: what the error calls the network.
        rename: from the file's keys to the network's.
        keep: whether a renamed key belongs to the network.

    Raises:
        UnavailableError: as :func:`read_weights`, or the file holds other weights.
    """
    held = read_weights(path)
    try:
        renamed = {rename(key): value for key, value in held.items()}
        network.load_state_dict({key: value for key, value in renamed.items() if keep(key)})
    except (RuntimeError, KeyError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise wrong_weights(path, name, error) from None


def wrong_weights(path: Path, name: str, error: Exception) -> UnavailableError:
    """The error for a file that holds other weights than those of ``name``."""
    reason = " ".join(str(error).split())[:200]
    return UnavailableError(f"{path} does not hold the weights of {name!r}: {reason}. Give the right file")


def is_planning() -> bool:
    """Whether new tensors have no data: under ``torch.device("meta")`` or a ``FakeTensorMode``."""
    probe = torch.empty(0)
    return probe.is_meta or type(probe) is not Tensor


def build_quietly(build: Callable[[], ModuleT]) -> ModuleT:
    """Build a network on the CPU, in ``eval()`` mode, without touching torch's random state.

    What it draws comes from seed 0, so random weights are the same in every process. Under ``torch.device("meta")``
    the network stays on the meta device.
    """
    device = "meta" if torch.empty(0).is_meta else "cpu"
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), torch.device(device):
        torch.default_generator.manual_seed(0)  # the CPU's alone: torch.manual_seed would seed CUDA's, too
        return build().eval()
