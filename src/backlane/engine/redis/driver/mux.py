"""The connection of one event loop, which all its coroutines share.

Commands are sent one behind the other without waiting, and replies come in the same
order: so a coroutine that is cancelled leaves nothing behind, its reply is passed over
when it comes; and two hundred appends at once cost the server a few reads.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, NamedTuple

from backlane.engine.redis.store.connection import RECEIVE_BYTES, Connection, is_whole, new_reader

_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Cut(Exception):
    """The connection was lost; `may_be_done` says that the server had got the whole command."""

    def __init__(self, error: BaseException, *, may_be_done: bool) -> None:
        super().__init__(str(error) or type(error).__name__)
        self.error = error
        self.may_be_done = may_be_done


class Asked(NamedTuple):
    """A command whose reply is waited for."""

    reply: asyncio.Future[Any]
    ends_at: int  # its last byte among all that was ever to be sent
    until: float


class Mux:
    """A connection that belongs to the running loop. Ends itself when a reply takes too long."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._seconds = seconds
        self._reader = new_reader()
        self._asked: deque[Asked] = deque()
        self._unsent = bytearray()
        self._sent = self._to_send = 0  # bytes, ever
        self._is_writing = False  # the loop tells when there is room
        self._is_held = False  # something was sent in this turn of the loop: gather the rest
        self._timer: asyncio.TimerHandle | None = None
        self._confirming: asyncio.Future[Any] | None = None
        self._to_confirm: asyncio.Future[Any] | None = None
        self.place = connection.place
        self.is_open = True
        connection.sock.settimeout(0)
        self._loop.add_reader(connection.sock.fileno(), self._read)

    def ask(self, data: bytes) -> asyncio.Future[Any]:
        """Send a command; the future has its reply, or `Cut`."""
        reply = self._loop.create_future()
        if not self.is_open:
            reply.set_exception(Cut(ConnectionError("it is closed"), may_be_done=False))
            return reply
        self._to_send += len(data)
        self._asked.append(Asked(reply, self._to_send, self._loop.time() + self._seconds))
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds / 4, self._look)
        self._unsent += data
        if not self._is_held and not self._is_writing:
            self._is_held = True
            self._loop.call_soon(self._go_on)
            self._write()
        return reply

    def confirm(self, command: bytes) -> asyncio.Future[Any]:
        """Let the server confirm what it was asked and has answered so far.

        One such command is under way at a time; who comes meanwhile shares the next.
        """
        if self._to_confirm is None:
            self._to_confirm = self._loop.create_future()
        shared = self._to_confirm
        if self._confirming is None:
            self._confirm_next(command)
        return shared

    def _confirm_next(self, command: bytes) -> None:
        shared, self._to_confirm = self._to_confirm, None
        if shared is None:
            self._confirming = None
            return
        self._confirming = self.ask(command)

        def pass_on(reply: asyncio.Future[Any]) -> None:
            self._confirm_next(command)
            if shared.done():
                return
            error = reply.exception()
            if error is not None:
                shared.set_exception(error)
                shared.exception()  # whoever shares it may have been cancelled
            else:
                shared.set_result(reply.result())

        self._confirming.add_done_callback(pass_on)

    def _go_on(self) -> None:
        self._is_held = False
        if self._unsent and not self._is_writing and self.is_open:
            self._write()

    def _write(self) -> None:
        try:
            sent = self._connection.sock.send(self._unsent)
        except _LATER:
            sent = 0
        except OSError as error:
            self.end(error)
            return
        self._sent += sent
        del self._unsent[:sent]
        if bool(self._unsent) != self._is_writing:
            self._is_writing = bool(self._unsent)
            if self._is_writing:
                self._loop.add_writer(self._connection.sock.fileno(), self._write)
            else:
                self._loop.remove_writer(self._connection.sock.fileno())

    def _read(self) -> None:
        try:
            data = self._connection.sock.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
            while is_whole(reply := self._reader.gets()):
                asked = self._asked.popleft().reply
                if not asked.done():
                    asked.set_result(reply)
        except _LATER:
            return
        except (OSError, IndexError) as error:  # or a reply that nobody asked for
            self.end(error)
            return
        sock = self._connection.sock
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            self._loop.call_soon(self._read)  # no poll would tell of it

    def _look(self) -> None:
        """End the connection when the oldest reply is overdue."""
        self._timer = None
        if not self._asked or not self.is_open:
            return
        if self._asked[0].until <= self._loop.time():
            self.end(TimeoutError(f"no answer within {self._seconds:g} s"))
            return
        self._timer = self._loop.call_later(self._seconds / 4, self._look)

    @property
    def is_idle(self) -> bool:
        return not self._asked

    def end(self, error: BaseException) -> None:
        """Close the connection, and tell all who wait."""
        if not self.is_open:
            return
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._connection.sock.fileno())
            if self._is_writing:
                self._loop.remove_writer(self._connection.sock.fileno())
        self._connection.disconnect()
        asked, self._asked = self._asked, deque()
        for one in asked:
            if not one.reply.done():
                one.reply.set_exception(Cut(error, may_be_done=one.ends_at <= self._sent))
                one.reply.exception()  # a caller that was cancelled fetches it no more

    def abandon(self) -> None:
        """In a forked child, or when the loop is closed: close the socket, touch no loop."""
        self.is_open = False
        self._connection.disconnect()
