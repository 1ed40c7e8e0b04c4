"""Publishing: many messages in one write, each answered for by the broker.

A message counts as taken only when the broker has confirmed it and has not sent it back.
What it has not answered when the time is over, or when the connection goes, may arrive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from pamqp import commands

from backlane.engine.transport import Blocked, Bounds, Fate, Parcel
from backlane.engine.transports.rabbit import frame, topology
from backlane.engine.transports.rabbit.address import Address
from backlane.engine.transports.rabbit.channel import Channel
from backlane.engine.transports.rabbit.connection import Connection
from backlane.engine.transports.rabbit.fault import Declined
from backlane.engine.transports.rabbit.line import Line
from backlane.engine.transports.rabbit.properties import MOST_ID, Header, read
from backlane.errors import EngineUnavailable

# More in flight win nothing and cost the broker memory; it slows those who send more.
WINDOW = 1_000
WINDOW_BYTES = 16 * 1024 * 1024
PIECE_BYTES = 128 * 1024  # written at a time
# Answers that nobody waits for any more, as from a queue that has lost its majority.
MOST_OVERDUE = 10_000
OPEN_SECONDS = 5.0


class _Call:
    """One call's messages, and what is known of them."""

    def __init__(self, queue: str, parcels: Sequence[Parcel]) -> None:
        self.queue, self.parcels = queue, parcels
        self.fates: list[Fate | None] = [None] * len(parcels)
        self.missing: list[int] = []  # sent back: there is no such queue
        self.open = 0  # in flight
        self.is_over = False
        self.answered = asyncio.Event()

    def settle(self, number: int, fate: Fate) -> None:
        self.fates[number] = fate
        self.open -= 1
        if not self.open:
            self.answered.set()


class _Flight:
    """A channel on which messages are confirmed, and those that have not been yet."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self.connection, self.channel = connection, channel
        self.next = 1  # the broker counts messages from here
        self.lowest = 1  # all before it are answered
        self.unanswered: dict[int, tuple[_Call, int]] = {}
        self.returned: set[tuple[str, str | None]] = set()
        self.bytes = self.overdue = 0
        self.moved = asyncio.Event()  # something was answered, or nothing will be
        channel.on_confirm = self._confirmed
        channel.on_content = self._came_back
        channel.on_lost = self._lost
        connection.on_blocked = self.moved.set

    def has_room(self) -> bool:
        return len(self.unanswered) - self.overdue < WINDOW and self.bytes < WINDOW_BYTES

    def take(self, call: _Call, number: int) -> None:
        """Note the next message as sent."""
        self.unanswered[self.next] = (call, number)
        self.next += 1
        self.bytes += len(call.parcels[number].body)
        call.open += 1

    def give_up(self, call: _Call) -> None:
        """Wait no longer for a call's answers."""
        call.is_over = True
        for number, fate in enumerate(call.fates):
            if fate is None:
                self.overdue += 1
                self.bytes -= len(call.parcels[number].body)

    def _confirmed(self, tag: int, multiple: bool, fate: Fate) -> None:
        for number in range(self.lowest, tag + 1) if multiple else (tag,):
            entry = self.unanswered.pop(number, None)
            if entry is not None:
                self._answered(*entry, fate)
        if multiple:
            self.lowest = tag + 1
        self.moved.set()

    def _answered(self, call: _Call, number: int, fate: Fate) -> None:
        if call.is_over:
            self.overdue -= 1
            return
        self.bytes -= len(call.parcels[number].body)
        if self.returned and (call.queue, call.parcels[number].id) in self.returned:
            # What comes back is confirmed as well: the broker is done with it.
            self.returned.discard((call.queue, call.parcels[number].id))
            call.missing.append(number)
            fate = Fate.REFUSED
        call.settle(number, fate)

    def _came_back(self, method: bytes, header: bytes, _body: bytes) -> None:
        """The broker knew no such queue; its confirm comes after this."""
        at = 6 + 1 + method[6]  # code, then its text
        at += 1 + method[at]  # what it was published to
        key = method[at + 1 : at + 1 + method[at]].decode(errors="replace")
        self.returned.add((key, read(header).id))

    def _lost(self, why: Exception) -> None:
        largest = why.largest if isinstance(why, Declined) else None
        unanswered, self.unanswered = self.unanswered, {}
        for call, number in unanswered.values():
            if not call.is_over:
                is_large = largest is not None and len(call.parcels[number].body) > largest
                call.settle(number, Fate.REFUSED if is_large else Fate.UNKNOWN)
        self.bytes = self.overdue = 0
        self.moved.set()


class Publisher:
    """Publishes on a connection of its own, so that a broker that stops reading it stops
    nothing else."""

    def __init__(self, address: Address, bounds: Mapping[str, Bounds]) -> None:
        self._address, self._bounds = address, bounds
        self._line = Line(address, "publish")
        self._flight: _Flight | None = None
        self._made: set[str] = set()  # queues that were there when we looked
        self._opening = asyncio.Lock()
        self._largest: int | None = None  # bytes of a message, once the broker has said so

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        """As `Transport.publish`."""
        if not parcels:
            return []
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until):
                flight = await self._ready()
                await self._make(flight, queue, parcels)
        except TimeoutError as error:
            raise EngineUnavailable(
                f"RabbitMQ at {self._address.host} was not ready within {seconds:.1f} s"
            ) from error
        call = _Call(queue, parcels)
        await self._send(flight, call, range(len(parcels)), until)
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

    async def _ready(self) -> _Flight:
        """Return where messages can be sent now.

        Raises:
            Blocked: the broker takes none.
        """
        flight = await self._opened()
        if flight.connection.blocked is not None:
            raise Blocked(flight.connection.blocked)
        if flight.overdue > MOST_OVERDUE:
            raise EngineUnavailable(
                f"RabbitMQ at {self._address.host} has not answered for {flight.overdue} "
                "messages: has a majority of its nodes gone?"
            )
        return flight

    async def _opened(self) -> _Flight:
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

    async def _open(self) -> _Flight:
        connection = await self._line.connected(OPEN_SECONDS)
        channel = await connection.channel(OPEN_SECONDS)
        try:
            await channel.ask(commands.Confirm.Select(), commands.Confirm.SelectOk, OPEN_SECONDS)
        except Declined as error:
            raise EngineUnavailable(f"RabbitMQ does not confirm messages: {error}") from error
        return _Flight(connection, channel)

    async def _make(self, flight: _Flight, queue: str, parcels: Sequence[Parcel]) -> None:
        """Make the queue unless we know that it is there, and those of delays."""
        levels = {topology.level(it.delay_ms) for it in parcels if it.delay_ms > 0}
        every: list[str | int] = [queue, *levels]
        wanted = [it for it in every if _key(it) not in self._made]
        if not wanted:
            return
        # On a channel of its own: what goes wrong there must not end those in flight.
        channel = await flight.connection.channel(OPEN_SECONDS)
        try:
            for it in wanted:
                if isinstance(it, int):
                    await topology.declare_delay(channel, self._address, it)
                else:
                    await topology.declare(channel, self._address, it, self._bounds.get(it))
                self._made.add(_key(it))
        finally:
            channel.close()

    # -- sending --

    async def _again(self, flight: _Flight, call: _Call, until: float) -> None:
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

    async def _send(
        self, flight: _Flight, call: _Call, numbers: Sequence[int], until: float
    ) -> None:
        """Send these, as many at a time as may be in flight, and wait for the answers."""
        at = 0
        try:
            async with asyncio.timeout_at(until):
                while at < len(numbers) and flight.channel.lost is None:
                    if flight.connection.blocked is not None:
                        break
                    if not flight.has_room():
                        flight.moved.clear()
                        await flight.moved.wait()
                        continue
                    at = self._write(flight, call, numbers, at)
                    await flight.connection.writable()
                while call.open:
                    call.answered.clear()
                    await call.answered.wait()
        except TimeoutError:
            pass
        finally:
            for number in numbers[at:]:  # never sent
                call.fates[number] = Fate.REFUSED
            if call.open:
                flight.give_up(call)

    def _write(self, flight: _Flight, call: _Call, numbers: Sequence[int], at: int) -> int:
        """Write as much as there is room for; return where to go on."""
        channel, largest = flight.channel.number, flight.connection.largest
        header = Header(channel, int(time.time()))
        start = frame.publish(channel, "", call.queue)
        parts: list[bytes] = []
        size = 0
        while at < len(numbers) and size < PIECE_BYTES and flight.has_room():
            number = numbers[at]
            parcel = call.parcels[number]
            at += 1
            listed = self._listed(header, parcel, largest)
            if listed is None:
                call.fates[number] = Fate.REFUSED
                continue
            if parcel.delay_ms > 0:
                delay = topology.delaying(self._address, topology.level(parcel.delay_ms))
                parts.append(frame.publish(channel, delay, call.queue))
            else:
                parts.append(start)
            parts += listed
            parts += frame.body(channel, parcel.body, largest)
            flight.take(call, number)
            size += len(parcel.body) + 100
        flight.channel.write(b"".join(parts))
        return at

    def _listed(self, header: Header, parcel: Parcel, largest: int) -> tuple[bytes, ...] | None:
        """Return a message's header frame; None where none can be made for it."""
        size = len(parcel.body)
        if len(parcel.id) > MOST_ID // 4 and len(parcel.id.encode()) > MOST_ID:
            return None
        if size > topology.LARGEST or (self._largest is not None and size > self._largest):
            return None
        parts = header.frame(size, parcel.id, parcel.headers, parcel.group)
        if parcel.headers and sum(map(len, parts)) > largest:
            return None
        return parts


def _key(it: str | int) -> str:
    return it if isinstance(it, str) else f"~{it}"
