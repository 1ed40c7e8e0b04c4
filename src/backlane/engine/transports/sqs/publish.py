"""Publishing: batches of ten and of the bytes that a call takes, several on their way at a time.

What becomes of each message is found out by itself: a part of a batch can fail. What is
known not to be there is sent again while there is time; what may be there is too, for
SQS shows a message twice now and then anyway. In a FIFO queue it knows the second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from backlane.engine.transport import Blocked, Fate, Parcel
from backlane.engine.transports.sqs.entry import Entry, entry_of
from backlane.engine.transports.sqs.link import Link
from backlane.engine.transports.sqs.pace import backoff
from backlane.engine.transports.sqs.places import Place, Places
from backlane.engine.transports.sqs.trouble import Kind, Trouble

log = logging.getLogger("backlane.sqs")

BATCH = 10
AT_A_TIME = 8  # batches on their way


class Sending(msgspec.Struct):
    """A call of `publish`, while it lasts."""

    place: Place
    until: float  # of the loop's time
    fates: list[Fate]
    troubles: list[Trouble] = []


class Publisher:
    """Publishes to the queues of one link."""

    def __init__(self, link: Link, places: Places) -> None:
        self._link, self._places = link, places
        self._takes_groups = True  # a standard queue: not every endpoint knows that they may
        self._way = asyncio.Semaphore(AT_A_TIME)

    async def publish(self, queue: str, parcels: Sequence[Parcel], seconds: float) -> list[Fate]:
        """Publish all, by the time given. See `Transport.publish`."""
        if not parcels:
            return []
        until = asyncio.get_running_loop().time() + seconds
        fifo = self._link.address.fifo
        try:
            async with asyncio.timeout_at(until):
                place = await self._places.of(queue)
        except TimeoutError:
            raise Trouble(
                Kind.AWAY, f"{self._link.address.place} did not answer"
            ).unavailable() from None
        except Trouble as trouble:
            if trouble.kind is Kind.THROTTLED:
                raise Blocked(trouble.text) from trouble
            raise trouble.unavailable() from trouble
        sending = Sending(place, until, [Fate.REFUSED] * len(parcels))
        batches = self._batches(
            sending, [entry_of(i, it, fifo=fifo) for i, it in enumerate(parcels)]
        )
        if fifo:  # one after the other, for they are in order
            for batch in batches:
                await self._send(sending, batch)
        else:
            await asyncio.gather(*(self._send(sending, batch) for batch in batches))
        self._complain(sending)
        return sending.fates

    def _batches(self, sending: Sending, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        batch: list[Entry] = []
        size = 0
        most = sending.place.most_bytes
        for entry in entries:
            if entry.size > most:
                self._refuse(sending, entry, f"its {entry.size} bytes are more than {most}")
                continue
            if len(batch) == BATCH or (batch and size + entry.size > most):
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += entry.size
        if batch:
            yield batch

    def _refuse(self, sending: Sending, entry: Entry, why: str) -> None:
        sending.fates[entry.index] = Fate.REFUSED
        log.warning("a message for queue %r was refused: %s", sending.place.queue, why)

    def _complain(self, sending: Sending) -> None:
        """Raise what was wrong with all of it, where none was published."""
        if not sending.troubles or any(it is not Fate.REFUSED for it in sending.fates):
            return
        trouble = sending.troubles[-1]
        if trouble.kind is Kind.THROTTLED:
            raise Blocked(trouble.text)
        raise trouble.unavailable()

    async def _send(self, sending: Sending, batch: list[Entry]) -> None:
        """Send a batch, and again what of it is not there, while there is time."""
        async with self._way:
            tries = 0
            while batch:
                if not await self._link.pace.turn(sending.until):
                    break
                try:
                    answer = await self._call(sending, batch)
                except Trouble as trouble:
                    if not await self._bear(sending, batch, trouble):
                        break
                else:
                    batch = self._judge(sending, batch, answer)
                tries += 1
                if batch:
                    await self._rest(sending, tries)
        for entry in batch:
            if entry.is_doubtful:
                sending.fates[entry.index] = Fate.UNKNOWN

    async def _call(self, sending: Sending, batch: Sequence[Entry]) -> Any:
        return await self._link.call(
            "SendMessage",
            sending.place.queue,
            sending.until,
            QueueUrl=sending.place.url,
            Entries=[self._request(it) | {"Id": str(it.index)} for it in batch],
        )

    def _request(self, entry: Entry) -> dict[str, Any]:
        if self._takes_groups or self._link.address.fifo:
            return entry.request
        return {name: it for name, it in entry.request.items() if name != "MessageGroupId"}

    async def _bear(self, sending: Sending, batch: list[Entry], trouble: Trouble) -> bool:
        """Take a failed call in; False: there is nothing more to try."""
        match trouble.kind:
            case Kind.THROTTLED:
                sending.troubles.append(trouble)
            case Kind.DOUBT:
                for entry in batch:
                    entry.is_doubtful = True
            case Kind.GONE:
                self._places.forget(sending.place.queue)
                try:
                    async with asyncio.timeout_at(sending.until):
                        sending.place = await self._places.of(sending.place.queue)
                except TimeoutError:
                    return False
                except Trouble as other:
                    sending.troubles.append(other)
                    return False
            case Kind.REFUSED if "MessageGroupId" in trouble.text and self._takes_groups:
                self._takes_groups = False
                return not self._link.address.fifo
            case Kind.REFUSED if len(batch) > 1:
                # One of them is at fault, and SQS does not say which: each by itself.
                for entry in batch:
                    await self._send_alone(sending, entry)
                batch.clear()
            case Kind.REFUSED:
                self._refuse(sending, batch[0], trouble.text)
                batch.clear()
            case _:
                sending.troubles.append(trouble)
                return False
        return True

    async def _send_alone(self, sending: Sending, entry: Entry) -> None:
        single = [entry]
        try:
            answer = await self._call(sending, single)
        except Trouble as trouble:
            if trouble.kind is Kind.DOUBT:
                sending.fates[entry.index] = Fate.UNKNOWN
            else:
                self._refuse(sending, entry, trouble.text)
        else:
            self._judge(sending, single, answer)

    def _judge(self, sending: Sending, batch: Sequence[Entry], answer: Any) -> list[Entry]:
        """Take an answer in, and return what is to be sent again."""
        taken = {str(it["Id"]): it for it in answer.get("Successful") or ()}
        failed = {str(it["Id"]): it for it in answer.get("Failed") or ()}
        again: list[Entry] = []
        for entry in batch:
            key = str(entry.index)
            if key in taken:
                if taken[key].get("MD5OfMessageBody", entry.digest) == entry.digest:
                    sending.fates[entry.index] = Fate.CONFIRMED
                else:  # it has something, and not what we sent: another may be as bad
                    sending.fates[entry.index] = Fate.UNKNOWN
                    log.error("SQS took another body for queue %r", sending.place.queue)
            elif key in failed and failed[key].get("SenderFault"):
                said = f"{failed[key].get('Message')} ({failed[key].get('Code')})"
                self._refuse(sending, entry, said)
            else:
                entry.is_doubtful |= key not in failed
                again.append(entry)
        return again

    async def _rest(self, sending: Sending, tries: int) -> None:
        left = sending.until - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(min(left, backoff(tries)))
