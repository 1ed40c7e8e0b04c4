"""A connection: opened, kept alive, and lost at some time, which all on it are told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar, cast

from pamqp import base, commands
from pamqp import frame as codec

from backlane.engine.transports.rabbit.address import Address
from backlane.engine.transports.rabbit.channel import Channel, nobody_cares, unmarshalled
from backlane.engine.transports.rabbit.fault import no_broker, not_let_in, unreachable
from backlane.engine.transports.rabbit.frame import (
    BEAT,
    BODY,
    GREETING,
    HEADER,
    HEARTBEAT,
    METHOD,
    Cutter,
    Nonsense,
)
from backlane.engine.url import place
from backlane.errors import EngineUnavailable

# A frame is held in memory whole at both ends; 128 KiB is RabbitMQ's own default.
LARGEST_FRAME = 131_072
MOST_CHANNELS = 2_047
GOODBYE_SECONDS = 1.0

F = TypeVar("F", bound=base.Frame)

_CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Connection(asyncio.Protocol):
    """One connection. `lost` says why it is gone, if it is; it never comes back."""

    def __init__(self, address: Address, place: str) -> None:
        self.address, self.place = address, place
        self.lost: EngineUnavailable | None = None
        self.blocked: str | None = None  # why the broker takes no messages, if so
        self.on_blocked: Callable[[], None] = nobody_cares
        self.version = ""
        self.largest = 4096  # bytes of a frame: what all must take until more is agreed
        self.is_open = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._cutter = Cutter(LARGEST_FRAME)
        self._channels: dict[int, Channel] = {}
        self._free: list[int] = []
        self._next, self._most_channels = 1, MOST_CHANNELS
        self._said: asyncio.Queue[base.Frame] = asyncio.Queue()  # by the broker, while opening
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = self._loop.create_future()
        self._beat: asyncio.TimerHandle | None = None
        self._heard = self._told = True  # since the last beat
        self._silent_beats, self._next_beat = 0, 0.0

    # -- as asyncio calls it --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        channels = self._channels
        try:
            for kind, number, payload in self._cutter.frames(data):
                channel = channels.get(number)
                if channel is None:
                    if number == 0 and kind == METHOD:
                        self._control(unmarshalled(payload, 0))
                    continue  # beats, and what still came for a channel that was closed
                if kind == BODY:
                    channel.body(payload)
                elif kind == HEADER:
                    channel.header(payload)
                elif kind == METHOD:
                    channel.method(payload)
                elif kind != HEARTBEAT:
                    raise Nonsense(f"there is no frame of kind {kind}")
        except Nonsense as error:
            self.lose(no_broker(self.address, self.place, error))
        except (IndexError, ValueError, struct.error) as error:
            self.lose(no_broker(self.address, self.place, f"it sends what is too short: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(
            EngineUnavailable(
                f"the connection to RabbitMQ at {self.place} is lost"
                + (f": {exc}" if exc else ": it was closed at the other end")
            )
        )

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- for those who use it --

    def write(self, data: bytes) -> None:
        """Send, or pass over when the connection is lost."""
        transport = self._transport
        # It closes before we are told: asyncio would warn of each write until then.
        if self.lost is None and transport is not None and not transport.is_closing():
            self._told = True
            transport.write(data)

    async def writable(self) -> None:
        """Wait until what was written is on its way, or the connection is lost."""
        await self._writable.wait()

    async def channel(self, seconds: float) -> Channel:
        """Open a channel.

        Raises:
            EngineUnavailable: it is lost, or has no channel left.
        """
        if self.lost is not None:
            raise self.lost
        if self._free:
            number = self._free.pop()
        elif self._next <= self._most_channels:
            number, self._next = self._next, self._next + 1
        else:
            raise EngineUnavailable(
                f"RabbitMQ at {self.place} allows {self._most_channels} queues to one process: "
                "raise channel_max in rabbitmq.conf, or let workers listen to fewer queues each"
            )
        made = self._channels[number] = Channel(self, number)
        await made.ask(commands.Channel.Open(), commands.Channel.OpenOk, seconds)
        return made

    def forget(self, number: int) -> None:
        """Give a channel's number back."""
        if self._channels.pop(number, None) is not None:
            self._free.append(number)

    def lose(self, why: EngineUnavailable) -> None:
        """Be lost, and tell all."""
        if self.lost is not None:
            return
        self.lost = why
        if self._beat is not None:
            self._beat.cancel()
        if self._transport is not None:
            self._transport.abort()
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.lose(why)
        self._writable.set()
        if not self._gone.done():
            self._gone.set_result(None)

    async def gone(self) -> None:
        """Wait until it is lost."""
        await asyncio.shield(self._gone)

    async def close(self) -> None:
        """Say good-bye, and wait a moment for the answer."""
        if self.lost is None and self.is_open:
            for channel in list(self._channels.values()):
                channel.lose(EngineUnavailable("the connection was closed"))
            self.write(codec.marshal(commands.Connection.Close(200, "", 0, 0), 0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self.gone()
        self.lose(EngineUnavailable("the connection was closed"))

    # -- opening --

    async def shake_hands(self, name: str) -> None:
        """Log in and agree on sizes; `name` is shown to those who run the broker."""
        start = await self._next_of(commands.Connection.Start)
        properties = start.server_properties or {}
        self.version = str(properties.get("version", ""))
        mechanism, response = self._login(str(start.mechanisms or ""))
        self._tell(
            commands.Connection.StartOk(
                client_properties={
                    "product": "backlane",
                    "version": _version(),
                    "platform": f"Python {sys.version.split()[0]}",
                    "connection_name": name,
                    "capabilities": dict(_CAPABILITIES),
                },
                mechanism=mechanism,
                response=response,
                locale="en_US",
            )
        )
        tune = await self._next_of(commands.Connection.Tune)
        frame_max = _least(tune.frame_max or 0, LARGEST_FRAME)
        self._most_channels = _least(tune.channel_max or 0, MOST_CHANNELS)
        beat = _least(tune.heartbeat or 0, self.address.heartbeat_seconds)
        self._tell(commands.Connection.TuneOk(self._most_channels, frame_max, beat))
        self.largest = frame_max - 8
        self._cutter.largest = frame_max
        self._tell(commands.Connection.Open(virtual_host=self.address.vhost))
        await self._next_of(commands.Connection.OpenOk)
        self.is_open = True
        # Half of what was agreed, so that one that comes late is still in time.
        self._keep_beating(beat / 2)

    def _login(self, offered: str) -> tuple[str, str]:
        mechanism = "EXTERNAL" if self.address.is_external else "PLAIN"
        if mechanism not in offered.split():
            raise EngineUnavailable(
                f"RabbitMQ at {self.place} offers no login by "
                f"{'certificate' if self.address.is_external else 'password'}, only {offered}"
            )
        if self.address.is_external:
            return mechanism, ""
        return mechanism, f"\0{self.address.user}\0{self.address.password}"

    async def _next_of(self, kind: type[F]) -> F:
        got = await self._said.get()
        if isinstance(got, commands.Connection.Close):
            self._tell(commands.Connection.CloseOk())
            raise not_let_in(
                self.address, self.place, got.reply_code or 0, str(got.reply_text or "")
            )
        if not isinstance(got, kind):
            raise no_broker(self.address, self.place, f"it said {got.name}")
        return got

    def _tell(self, method: base.Frame) -> None:
        self.write(codec.marshal(method, 0))

    def _control(self, got: base.Frame) -> None:
        """Take what the broker says of the whole connection."""
        if not self.is_open:
            self._said.put_nowait(got)
            return
        match got:
            case commands.Connection.Close():
                self._tell(commands.Connection.CloseOk())
                self.lose(
                    EngineUnavailable(
                        f"RabbitMQ at {self.place} closed the connection: "
                        f"{got.reply_text or got.reply_code}"
                    )
                )
            case commands.Connection.CloseOk():
                self.lose(EngineUnavailable("the connection was closed"))
            case commands.Connection.Blocked():
                self.blocked = str(got.reason or "it is short of memory or disk")
                self.on_blocked()
            case commands.Connection.Unblocked():
                self.blocked = None
                self.on_blocked()

    # -- heartbeats --

    def _keep_beating(self, seconds: float) -> None:
        if seconds <= 0:
            return
        now = self._loop.time()
        is_late = bool(self._next_beat) and now > self._next_beat + seconds
        if not self._told:
            self.write(BEAT)
        # After a stop of our own (SIGSTOP, a laptop's sleep) what arrived meanwhile has not
        # been read yet: the silence was ours.
        self._silent_beats = 0 if self._heard or is_late else self._silent_beats + 1
        if self._silent_beats >= 4:
            self.lose(unreachable(self.address, self.place, f"silence for {4 * seconds:.0f} s"))
            return
        self._heard = self._told = False
        self._next_beat = now + seconds
        self._beat = self._loop.call_later(seconds, self._keep_beating, seconds)


async def connect(address: Address, host: tuple[str, int], purpose: str) -> Connection:
    """Open a connection to one node.

    Raises:
        EngineUnavailable: there is none; says why, and what to do.
    """
    where = place(*host)
    loop = asyncio.get_running_loop()
    made: Connection | None = None
    try:
        async with asyncio.timeout(address.connect_seconds):
            _, made = await loop.create_connection(
                lambda: Connection(address, where),
                *host,
                ssl=_tls(address) if address.tls else None,
                happy_eyeballs_delay=0.25,
            )
            await _opened(made, f"backlane {purpose} {socket.gethostname()}:{os.getpid()}")
    except TimeoutError as error:
        raise unreachable(address, where, f"nothing within {address.connect_seconds:g} s") from (
            error
        )
    except ssl.SSLError as error:
        raise no_broker(address, where, f"TLS with it fails ({error.reason or error})") from error
    except OSError as error:
        raise unreachable(address, where, error.strerror or error) from error
    finally:
        if made is not None and not made.is_open:
            made.lose(EngineUnavailable("it was never opened"))
    return made


async def _opened(made: Connection, name: str) -> None:
    """Shake hands, unless the connection is lost before."""
    hands = asyncio.ensure_future(made.shake_hands(name))
    gone = asyncio.ensure_future(made.gone())
    try:
        await asyncio.wait((hands, gone), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # the reason may have come together with the end
        if not hands.done():
            raise made.lost or EngineUnavailable("it was never opened")
        await hands
    finally:
        hands.cancel()
        gone.cancel()


def _tls(address: Address) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if address.ca:
        context.load_verify_locations(address.ca)
    if address.cert:
        context.load_cert_chain(address.cert, address.key)
    if not address.is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _least(theirs: int, ours: int) -> int:
    """Return what both can do; 0 says that there is no limit."""
    return min(theirs, ours) if theirs and ours else theirs or ours


def _version() -> str:
    try:
        return version("backlane")
    except PackageNotFoundError:
        return "unknown"
