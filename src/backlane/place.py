"""Places: where the jobs of an application are kept, and by which clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backlane.engine.connect import connect
from backlane.engine.protocol import Engine
from backlane.errors import BadOption
from backlane.model.clock import Clock


class Place:
    """The engine that a URL names, connected at its first use (which still opens nothing).

    Raises:
        BadOption: this is not a URL.
    """

    __slots__ = ("_clock", "_connected", "_replaced", "url")

    def __init__(self, url: str, clock: Clock) -> None:
        if not isinstance(url, str) or ":" not in url:
            raise BadOption(f"{url!r} is not a URL; use 'sqlite:///jobs.db' for a SQLite file")
        self.url = url
        self._clock = clock
        self._connected: dict[str, Engine] = {}
        self._replaced: tuple[Engine, Clock] | None = None

    @property
    def clock(self) -> Clock:
        return self._clock if self._replaced is None else self._replaced[1]

    @property
    def engine(self) -> Engine:
        if self._replaced is not None:
            return self._replaced[0]
        engine = self._connected.get(self.url)
        if engine is None:
            # No lock, which a fork could inherit held: of two made at once one stays, and
            # the other, which has opened nothing, is dropped.
            engine = self._connected.setdefault(self.url, connect(self.url, self._clock))
        return engine

    @contextmanager
    def replaced(self, engine: Engine, clock: Clock) -> Iterator[None]:
        """Be another place within the block, in all threads."""
        before, self._replaced = self._replaced, (engine, clock)
        try:
            yield
        finally:
            self._replaced = before

    def close(self) -> None:
        """Wait for what has begun and let go of the store; the next use opens it anew."""
        engine = self._connected.get(self.url)
        if engine is not None:
            engine.close()
