"""Optional packages: found, or refused with the way to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["MissingPackageError", "UnavailableError", "require"]


class UnavailableError(RuntimeError):
    """Something is not here: a package, a file of weights, the network. The text says what to do."""


class MissingPackageError(UnavailableError, ImportError):
    """A package is not installed, or cannot be imported."""


def require(module: str, package: str, extra: str | None = None, *, what: str = "this") -> ModuleType:
    """Import a module of another package.

    Args:
        module: to import, as ``torchmetrics.functional.image``.
        package: what the package index calls it.
        extra: of ganparts, that installs it; None: ganparts itself does.
        what: needs it, as an error says.

    Raises:
        MissingPackageError: it cannot be imported; the text says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        advice = f"'ganparts[{extra}]', or {package} alone" if extra else package
        raise MissingPackageError(
            f"{what} needs {package}, which cannot be imported ({error}): pip install {advice}"
        ) from None
