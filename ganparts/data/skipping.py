"""A sequence that decodes what is asked for, and passes over what cannot be read."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

from ganparts.data.entries import Entries, Entry, Indexed
from ganparts.data.errors import UnreadableImageError
from ganparts.distributed import processes, rank

__all__ = ["Decoded", "located"]

_Item = TypeVar("_Item", covariant=True)
_Self = TypeVar("_Self", bound="Decoded[Any]")
_ADVICE = "Remove it, or skip such images (skip_unreadable=True; --skip-unreadable)"


class Decoded(Sequence[_Item]):
    """Images, or pairs of them, that are decoded when asked for.

    Args:
        entries: the images, or the first ones of the pairs, which name the items.
        skip_unreadable: warn of an item that cannot be read, and give the next one instead.
    """

    noun = "image"

    def __init__(self, entries: Sequence[Entry], *, skip_unreadable: bool = False):
        self.entries = entries if isinstance(entries, Entries) else list(entries)
        self.skip_unreadable = skip_unreadable

    @abstractmethod
    def _load(self, index: int) -> _Item:
        """Decode the item with this number; raises ``UnreadableImageError``."""

    @abstractmethod
    def _some(self: _Self, chosen: slice) -> _Self:
        """Some of the items."""

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> _Item: ...
    @overload
    def __getitem__(self: _Self, index: slice) -> _Self: ...

    def __getitem__(self, index: int | slice) -> _Item | Decoded[_Item]:
        return self._some(index) if isinstance(index, slice) else self.located(index)[1]

    def located(self, index: int) -> tuple[Entry, _Item]:
        """An item, and the entry that it was decoded from: a later one's if this one is skipped.

        Raises:
            IndexError: there is no such item.
            UnreadableImageError: it cannot be read and is not skipped, or none can be read.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no {self.noun} {index}: there are only {len(self)}")
        for later in range(len(self)):
            number = (index + later) % len(self)
            try:
                return self.entries[number], self._load(number)
            except UnreadableImageError as error:
                self._pass_over(error)
        raise UnreadableImageError(f"none of {len(self)} {self.noun}s can be read, {self.entries[0]} and the others")

    def readable(self, limit: int | None = None, *, shared: bool = False) -> Iterator[tuple[str, _Item]]:
        """The first ``limit`` items with their names, without unreadable ones if ``skip_unreadable``.

        With ``shared``, those of them that are this process's share.

        Raises:
            UnreadableImageError: an item cannot be read, and skipping was not chosen.
        """
        for number in range(len(self))[slice(rank(), limit, processes()) if shared else slice(limit)]:
            try:
                yield self.entries[number].name, self._load(number)
            except UnreadableImageError as error:
                self._pass_over(error)

    def _pass_over(self, error: UnreadableImageError) -> None:
        if not self.skip_unreadable:
            raise UnreadableImageError(f"{error}. {_ADVICE}") from None
        warnings.warn(f"skipped: {error}", stacklevel=3)


def located(items: Indexed[_Item], index: int) -> tuple[object, _Item]:
    """An item, and what names it: the entry that it was decoded from, or its number if it is in memory.

    Raises:
        UnreadableImageError: it cannot be read.
    """
    return items.located(index) if isinstance(items, Decoded) else (index, items[index])
