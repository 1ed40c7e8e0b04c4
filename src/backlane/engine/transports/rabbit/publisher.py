"""Publishing: many messages in one write, each answered for by the broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import islice

from pamqp import commands

from backlane.engine.transport import Blocked, Bounds, Fate, Parcel
from backlane.engine.transports.rabbit import frame, topology
from backlane.engine.transports.rabbit.address import Address
from backlane.engine.transports.rabbit.fault import REFUSED, Declined, declined
from backlane.engine.transports.rabbit.flight import Call, Flight
from backlane.engine.transports.rabbit.line import Line
from backlane.engine.transports.rabbit.properties import MOST_ID, Header
from backlane.errors import EngineUnavailable, SchemaMismatch

SHORT_ID = MOST_ID // 4  # characters that fit in whatever they are made of
PIECE_BYTES = 128 * 1024  # written at a time
# Answers that nobody waits for any more, as from a queue that has lost its majority.
MOST_OVERDUE = 10_000
OPEN_SECONDS = 5.0
# What a broker had read before it stopped is answered at once; the rest may take hours.
BLOCKED_SECONDS = 1.0


class Publisher:
    """Publishes on a connection of its own, so that a broker that stops reading it stops
    nothing else."""

    def __init__(self, address: Address, bounds: Mapping[str, Bounds]) -> None:
        self._address, self._bounds = address, bounds
        self._line = Line(address, "publish")
        self._flight: Flight | None = None
        self._made: set[str] = set()  # queues that were there when we looked
        self._opening = asyncio.Lock()
        self._largest: int | None = None  # bytes of a message, once the broker has said so

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        """As `Transport.publish`."""
        if not parcels:
            return []
        until = asyncio.get_running_loop().time() + seconds
        flight = self._flight
        if flight is None or not flight.is_ready or self._lacks(queue, parcels):
            try:
                async with asyncio.timeout_at(until):
                    flight = await self._ready()
                    await self._make(flight, queue, parcels)
            except TimeoutError as error:
                raise EngineUnavailable(
                    f"RabbitMQ at {self._address.host} was not ready within {seconds:.1f} s"
                ) from error
        call = Call(queue, parcels)
        await self._send(flight, call, range(len(parcels)), until)
        lost = flight.channel.lost
        if isinstance(lost, Declined) and lost.code == REFUSED:
            raise declined(self._address, lost, queue, "write")
        if call.missing and self._flight is flight:
            await self._again(flight, call, until)
        return [fate or Fate.UNKNOWN for fate in call.fates]

    async def declare(self, queue: str) -> None:
        """Make a queue with the bounds that it has now."""
        self._made.discard(queue)
        await self._make(await self._opened(), queue, ())

    async def close(self) -> None:
        """Say good-bye. What is in flight is unknown."""
        self._flight = None
        await self._line.close()

    # -- the channel, and the queues --

    async def _ready(self) -> Flight:
        """Return where messages can be sent now.

        Raises:
            Blocked: the broker takes none.
        """
        flight = await self._opened()
        await flight.look()
        if flight.connection.blocked is not None:
            raise Blocked(flight.connection.blocked)
        if flight.overdue > MOST_OVERDUE:
            raise EngineUnavailable(
                f"RabbitMQ at {self._address.host} has not answered for {flight.overdue} "
                "messages: has a majority of its nodes gone?"
            )
        return flight

    async def _opened(self) -> Flight:
        flight = self._flight
        if flight is not None and flight.channel.lost is None:
            return flight
        async with self._opening:
            flight = self._flight
            if flight is not None and flight.channel.lost is None:
                return flight
            if flight is not None and isinstance(flight.channel.lost, Declined):
                self._made.clear()  # perhaps something that we took for made was deleted
                self._largest = flight.channel.lost.largest or self._largest
            self._flight = await self._open()
            return self._flight

    async def _open(self) -> Flight:
        connection = await self._line.connected(OPEN_SECONDS)
        channel = await connection.channel(OPEN_SECONDS)
        try:
            await channel.ask(commands.Confirm.Select(), commands.Confirm.SelectOk, OPEN_SECONDS)
        except Declined as error:
            raise EngineUnavailable(f"RabbitMQ does not confirm messages: {error}") from error
        return Flight(connection, channel)

    async def _make(self, flight: Flight, queue: str, parcels: Sequence[Parcel]) -> None:
        """Make the queue unless we know that it is there, and those of delays."""
        for it in self._lacks(queue, parcels):
            # On a channel of its own: what goes wrong there must not end those in flight.
            channel = await flight.connection.channel(OPEN_SECONDS)
            try:
                if isinstance(it, int):
                    await topology.declare_delay(channel, self._address, it)
                else:
                    await topology.declare(channel, self._address, it, self._bounds.get(it))
            except SchemaMismatch:
                if isinstance(it, int) or it in self._bounds:
                    raise  # else nothing was asked of it: it is taken as it is
            finally:
                channel.close()
            self._made.add(_key(it))

    def _lacks(self, queue: str, parcels: Sequence[Parcel]) -> list[str | int]:
        """Return what is to be made: the queue, and delays by their length."""
        levels = {topology.level(it.delay_ms) for it in parcels if it.delay_ms > 0}
        every: list[str | int] = [queue, *levels]
        return [it for it in every if _key(it) not in self._made]

    # -- sending --

    async def _again(self, flight: Flight, call: Call, until: float) -> None:
        """Make the queue that was deleted behind our back, and send once more."""
        missing, call.missing = call.missing, []
        self._made.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._make(flight, call.queue, call.parcels)
        except (EngineUnavailable, TimeoutError):
            return  # they stay refused: the broker has none of them
        for number in missing:
            call.fates[number] = None
        await self._send(flight, call, missing, until)

    async def _send(self, flight: Flight, call: Call, numbers: Sequence[int], until: float) -> None:
        """Send these, as many at a time as may be in flight, and wait for the answers."""
        at = 0
        try:
            async with asyncio.timeout_at(until):
                while at < len(numbers) and flight.channel.lost is None:
                    if flight.connection.blocked is not None:
                        break
                    if not flight.room:
                        flight.moved.clear()
                        await flight.moved.wait()
                        continue
                    at = self._write(flight, call, numbers, at)
                    await flight.connection.writable()
                await self._answered(flight, call)
        except TimeoutError:
            pass
        finally:
            for number in numbers[at:]:  # never sent
                call.fates[number] = Fate.REFUSED
            if call.open:
                flight.give_up(call)

    async def _answered(self, flight: Flight, call: Call) -> None:
        while call.open:
            call.answered.clear()
            is_blocked = flight.connection.blocked is not None
            async with asyncio.timeout(BLOCKED_SECONDS if is_blocked else None):
                await call.answered.wait()

    def _write(self, flight: Flight, call: Call, numbers: Sequence[int], at: int) -> int:
        """Write as much as there is room for; return where to go on."""
        channel, largest = flight.channel.number, flight.connection.largest
        header = Header(channel, int(time.time()))
        start = frame.publish(channel, "", call.queue)
        small = min(largest, self._largest or largest)
        parts: list[bytes] = []
        sent: list[int] = []
        size, room = 0, flight.room
        for number in islice(numbers, at, None):
            if size >= PIECE_BYTES or len(sent) == room:
                break
            parcel = call.parcels[number]
            at += 1
            length = len(parcel.body)
            size += length + 100
            is_plain = not parcel.headers and parcel.group is None and parcel.delay_ms <= 0
            if is_plain and 0 < length <= small and len(parcel.id) <= SHORT_ID:
                parts.append(start)
                parts += header.plain(parcel.id.encode(), parcel.body)
            else:
                listed = self._listed(header, parcel, largest)
                if listed is None:
                    call.fates[number] = Fate.REFUSED
                    continue
                parts.append(start if parcel.delay_ms <= 0 else self._delayed(flight, call, parcel))
                parts += listed
                parts += frame.body(channel, parcel.body, largest)
            sent.append(number)
        flight.take(call, sent)
        flight.channel.write(b"".join(parts))
        return at

    def _delayed(self, flight: Flight, call: Call, parcel: Parcel) -> bytes:
        delay = topology.delaying(self._address, topology.level(parcel.delay_ms))
        return frame.publish(flight.channel.number, delay, call.queue)

    def _listed(self, header: Header, parcel: Parcel, largest: int) -> tuple[bytes, ...] | None:
        """Return a message's header frame; None where none can be made for it."""
        size = len(parcel.body)
        if len(parcel.id) > SHORT_ID and len(parcel.id.encode()) > MOST_ID:
            return None
        if size > topology.LARGEST or (self._largest is not None and size > self._largest):
            return None
        parts = header.frame(size, parcel.id, parcel.headers, parcel.group)
        if parcel.headers and sum(map(len, parts)) > largest:
            return None
        return parts


def _key(it: str | int) -> str:
    return it if isinstance(it, str) else f"~{it}"
