"""What a plan of this engine runs over: a connection to the server, sync or async."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

import msgspec

from backlane.engine.redis.store.faults import Said, cut_off, refused
from backlane.engine.redis.store.locator import Locator
from backlane.engine.redis.store.script import Script
from backlane.errors import EngineUnavailable
from backlane.model.clock import Clock, SystemClock

TRIES = 5  # of one call, where a server says that it is to be sent otherwise

_encode = msgspec.msgpack.Encoder().encode


class RedisTx(Protocol):
    """An open connection to the server. A call of a script is a transaction of its own."""

    numbers: dict[str, int]  # of queues, as last heard; a script looks whether they still hold

    async def call(self, script: Script, *args: Any) -> list[Any]:
        """Run a script on `[wall | nil, boot | nil, *args]`; return its answer.

        Arguments are packed: see `sheet.raw` for bytes. The answer is what RESP made of
        it: bytes, int, None and lists; by convention its first element is the wall clock.
        """


class Send:
    """Send this and give me the reply; `to` names another node than the usual one."""

    __slots__ = ("data", "to")

    def __init__(self, data: bytes, to: str | None = None) -> None:
        self.data = data
        self.to = to


class Renew:
    """Take another connection: the server that this one leads to is not the right one any more."""


Talk = Generator[Send | Renew, Any, list[Any]]


class Terms:
    """What all transactions of one engine share: whose keys, by which clock, and where."""

    __slots__ = ("clock", "is_server_time", "key", "locator", "numbers")

    def __init__(self, prefix: str, clock: Clock, locator: Locator) -> None:
        self.key = f"{prefix}meta"
        self.clock = clock
        self.is_server_time = isinstance(clock, SystemClock)
        self.locator = locator
        self.numbers: dict[str, int] = {}

    def talk(self, script: Script, args: tuple[Any, ...], where: str, *, is_late: bool) -> Talk:
        """Say what to send until the server has answered; do no I/O.

        `is_late`: an earlier call of the same plan has written.
        """
        clock = self.clock
        times = (None, None) if self.is_server_time else (clock.wall_ms(), clock.boot_ms())
        payload = _encode((*times, *args))
        data, to = script.by_digest(self.key, payload), None
        for _ in range(TRIES):
            reply = yield Send(data, to)
            if not isinstance(reply, Said):
                answer: list[Any] = reply
                return answer
            match reply.code:
                case "NOSCRIPT":  # a new server, or one whose scripts were flushed
                    data = script.in_full(self.key, payload)
                case "MOVED":
                    self.locator.moved(str(reply).rpartition(" ")[2])
                    to = None
                    yield Renew()
                case "ASK":
                    data, to = script.in_full(self.key, payload), str(reply).rpartition(" ")[2]
                case code:
                    if code in ("READONLY", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED"):
                        self.locator.lost()
                        yield Renew()
                    raise refused(reply, where, was_written=is_late)
        raise EngineUnavailable(f"{where} is moving its keys; nothing was changed, try again")

    def elsewhere(self, to: str, data: bytes) -> Any:
        """Ask another node once, while a slot moves there."""
        connection = self.locator.visit(to)
        try:
            connection.send(b"*1\r\n$6\r\nASKING\r\n" + data)
            connection.receive()
            return connection.receive()
        except OSError as error:
            raise cut_off(error, connection.place, may_be_done=True) from error
        finally:
            connection.disconnect()
