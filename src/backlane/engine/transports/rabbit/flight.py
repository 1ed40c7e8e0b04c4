"""In flight: messages that were sent and are not answered yet.

A message counts as taken only when the broker has confirmed it and has not sent it back.
What it has not answered when the time is over, or when the connection goes, may arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import repeat

from backlane.engine.transport import Fate, Parcel
from backlane.engine.transports.rabbit import frame
from backlane.engine.transports.rabbit.channel import Channel
from backlane.engine.transports.rabbit.connection import Connection
from backlane.engine.transports.rabbit.fault import Declined
from backlane.engine.transports.rabbit.properties import Header, read

# More in flight win nothing and cost the broker memory; it slows those who send more.
WINDOW = 1_000
WINDOW_BYTES = 16 * 1024 * 1024
# After so long without an answer, whether there is an alarm is looked at first: a round trip.
QUIET_SECONDS = 1.0


class Call:
    """One call's messages, and what is known of them."""

    def __init__(self, queue: str, parcels: Sequence[Parcel]) -> None:
        self.queue, self.parcels = queue, parcels
        self.fates: list[Fate | None] = [None] * len(parcels)
        self.missing: list[int] = []  # sent back: there is no such queue
        self.open = 0  # in flight
        self.is_over = False
        self.answered = asyncio.Event()  # or there is something else to be looked at

    def settle(self, number: int, fate: Fate) -> None:
        """Note what became of a message."""
        self.fates[number] = fate
        self.open -= 1
        if not self.open:
            self.answered.set()


class Flight:
    """A channel on which messages are confirmed, and those that have not been yet."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self.connection, self.channel = connection, channel
        self.next = 1  # the broker counts messages from here
        self.lowest = 1  # all before it are answered
        self.unanswered: dict[int, tuple[Call, int]] = {}
        self.returned: set[tuple[str, str | None]] = set()
        self.bytes = self.overdue = 0
        self.moved = asyncio.Event()  # something was answered, or nothing will be
        self.heard = 0.0  # when something was
        self._now = asyncio.get_running_loop().time
        channel.on_confirm = self._confirmed
        channel.on_content = self._came_back
        channel.on_lost = self._lost
        connection.on_blocked = self._blocked

    @property
    def room(self) -> int:
        """How many more may be in flight."""
        if self.bytes >= WINDOW_BYTES:
            return 0
        return max(0, WINDOW - len(self.unanswered) + self.overdue)

    @property
    def is_ready(self) -> bool:
        """Whether messages can be sent at once, without looking first."""
        is_well = self.channel.lost is None and self.connection.blocked is None
        return is_well and self._is_heard and not self.overdue

    @property
    def _is_heard(self) -> bool:
        return self._now() - self.heard < QUIET_SECONDS

    def take(self, call: Call, numbers: Sequence[int]) -> None:
        """Note messages as sent, in this order."""
        until = self.next + len(numbers)
        self.unanswered.update(
            zip(range(self.next, until), zip(repeat(call), numbers), strict=True)
        )
        self.next = until
        self.bytes += sum(len(call.parcels[it].body) for it in numbers)
        call.open += len(numbers)

    async def look(self) -> None:
        """Find out whether the broker takes messages, by one that goes nowhere.

        It tells of an alarm only to who publishes, and stops reading there: in the middle of
        a message, of which nobody can say then whether it will arrive.
        """
        if self._is_heard or self.connection.blocked is not None:
            return
        call = Call("", (Parcel("", b"?"),))
        number = self.channel.number
        parts = [frame.publish(number, "", "", mandatory=False)]
        parts += Header(number, 0).frame(1, "", {}, None)
        parts += frame.body(number, b"?", self.connection.largest)
        self.take(call, (0,))
        self.channel.write(b"".join(parts))
        try:
            while call.open and self.connection.blocked is None and self.channel.lost is None:
                self.moved.clear()
                await self.moved.wait()
        finally:
            if call.open:
                self.give_up(call)

    def give_up(self, call: Call) -> None:
        """Wait no longer for a call's answers."""
        call.is_over = True
        for number, fate in enumerate(call.fates):
            if fate is None:
                self.overdue += 1
                self.bytes -= len(call.parcels[number].body)

    def _confirmed(self, tag: int, multiple: bool, fate: Fate) -> None:
        last = min(tag, self.next - 1)  # whatever it says
        take = self.unanswered.pop
        for number in range(self.lowest, last + 1) if multiple else (tag,):
            entry = take(number, None)
            if entry is None:
                continue
            call, at = entry
            if call.is_over or self.returned:
                self._answered(call, at, fate)
                continue
            self.bytes -= len(call.parcels[at].body)
            call.fates[at] = fate
            call.open -= 1
            if not call.open:
                call.answered.set()
        if multiple:
            self.lowest = max(self.lowest, last + 1)
        self.heard = self._now()
        self.moved.set()

    def _answered(self, call: Call, number: int, fate: Fate) -> None:
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

    def _blocked(self) -> None:
        """The broker stopped reading, or goes on: who waits may wait for another time."""
        self.moved.set()
        for call, _ in self.unanswered.values():
            call.answered.set()

    def _lost(self, why: Exception) -> None:
        largest = why.largest if isinstance(why, Declined) else None
        unanswered, self.unanswered = self.unanswered, {}
        for call, number in unanswered.values():
            if not call.is_over:
                is_large = largest is not None and len(call.parcels[number].body) > largest
                call.settle(number, Fate.REFUSED if is_large else Fate.UNKNOWN)
        self.bytes = self.overdue = 0
        self.moved.set()
