"""The connections of event loops: one each, opened by a thread when it is first needed."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any

from backlane.engine.redis.driver.mux import Cut, Mux
from backlane.engine.redis.store.connection import Connection, Opener
from backlane.engine.redis.store.faults import cut_off
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import Renew, Terms

Loop = asyncio.AbstractEventLoop


class Loops:
    """Gives each event loop its connection."""

    def __init__(self, opener: Opener, seconds: float) -> None:
        self._open = opener
        self._seconds = seconds
        self._lock = threading.Lock()
        self._muxes: weakref.WeakKeyDictionary[Loop, Mux] = weakref.WeakKeyDictionary()
        self._opening: weakref.WeakKeyDictionary[Loop, asyncio.Task[Mux]] = (
            weakref.WeakKeyDictionary()
        )

    async def mux(self) -> Mux:
        """Return the connection of the running loop."""
        loop = asyncio.get_running_loop()
        mux = self._muxes.get(loop)
        if mux is not None and mux.is_open:
            return mux
        opening = self._opening.get(loop)  # of this loop, so no other thread is meant
        if opening is None:
            opening = loop.create_task(self._open_mux(loop))
            self._opening[loop] = opening
            opening.add_done_callback(lambda _: self._opening.pop(loop, None))
        return await asyncio.shield(opening)

    async def _open_mux(self, loop: Loop) -> Mux:
        connection: Connection = await asyncio.to_thread(self._open)
        mux = Mux(connection, self._seconds)
        with self._lock:
            for other, old in list(self._muxes.items()):
                if other.is_closed():
                    old.abandon()
                    del self._muxes[other]
            self._muxes[loop] = mux
        return mux

    def close(self) -> None:
        """End all connections; those of other threads' loops as soon as these loops get to it."""
        with self._lock:
            muxes, self._muxes = list(self._muxes.items()), weakref.WeakKeyDictionary()
        for loop, mux in muxes:
            try:
                if loop is _running():
                    mux.end(ConnectionError("the engine was closed"))
                else:
                    loop.call_soon_threadsafe(mux.end, ConnectionError("the engine was closed"))
                    if not loop.is_running():
                        mux.abandon()
            except RuntimeError:  # the loop is closed
                mux.abandon()

    def abandon(self) -> None:
        """In a forked child: the loops and connections are the parent's."""
        for mux in list(self._muxes.values()):
            mux.abandon()


class AsyncTx:
    """The connection of one plan of a coroutine."""

    def __init__(self, loops: Loops, terms: Terms, *, reads: bool) -> None:
        self._loops = loops
        self._terms = terms
        self.numbers = terms.numbers
        self._reads = reads
        self._has_written = False
        self.mux: Mux | None = None

    async def call(self, script: Script, *args: Any) -> list[Any]:
        """See `RedisTx.call`."""
        mux = self.mux = self.mux or await self._loops.mux()
        talk = self._terms.talk(script, args, mux.place, is_late=self._has_written)
        try:
            step = next(talk)
            while True:
                if isinstance(step, Renew):
                    mux.end(ConnectionError("the server that has the keys is another one"))
                    mux = self.mux = await self._loops.mux()
                    step = talk.send(None)
                elif step.to is not None:
                    step = talk.send(
                        await asyncio.to_thread(self._terms.elsewhere, step.to, step.data)
                    )
                else:
                    step = talk.send(await self.hear(mux.ask(step.data), mux))
        except StopIteration as done:
            self._has_written = not self._reads
            value: list[Any] = done.value
            return value

    async def hear(self, reply: asyncio.Future[Any], mux: Mux) -> Any:
        """Wait for the reply to a command.

        Raises:
            OutcomeUnknown: the connection was lost, and it may have been done.
            EngineUnavailable: it was not.
        """
        try:
            return await reply
        except Cut as cut:
            may_be_done = self._has_written or (cut.may_be_done and not self._reads)
            error = cut_off(cut.error, mux.place, may_be_done=may_be_done)
            raise error from cut.error


def _running() -> Loop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
