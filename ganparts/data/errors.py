"""Errors of data that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["DataError", "UnreadableImageError", "naming", "unreadable"]


class DataError(ValueError):
    """Data that cannot be used; the text says which, why, and what to do."""


class UnreadableImageError(DataError):
    """One image that cannot be read; the text names the file (and record) and the reason."""


def unreadable(entry: object, error: Exception) -> UnreadableImageError:
    """The error that names an image and the reason why it cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return UnreadableImageError(f"cannot read the image {entry}: {reason}")


@contextmanager
def naming(entry: object) -> Iterator[None]:
    """Name an image in the error of what is done with it inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"cannot use the image {entry}: {error}") from None
