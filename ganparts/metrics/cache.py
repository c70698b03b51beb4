"""Keep features on disk, under a name made of the images' bytes and the extractor, so that changes are noticed."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ganparts.metrics.sources import Scored
from ganparts.pretrained.painters import cache_folder

__all__ = ["Features", "cached", "digest_of_images", "digest_of_module"]

_SIMPLE = (bool, int, float, str, type(None))
_LIBRARIES = ("torch", "torchvision", "timm", "ganparts")  # whose code changes with their versions only


class Features(NamedTuple):
    """What a score needs of a set of images.

    Args:
        matrix: features, float [N, D].
        size: size of the images, such as ``256x256``.
    """

    matrix: Tensor
    size: str


def digest_of_images(entries: Iterable[Scored]) -> str:
    """SHA-256 of the images' bytes, in order; names do not count.

    Raises:
        UnreadableImageError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(hashlib.sha256(entry.read()).digest())
    return digest.hexdigest()


def digest_of_module(module: nn.Module) -> str:
    """SHA-256 of what a module's features depend on: structure, simple attributes, tensors, and methods' code.

    Functions outside of the modules' classes do not count. The code of known libraries does not, either.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        kind = type(part)
        settings = {key: value for key, value in vars(part).items() if key != "training" and _is_simple(value)}
        digest.update(repr((name, kind.__module__, kind.__qualname__, sorted(settings.items()))).encode())
        if kind.__module__.partition(".")[0] not in _LIBRARIES:
            digest.update(repr(_of_own_code(part)).encode())
            unsaved = {key: part._buffers[key] for key in part._non_persistent_buffers_set}
            _add_tensors(digest, vars(part) | unsaved)
    _add_tensors(digest, module.state_dict())
    return digest.hexdigest()


def _add_tensors(digest: hashlib._Hash, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())


def _of_own_code(part: nn.Module) -> list[object]:
    """What may change in a module that somebody is writing: its methods, and lists and dictionaries of settings."""
    classes = [kind for kind in type(part).__mro__ if kind.__module__.partition(".")[0] not in _LIBRARIES]
    of_classes = [(key, value) for kind in classes for key, value in vars(kind).items()]
    methods = [_of_function(_function(value)) for _, value in of_classes]
    attributes = [(key, value) for key, value in of_classes if _is_simple(value) and not key.startswith("__")]
    own = {key: value for key, value in vars(part).items() if key not in vars(nn.Module())}
    lists = sorted((key, _in_words(value)) for key, value in own.items() if type(value) in (list, dict))
    return [methods, attributes, lists]


def _function(method: object) -> object:
    """The function of a method, behind decorators, too."""
    for holder in ("__func__", "fget", "func"):  # of static and class methods, properties, cached properties
        method = getattr(method, holder, None) or method
    return inspect.unwrap(method) if callable(method) else method


def _of_function(function: object) -> tuple[object, ...]:
    code = getattr(function, "__code__", None)
    if code is None:
        return ()
    defaults = (getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None))
    return (*_of_code(code), _in_words(defaults))


def _of_code(code: CodeType) -> tuple[object, ...]:
    """What a function does, with the functions that are written in it."""
    inner = [_of_code(each) for each in code.co_consts if isinstance(each, CodeType)]
    others = [_in_words(each) for each in code.co_consts if isinstance(each, frozenset | bytes | complex)]
    return code.co_code, code.co_names, [each for each in code.co_consts if _is_simple(each)], others, inner


def _in_words(value: object) -> str:
    text = repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)  # no addresses


def _is_simple(value: object) -> bool:
    return all(map(_is_simple, value)) if isinstance(value, tuple) else isinstance(value, _SIMPLE)


def cached(key: str, compute: Callable[[], Features]) -> Features:
    """The features kept under this key; if there are none, compute and keep them.

    A file that cannot be read is replaced. A folder that cannot be written brings a warning.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    path = cache_folder() / f"features-{key}.safetensors"
    try:
        with safe_open(str(path), "pt") as file:
            return Features(file.get_tensor("features"), file.metadata()["size"])
    except (OSError, SafetensorError, KeyError, TypeError):
        features = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # renamed when whole
            partial = Path(folder) / path.name
            save_file({"features": features.matrix.contiguous()}, str(partial), {"size": features.size})
            os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"features cannot be kept in {path.parent} ({error}): set GANPARTS_CACHE", stacklevel=2)
    return features
