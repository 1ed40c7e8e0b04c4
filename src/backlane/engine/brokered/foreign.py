"""Customs: what becomes of messages that are not ours, and arrive where ours do.

A letter of another language on a queue for tasks is a job: it is stored in the ledger,
and then comes as ours do. On a queue for raw messages any body is a message. All else
is kept as it came, as a raw message of the queue `quarantine.<queue>`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from backlane.engine import wire
from backlane.engine.brokered.belt import Belt
from backlane.engine.offering import Ledger
from backlane.engine.protocol import Admission
from backlane.engine.transport import Delivery, Transport
from backlane.errors import BacklaneError, EngineUnavailable, OutcomeUnknown
from backlane.model.codec import encode_headers
from backlane.model.ids import new_id
from backlane.model.job import Job, Lane, Refusal
from backlane.model.queue import Kind

log = logging.getLogger("backlane.broker")

QUARANTINE = "quarantine."
NAME_MOST = 128
TELL_SECONDS = 60.0
FULL_SECONDS = 1.0  # until a message is shown again whose queue has no room
DAY_MS = 86_400_000

# A refusal for one of these is lifted by waiting; others are the message's own fault.
_PASSING = frozenset({"jobs", "bytes", "wait", "deadline", "group", "moving"})

Appended = Callable[[Iterable[tuple[str, Lane]], Kind], None]


class Customs:
    """Stores messages of others in the ledger. Runs on the loop of the broker."""

    def __init__(self, transport: Transport, ledger: Ledger, appended: Appended) -> None:
        self._transport, self._ledger, self._appended = transport, ledger, appended
        self.taken_in = self.quarantined = 0
        self._told_at = 0.0
        self._untold = 0

    async def take_in(self, belt: Belt, deliveries: Sequence[Delivery]) -> None:
        """Store each, then acknowledge it; show it again where that cannot be now."""
        done, again = list[Delivery](), list[Delivery]()
        for delivery in deliveries:
            try:
                is_stored = await self._store(belt, delivery)
            except (EngineUnavailable, OutcomeUnknown) as error:
                log.debug("a message of %s is shown again: %s", belt.name, error)
                is_stored = False
            (done if is_stored else again).append(delivery)
        with contextlib.suppress(EngineUnavailable):
            if done:
                await self._transport.ack(done)
            if again:
                await asyncio.sleep(FULL_SECONDS)
                await self._transport.release(again)

    async def _store(self, belt: Belt, delivery: Delivery) -> bool:
        try:
            job = _job(belt, delivery)
        except BacklaneError as error:
            return await self._quarantine(belt, delivery, str(error))
        answer = await self._append(job, belt.kind)
        if not isinstance(answer, Refusal):
            self.taken_in += 1
            self._appended([(belt.queue, Lane.SHARED)], belt.kind)
            return True
        if answer.limit in _PASSING and answer.can_fit:
            return False
        return await self._quarantine(belt, delivery, f"the ledger refuses it ({answer.limit})")

    async def _quarantine(self, belt: Belt, delivery: Delivery, why: str) -> bool:
        queue = belt.queue
        if not queue.startswith(QUARANTINE):
            queue = (QUARANTINE + queue)[:NAME_MOST]
        self._tell(belt, queue, why)
        headers = {f"given-{name}"[:200]: text for name, text in delivery.headers.items()}
        headers |= {"quarantined-from": belt.name, "quarantined-why": why[:1_000]}
        if delivery.id is not None:
            headers["quarantined-id"] = delivery.id
        try:
            encoded = encode_headers(headers)
        except BacklaneError:  # the sender's are too many, or too large
            own = {name: it for name, it in headers.items() if name.startswith("quarantined-")}
            encoded = encode_headers(own)
        job = Job(
            id=_id(None, f"{QUARANTINE}{belt.queue}", delivery),
            queue=queue,
            task=None,
            body=delivery.body,
            headers=encoded,
        )
        self.quarantined += 1
        return not isinstance(await self._append(job, Kind.MESSAGES), Refusal)

    async def _append(self, job: Job, kind: Kind) -> object:
        return await self._ledger.arun(self._ledger.append([job], Admission(kind=kind)))

    def _tell(self, belt: Belt, queue: str, why: str) -> None:
        """Say so, once a minute at most."""
        self._untold += 1
        now = time.monotonic()
        if now - self._told_at >= TELL_SECONDS:
            log.warning(
                "%d messages of others on %s are in quarantine now, the last one because %s; "
                "read them from the message queue %r",
                self._untold,
                belt.name,
                why,
                queue,
            )
            self._told_at, self._untold = now, 0


def _job(belt: Belt, delivery: Delivery) -> Job:
    """Return the job that a message of another program is.

    Raises:
        BacklaneError: it is none; says why.
    """
    now_ms = _now_ms()
    if belt.kind is Kind.MESSAGES:
        letter, headers = wire.read_message(delivery.headers)
        return Job(
            id=_id(letter.id, belt.queue, delivery),
            queue=belt.queue,
            task=None,
            body=delivery.body,
            headers=encode_headers(headers),
            group=letter.group or delivery.group,
            priority=letter.priority,
        )
    letter = wire.read(delivery.body)
    return wire.job_of(letter, belt.queue, _id(letter.id, belt.queue, delivery), now_ms)


def _id(given: str | None, queue: str, delivery: Delivery) -> bytes:
    """Return an id that is the same at every delivery of a message, if it can be."""
    made_ms = delivery.sent_ms
    if made_ms is None:  # the day is the same at nearly all of them
        made_ms = _now_ms() // DAY_MS * DAY_MS
    return wire.job_id(given or delivery.id, queue, made_ms) or new_id(_now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
