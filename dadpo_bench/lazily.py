"""Sequences whose items are made when they are looked at: a million are gone through, a few are held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

K = TypeVar("K")
T = TypeVar("T")


class Lazily(Sequence[T]):
    """An item for each key, made anew each time."""

    def __init__(self, keys: Sequence[K], make: Callable[[K], T]) -> None:
        self._keys: Sequence[Any] = keys
        self._make: Callable[[Any], T] = make

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._make(key) for key in self._keys[index]]
        return self._make(self._keys[index])
