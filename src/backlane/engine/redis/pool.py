"""The lines of blocking callers: a few, each used by one caller at a time."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Any

from backlane.engine.redis.faults import cut_off
from backlane.engine.redis.line import Line, Opener
from backlane.engine.redis.script import Script
from backlane.engine.redis.transaction import Renew, Send, Terms
from backlane.errors import EngineBusy


class Pool:
    """Lends lines. One that breaks, or is no longer the right one, is not taken back."""

    def __init__(self, opener: Opener, most: int, seconds: float) -> None:
        self._open = opener
        self._most = most
        self._seconds = seconds
        # A queue in C of so many places: a semaphore of `threading` takes ten times as long.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._places.put(None)
        self._idle: list[Line] = []  # the one used last is lent first; appends are atomic

    def enter(self) -> None:
        """Wait for a place: there are no more lines than places.

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

    def take(self) -> Line:
        """Return a line that works, as far as this side can know."""
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if line.is_fresh():
                return line
            line.disconnect()
        return self._open()

    def give_back(self, line: Line) -> None:
        self._idle.append(line)

    def empty(self) -> None:
        """End the lines that nobody uses."""
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                return


class BlockingTx:
    """The line of one plan of a blocking caller. Its methods never suspend."""

    def __init__(self, pool: Pool, terms: Terms, *, reads: bool) -> None:
        self._pool = pool
        self._terms = terms
        self.numbers = terms.numbers
        self._reads = reads
        self._has_written = False
        self._line: Line | None = None

    async def call(self, script: Script, *args: Any) -> list[Any]:
        """See `RedisTx.call`."""
        line = self._line or self._take()
        talk = self._terms.talk(script, args, line.place, is_late=self._has_written)
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

    def _take(self) -> Line:
        self._line = self._pool.take()
        return self._line

    def _exchange(self, step: Send) -> Any:
        if step.to is not None:
            return self._terms.elsewhere(step.to, step.data)
        return self.tell(step.data)

    def tell(self, data: bytes) -> Any:
        """Send one command on the line of this plan, and return its reply.

        Raises:
            OutcomeUnknown: the line was lost, and it may have been done.
            EngineUnavailable: it was not.
        """
        line = self._line or self._take()
        is_sent = False
        try:
            line.send(data)
            is_sent = True
            return line.receive()
        except OSError as error:
            self.drop()
            may_be_done = self._has_written or (is_sent and not self._reads)
            raise cut_off(error, line.place, may_be_done=may_be_done) from error
        except BaseException:  # a signal's: the reply is still under way
            self.drop()
            raise

    def drop(self) -> None:
        """End the line: it is not to be used again."""
        line, self._line = self._line, None
        if line is not None:
            line.disconnect()

    def release(self) -> None:
        """Give the line back."""
        line, self._line = self._line, None
        if line is not None:
            self._pool.give_back(line)
