"""The connections of blocking callers: a few, each used by one caller at a time."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

from backlane.engine.redis.store.connection import Connection, Opener
from backlane.engine.redis.store.faults import cut_off
from backlane.engine.redis.store.script import Script
from backlane.engine.redis.store.transaction import Renew, Send, Terms
from backlane.errors import EngineBusy


class Pool:
    """Lends connections. One that breaks, or is no longer the right one, is not taken back."""

    def __init__(self, opener: Opener, most: int, seconds: float) -> None:
        self._open = opener
        self._most = most
        self._seconds = seconds
        # A queue in C of so many places: a semaphore of `threading` takes ten times as long.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._places.put(None)
        self._idle: list[Connection] = []  # the one used last is lent first; appends are atomic

    def enter(self) -> None:
        """Wait for a place: there are no more connections than places.

        Raises:
            EngineBusy: all are taken for too long.
        """
        try:
            self._places.get(timeout=self._seconds)
        except Empty:
            raise EngineBusy(
                f"all {self._most} connections to the server are in use for {self._seconds:g} s; "
                "try again, or allow more with ?pool="
            ) from None

    def leave(self) -> None:
        """Give a place back."""
        self._places.put(None)

    @property
    def is_idle(self) -> bool:
        """Whether nobody has a place."""
        return self._places.qsize() == self._most

    def take(self) -> Connection:
        """Return a connection that works, as far as this side can know."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.is_fresh():
                return connection
            connection.disconnect()
        return self._open()

    def give_back(self, connection: Connection) -> None:
        self._idle.append(connection)

    def empty(self) -> None:
        """End the connections that nobody uses."""
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return


class BlockingTx:
    """The connection of one plan of a blocking caller. Its methods never suspend."""

    def __init__(self, pool: Pool, terms: Terms, *, reads: bool) -> None:
        self._pool = pool
        self._terms = terms
        self.numbers = terms.numbers
        self._reads = reads
        self._has_written = False
        self._connection: Connection | None = None

    async def call(self, script: Script, *args: Any) -> list[Any]:
        """See `RedisTx.call`."""
        connection = self._connection or self._take()
        talk = self._terms.talk(script, args, connection.place, is_late=self._has_written)
        try:
            step = next(talk)
            while True:
                if isinstance(step, Renew):
                    self.drop()
                    self._pool.empty()
                    step = talk.send(None)
                else:
                    step = talk.send(self._exchange(step))
        except StopIteration as done:
            self._has_written = not self._reads
            value: list[Any] = done.value
            return value

    def _take(self) -> Connection:
        self._connection = self._pool.take()
        return self._connection

    def _exchange(self, step: Send) -> Any:
        if step.to is not None:
            return self._terms.elsewhere(step.to, step.data)
        return self.tell(step.data)

    def tell(self, data: bytes) -> Any:
        """Send one command on the connection of this plan, and return its reply.

        Raises:
            OutcomeUnknown: the connection was lost, and it may have been done.
            EngineUnavailable: it was not.
        """
        connection = self._connection or self._take()
        is_sent = False
        try:
            connection.send(data)
            is_sent = True
            return connection.receive()
        except OSError as error:
            self.drop()
            may_be_done = self._has_written or (is_sent and not self._reads)
            raise cut_off(error, connection.place, may_be_done=may_be_done) from error
        except BaseException:  # a signal's: the reply is still under way
            self.drop()
            raise

    def drop(self) -> None:
        """End the connection: it is not to be used again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def release(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)
