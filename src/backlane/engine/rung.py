"""Rung: what a bell has heard and nobody took yet, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Waiting(Protocol):
    """A thread or a coroutine that waits for a bell."""

    @property
    def wake(self) -> Callable[[], None]: ...


class Rung:
    """The memory of one bell; whoever calls holds the lock of the ear it hears by."""

    __slots__ = ("_all", "_names", "_waiting")

    def __init__(self) -> None:
        self._names: set[bytes] = set()
        self._all = False
        self._waiting: list[Waiting] = []

    def __bool__(self) -> bool:
        return self._all or bool(self._names)

    def ring(self, name: bytes | None) -> None:
        """A name has rung, or any may have."""
        if name is None:
            self._all = True
        else:
            self._names.add(name)
        for one in tuple(self._waiting):
            one.wake()

    def take(self, known: set[bytes]) -> set[bytes]:
        """Take the names that have rung, of those that the bell knows."""
        rang, self._names = set(known) if self._all else self._names, set()
        self._all = False
        return rang

    def begin(self, one: Waiting) -> bool:
        """Someone waits; False if it has rung."""
        if self:
            return False
        self._waiting.append(one)
        return True

    def end(self, one: Waiting) -> None:
        self._waiting.remove(one)
