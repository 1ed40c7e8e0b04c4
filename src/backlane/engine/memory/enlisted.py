"""Enlisted: a sign of life that ends with who gave it."""

from __future__ import annotations


class MemoryEnlisted:
    """A sign of life within one process: it has no descriptors to pass on."""

    descriptors: tuple[int, ...] = ()

    def __init__(self, owner: str, gone: set[str]) -> None:
        self._owner, self._gone = owner, gone

    def close(self) -> None:
        self._gone.add(self._owner)
