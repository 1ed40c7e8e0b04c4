"""A channel: what is asked on it is answered in turn, and messages come and go on it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Protocol, TypeVar

from pamqp import base, commands
from pamqp import frame as codec

from backlane.engine.transport import Fate
from backlane.engine.transports.rabbit.fault import Declined
from backlane.engine.transports.rabbit.frame import ACK, DELIVER, NACK, RETURN, Nonsense
from backlane.errors import EngineUnavailable

A = TypeVar("A", bound=base.Frame)

_size = struct.Struct(">Q")
_tag = struct.Struct(">QB")


class Wire(Protocol):
    """What a channel needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send, or pass over when the connection is lost."""

    def forget(self, number: int) -> None:
        """Give a channel's number back."""


def nobody_cares(*_: object) -> None:
    """Pass over what arrives."""


class Channel:
    """One of a connection's channels. `lost` says why it is gone, if it is."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.number = number
        self.lost: Exception | None = None
        # Called from where bytes arrive: they must be quick, and raise nothing.
        self.on_content: Callable[[bytes, bytes, bytes], None] = nobody_cares
        self.on_confirm: Callable[[int, bool, Fate], None] = nobody_cares
        self.on_cancel: Callable[[], None] = nobody_cares
        self.on_lost: Callable[[Exception], None] = nobody_cares
        self._wire = wire
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[base.Frame] | None = None
        self._method: bytes = b""  # of a message whose body is still coming
        self._header: bytes = b""
        self._left = 0
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send frames of this channel, or pass over when it is lost."""
        if self.lost is None:
            self._wire.write(data)

    def tell(self, method: base.Frame) -> None:
        """Send a method that has no answer."""
        self.write(codec.marshal(method, self.number))

    async def ask(self, question: base.Frame, answer: type[A], seconds: float) -> A:
        """Send a method and wait for its answer.

        Raises:
            Declined: the broker closed the channel instead.
            EngineUnavailable: the connection is lost, or nothing came in time. The channel
                is of no use then.
        """
        try:
            async with asyncio.timeout(seconds), self._turn:
                self._raise_if_lost()
                self._answer = asyncio.get_running_loop().create_future()
                self._wire.write(codec.marshal(question, self.number))
                got = await self._answer
        except TimeoutError as error:
            unanswered = EngineUnavailable(
                f"RabbitMQ did not answer {question.name} within {seconds:.1f} s"
            )
            self.close(unanswered)
            raise unanswered from error
        except asyncio.CancelledError:
            if self._answer is not None:  # whose turn it was: what comes would be another's
                self.close(EngineUnavailable(f"nobody waited for the answer to {question.name}"))
            raise
        finally:
            self._answer = None
        if not isinstance(got, answer):
            raise EngineUnavailable(f"RabbitMQ answered {question.name} by {got.name}")
        return got

    def lose(self, why: Exception) -> None:
        """Be of no use any more, and tell all who wait."""
        if self.lost is not None:
            return
        self.lost = why
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(why)
        self.on_lost(why)

    def close(self, why: Exception | None = None) -> None:
        """Let the broker take back what it brought here. Waits for nothing."""
        if self.lost is None:
            self._wire.write(codec.marshal(commands.Channel.Close(200, "", 0, 0), self.number))
            self.lose(why or EngineUnavailable("the channel was closed"))

    def _raise_if_lost(self) -> None:
        if self.lost is not None:
            raise self.lost

    # -- what arrives --

    def method(self, payload: bytes) -> None:
        """Take a method's frame."""
        kind = payload[:4]
        if kind in (DELIVER, RETURN):
            self._method = payload
        elif kind == ACK:
            tag, multiple = _tag.unpack_from(payload, 4)
            self.on_confirm(tag, bool(multiple & 1), Fate.CONFIRMED)
        elif kind == NACK:
            tag, multiple = _tag.unpack_from(payload, 4)
            self.on_confirm(tag, bool(multiple & 1), Fate.REFUSED)
        else:
            self._rare(unmarshalled(payload, self.number))

    def header(self, payload: bytes) -> None:
        """Take the frame that says how long a body is."""
        if not self._method:
            raise Nonsense("a header belongs to no message")
        self._header = payload
        self._left = _size.unpack_from(payload, 4)[0]
        self._parts = []
        if not self._left:
            self._complete(b"")

    def body(self, payload: bytes) -> None:
        """Take a frame of a body."""
        if len(payload) == self._left and not self._parts:
            self._complete(payload)
            return
        if len(payload) > self._left:
            raise Nonsense("a body is longer than it says")
        self._parts.append(payload)
        self._left -= len(payload)
        if not self._left:
            self._complete(b"".join(self._parts))

    def _complete(self, body: bytes) -> None:
        method, self._method, self._left, self._parts = self._method, b"", 0, []
        self.on_content(method, self._header, body)

    def _rare(self, got: base.Frame) -> None:
        match got:
            case commands.Channel.Close():
                self._wire.write(codec.marshal(commands.Channel.CloseOk(), self.number))
                self._wire.forget(self.number)
                self.lose(Declined(got.reply_code or 0, got.reply_text or ""))
            case commands.Channel.CloseOk():
                self._wire.forget(self.number)
            case commands.Basic.Cancel():
                self.on_cancel()
            case commands.Channel.Flow():
                pass  # RabbitMQ has never sent it: it slows a connection by not reading
            case _ if self._answer is not None and not self._answer.done():
                self._answer.set_result(got)


def unmarshalled(payload: bytes, number: int) -> base.Frame:
    """Return the method that a frame holds.

    Raises:
        Nonsense: it holds none.
    """
    whole = struct.pack(">BHI", 1, number, len(payload)) + payload + b"\xce"
    try:
        got = codec.unmarshal(whole)[2]
    except Exception as error:  # its decoders raise whatever their last line raises
        raise Nonsense(f"no method: {error}") from error
    if not isinstance(got, base.Frame):
        raise Nonsense(f"{got.name} where a method belongs")
    return got
