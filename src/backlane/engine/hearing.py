"""Hearing: wake-ups, and signs of life. A bell only makes sooner what polling finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Bell(Protocol):
    """A subscription to wake-ups. Subscribe, then read, then wait, then read again."""

    def heard(self, seconds: float) -> bool:
        """Wait for a ring; False when there was none for `seconds`."""

    async def aheard(self, seconds: float) -> bool:
        """Like `heard`, suspending the coroutine."""

    def close(self) -> None:
        """End the subscription."""


class Watch(Bell, Protocol):
    """A subscription to jobs, which may become others while it lasts."""

    async def arang(self, seconds: float) -> set[bytes]:
        """Wait for a ring and return whose it was; empty when there was none."""

    def add(self, jobs: Iterable[bytes], /) -> None:
        """Ring for these jobs too."""

    def discard(self, jobs: Iterable[bytes], /) -> None:
        """Ring for these jobs no longer."""


class Enlisted(Protocol):
    """An owner's sign of life, for as long as any process keeps `descriptors` open."""

    descriptors: tuple[int, ...]  # pass these on to executors

    def close(self) -> None:
        """Give the sign of life up: the owner has departed."""
