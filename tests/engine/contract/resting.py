"""A rig for brokered engines: before each claim, what was offered arrives.

The contract claims right after it appends, and a broker brings jobs a moment later. So a
claim here waits until the relay has published all it may and until all of it has come back
through the broker; then it claims as a worker does. Nothing else is done for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import msgspec

from backlane.engine.brokered import Brokered
from backlane.engine.brokered.belt import Belt
from backlane.engine.brokered.pace import Extent
from backlane.engine.hearing import Bell
from backlane.engine.plan import Plan
from backlane.engine.protocol import Claimed, Turn, Wanted
from backlane.engine.transport import Delivery, Fate, Parcel, Transport
from backlane.model.job import Lane
from backlane.model.outcome import Settlement
from backlane.model.queue import Kind

T = TypeVar("T")

# All that is ready is at the broker, and all that arrives is looked at: the contract's
# claims take the first of all jobs, not of a window.
EXTENT = Extent(window_least=100_000, stock_most=100_000, beyond=100_000, claim_most=100_000)

PASSED_ON_SECONDS = 0.05
SECONDS = 60.0  # that a broker may take to bring what it has


class Counting:
    """A transport that counts what is on its way through the broker."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.afloat: dict[str, Counter[str]] = {}
        self.number_published = 0

    def __getattr__(self, name: str) -> Any:
        """All other calls pass through."""
        return getattr(self._transport, name)

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        afloat = self.afloat.setdefault(queue, Counter())
        afloat.update(parcel.id for parcel in parcels)
        self.number_published += len(parcels)
        fates = await self._transport.publish(queue, parcels, seconds)
        for parcel, fate in zip(parcels, fates, strict=True):
            if fate is Fate.REFUSED:
                afloat[parcel.id] -= 1
        return fates

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        received = await self._transport.receive(queue, number, seconds)
        afloat = self.afloat.setdefault(queue, Counter())
        for delivery in received:
            afloat[delivery.id or ""] = max(0, afloat[delivery.id or ""] - 1)
        return received

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.afloat[delivery.queue][delivery.id or ""] += 1
        await self._transport.release(deliveries)

    async def close(self) -> None:
        """The connection is kept for the next test: to open one takes longer than a test."""
        for queue in self.afloat:
            await self._transport.forget(queue)

    def has_afloat(self, belt: Belt) -> bool:
        return any(+self.afloat.get(belt.name, Counter()))


class Rested(Plan[T]):
    """A plan that is carried out once all is at rest."""

    def __init__(self, plan: Plan[T], wanted: Sequence[Wanted], first: Plan[Any] | None) -> None:
        super().__init__(plan.within)
        self.plan, self.wanted, self.first = plan, wanted, first


class RestingBell:
    """A bell that has passed on what the ledger's rang, before it is asked whether it rang."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell

    def heard(self, seconds: float) -> bool:
        return self._bell.heard(max(PASSED_ON_SECONDS, seconds))

    async def aheard(self, seconds: float) -> bool:
        return await self._bell.aheard(max(PASSED_ON_SECONDS, seconds))

    def close(self) -> None:
        self._bell.close()


class Resting:
    """A brokered engine whose claims wait until all is at rest."""

    def __init__(self, engine: Brokered, counting: Counting) -> None:
        self.engine, self.counting = engine, counting
        self._turn = threading.Lock()  # of one claim: it looks at all that has arrived

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def listen(self, queues: Sequence[str]) -> Bell:
        return RestingBell(self.engine.listen(queues))

    def claim(self, wanted: Wanted) -> Plan[Claimed]:
        first = self.engine.claim(_nothing(wanted)) if wanted.departed else None
        return Rested(self.engine.claim(wanted), [wanted], first)

    def turn(self, settlements: Sequence[Settlement], wanted: Sequence[Wanted]) -> Plan[Turn]:
        """What its settlements make ready can only be claimed by the next one."""
        nothing = [_nothing(one) for one in wanted]
        is_first = settlements or any(one.departed for one in wanted)
        first = self.engine.turn(settlements, nothing) if is_first else None
        return Rested(self.engine.turn([], wanted), wanted, first)

    def run(self, plan: Plan[T]) -> T:
        if not isinstance(plan, Rested):
            return self.engine.run(plan)
        before = self.engine.run(plan.first) if plan.first else None
        with self._turn:
            self.engine.depot.background.run(self._rest(plan.wanted), SECONDS * 2)
            after: T = self.engine.run(plan.plan)
        return cast("T", _joined(before, after))

    async def arun(self, plan: Plan[T]) -> T:
        if not isinstance(plan, Rested):
            return await self.engine.arun(plan)
        before = await self.engine.arun(plan.first) if plan.first else None
        await self.engine.depot.background.arun(self._rest(plan.wanted))
        after: T = await self.engine.arun(plan.plan)
        return cast("T", _joined(before, after))

    async def _rest(self, wanted: Sequence[Wanted]) -> None:
        depot, end = self.engine.depot, time.monotonic() + SECONDS
        belts = self._asked(wanted)
        while belts:
            await self._until(lambda: not depot.is_busy and depot.relay.is_idle, end)
            number = self.counting.number_published
            depot.relay.poke(belts)
            await self._until(lambda: depot.relay.is_idle, end)
            await self._until(lambda: not any(map(self.counting.has_afloat, belts)), end, belts)
            if number == self.counting.number_published:
                return

    def _asked(self, wanted: Sequence[Wanted]) -> list[Belt]:
        """Begin to receive, as the claim that follows would."""
        depot, belts, now = self.engine.depot, [], time.monotonic()
        with depot.lock:
            for one in wanted:
                lanes = tuple(Lane) if one.lane is None else (Lane(one.lane),)
                for queue in one.queues if one.number > 0 else ():
                    belts += [depot.belt(queue, lane, Kind(one.kind)) for lane in lanes]
                    for belt in belts:
                        belt.ask(EXTENT.stock_most, now)
            depot.nudge_for(belts, now)
        return belts

    async def _until(self, is_so: Any, end: float, belts: Sequence[Belt] = ()) -> None:
        while not is_so():
            with self.engine.depot.lock:
                for belt in belts:  # a claim that goes on waiting goes on asking
                    belt.ask(EXTENT.stock_most, time.monotonic())
                self.engine.depot.nudge_for(belts, time.monotonic())
            if time.monotonic() > end:
                afloat = {it.name: len(+self.counting.afloat[it.name]) for it in belts}
                raise AssertionError(f"the broker did not come to rest: {afloat}")
            await asyncio.sleep(0.0005)


def _nothing(wanted: Wanted) -> Wanted:
    return msgspec.structs.replace(wanted, number=0)


def _joined(before: Any, after: Any) -> Any:
    """One answer of what was done before the rest and after it."""
    if isinstance(before, Claimed) and isinstance(after, Claimed):
        return msgspec.structs.replace(after, buried=before.buried + after.buried)
    if isinstance(before, Turn) and isinstance(after, Turn):
        pairs = zip(before.claimed, after.claimed, strict=True)
        return Turn(before.settled, [_joined(one, other) for one, other in pairs])
    return after
