"""The transport: SQS behind the verbs that engines know."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backlane.engine.protocol import Finding
from backlane.engine.transport import Bounds, Delays, Delivery, Fate, Parcel, Standing, Terms
from backlane.engine.transports.sqs.address import LONGEST_VISIBILITY, Address
from backlane.engine.transports.sqs.diagnose import diagnose
from backlane.engine.transports.sqs.entry import MOST_DELAY
from backlane.engine.transports.sqs.held import ANSWER_SECONDS, BATCH, Holder
from backlane.engine.transports.sqs.link import Link
from backlane.engine.transports.sqs.places import MADE_OTHERWISE, MOST_BYTES, Place, Places
from backlane.engine.transports.sqs.publish import Publisher
from backlane.engine.transports.sqs.source import Sources
from backlane.engine.transports.sqs.trouble import Kind, Trouble
from backlane.errors import SchemaMismatch


class Parts(msgspec.Struct):
    """What there is while it is open, in one process."""

    pid: int
    link: Link
    places: Places
    holder: Holder
    publisher: Publisher
    sources: Sources


class SqsTransport:
    """Carries messages by SQS queues."""

    def __init__(self, address: Address) -> None:
        self.url = address.shown
        # A FIFO queue has no delays of single messages. The order of neither kind is what
        # `is_ordered` means: a group that is busy stays behind, and fair queues let it.
        self.terms = Terms(
            name="Amazon SQS",
            most_bytes=MOST_BYTES,
            batch=BATCH,
            delays=Delays(most_ms=0 if address.fifo else MOST_DELAY * 1000),
            held_ms=address.visibility * 1000,
            longest_ms=LONGEST_VISIBILITY * 1000,
            is_ordered=False,
        )
        self._address = address
        self._parts: Parts | None = None

    async def declare(self, queue: str, bounds: Bounds) -> None:
        """Make a queue whose redrive policy is that of the bounds; SQS itself has no others.

        Raises:
            SchemaMismatch: it has another policy, and we may not change it.
            EngineUnavailable: see `Transport.declare`.
        """
        places = self._open().places
        if places.bounds.get(queue) != bounds:
            places.bounds[queue] = bounds
            places.forget(queue)
        try:
            await places.of(queue)
        except Trouble as trouble:
            if trouble.code == MADE_OTHERWISE:
                raise SchemaMismatch(trouble.text) from trouble
            raise trouble.unavailable() from trouble

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        """Publish all; what is refused is told of in the log, with the reason."""
        return await self._open().publisher.publish(queue, parcels, seconds)

    async def receive(self, queue: str, number: int, seconds: float) -> list[Delivery]:
        """Return up to `number`; what has come in advance may be more, and waits here."""
        try:
            return await self._open().sources.receive(queue, number, seconds)
        except Trouble as trouble:
            raise trouble.unavailable() from trouble

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Have these deleted, in tens."""
        await self._open().holder.ack(deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Show these to others now."""
        await self._open().holder.release(deliveries)

    async def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[Delivery]:
        """Keep these; twelve hours after it came a message is anybody's, whatever is asked."""
        return await self._open().holder.extend(deliveries, seconds)

    async def forget(self, queue: str) -> None:
        """Give back what came in advance."""
        await self._open().sources.forget(queue)

    async def standing(self, queue: str) -> Standing:
        """Look at a queue: SQS estimates, and is up to a minute behind."""
        attributes = await self._attributes(await self._place(queue))
        waiting = int(attributes.get("ApproximateNumberOfMessages", 0))
        delayed = int(attributes.get("ApproximateNumberOfMessagesDelayed", 0))
        return Standing(ready=waiting + delayed, is_exact=False)

    async def purge(self, queue: str) -> None:
        """Drop what nobody holds: at once where SQS does so, else by receiving and deleting.

        PurgeQueue takes from those who hold messages too, and is allowed once a minute.
        """
        place = await self._place(queue)
        attributes = await self._attributes(place)
        if not int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)):
            try:
                await self._call("PurgeQueue", place)
            except Trouble as trouble:
                if "PurgeQueueInProgress" not in trouble.code:
                    raise trouble.unavailable() from trouble
            else:
                return
        while True:
            found = await self.receive(queue, BATCH * BATCH, 1.0)
            await self.ack(found)
            if not found and not (await self.standing(queue)).ready:
                return

    async def diagnose(self, queues: Mapping[str, Bounds | None] = {}) -> list[Finding]:  # noqa: ARG002 - it is asked for them
        """Say what is wrong, or right, with keys, rights, queues and the clock."""
        return await diagnose(self._open().link)

    async def close(self) -> None:
        """Give everything back. A poll that still waits gives back what it gets."""
        parts, self._parts = self._parts, None
        if parts is None or parts.pid != os.getpid():
            return
        parts.link.is_closed = True
        await parts.sources.close()
        await parts.holder.close()
        parts.link.close()

    def _open(self) -> Parts:
        parts = self._parts
        if parts is None or parts.pid != os.getpid():
            link = Link(self._address)
            places = Places(self._address, link.run)
            holder = Holder(link)
            parts = self._parts = Parts(
                pid=os.getpid(),
                link=link,
                places=places,
                holder=holder,
                publisher=Publisher(link, places),
                sources=Sources(link, places, holder),
            )
        return parts

    async def _place(self, queue: str) -> Place:
        try:
            return await self._open().places.of(queue)
        except Trouble as trouble:
            raise trouble.unavailable() from trouble

    async def _call(self, action: str, place: Place, **request: object) -> Mapping[str, Any]:
        until = asyncio.get_running_loop().time() + ANSWER_SECONDS
        return await self._open().link.call(
            action, place.queue, until, QueueUrl=place.url, **request
        )

    async def _attributes(self, place: Place) -> dict[str, str]:
        try:
            answer = await self._call("GetQueueAttributes", place, AttributeNames=["All"])
        except Trouble as trouble:
            if trouble.kind is Kind.GONE:
                self._open().places.forget(place.queue)
                return {}  # nothing is in it
            raise trouble.unavailable() from trouble
        return dict(answer.get("Attributes") or {})
