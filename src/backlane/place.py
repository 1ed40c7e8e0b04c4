"""Places: where the jobs of an application are kept, and by which clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from backlane.engine.capability import Capability, lacking
from backlane.engine.connect import connect, keeps_jobs
from backlane.engine.protocol import Engine
from backlane.errors import BadOption
from backlane.model.clock import Clock, SystemClock


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

    @property
    def keeps_jobs(self) -> bool:
        """Whether the URL tells that this is a store of ours, which lacks nothing that one
        can have: then no engine need be loaded to know."""
        return self._replaced is None and keeps_jobs(self.url)

    def require(self, capability: Capability, what: str) -> None:
        """Refuse, where it is written, what the engine cannot do.

        Raises:
            NotSupported: names the remedy.
        """
        if capability not in (engine := self.engine).capabilities:
            raise lacking(capability, what, engine.url, engine.capabilities)

    @contextmanager
    def replaced(self, engine: Engine, clock: Clock) -> Iterator[None]:
        """Be another place within the block, in all threads."""
        before, self._replaced = self._replaced, (engine, clock)
        try:
            yield
        finally:
            self._replaced = before

    def rest(self, seconds: float) -> None:
        """Wait so long, by the clock of the place."""
        if isinstance(self.clock, SystemClock):
            time.sleep(seconds)
            return
        bell = self.engine.listen(())  # rings for nothing, and knows how a test lets time pass
        try:
            bell.heard(seconds)
        finally:
            bell.close()

    async def arest(self, seconds: float) -> None:
        """Like `rest`, suspending the coroutine."""
        if isinstance(self.clock, SystemClock):
            await asyncio.sleep(seconds)
            return
        bell = self.engine.listen(())
        try:
            await bell.aheard(seconds)
        finally:
            bell.close()

    def close(self) -> None:
        """Wait for what has begun and let go of the store; the next use opens it anew."""
        engine = self._connected.get(self.url)
        if engine is not None:
            engine.close()
