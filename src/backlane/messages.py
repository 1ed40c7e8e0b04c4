"""Raw messages: a queue of bytes, for other languages and other programs.

    orders = app.messages("orders")
    orders.send(b"...", delay=5)
    for message in orders.receive(max=10, wait=20):
        message.ack()

Delivery is at least once. A message that is received belongs to its receiver for the
length of its lease (30 s) and comes back after it, unless it was acked, released or
extended, which any process can do that has its receipt.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from typing import Unpack, cast

from backlane.draft import Draft, uses_of
from backlane.engine.plan import Plan
from backlane.engine.protocol import Claimed, Extended, Settled, Wanted
from backlane.enqueuer import BATCH
from backlane.errors import BadOption, LeaseLost, TooLarge, WrongUse
from backlane.intake import Intake
from backlane.model.codec import decode_headers
from backlane.model.job import Job, Lease, Receipt
from backlane.model.option import check_options
from backlane.model.outcome import Outcome, Released, Settlement, Snoozed, Succeeded
from backlane.model.queue import Kind
from backlane.model.retry import Duration, milliseconds
from backlane.needs import check_enqueue
from backlane.options import EnqueueOptions, SendOptions, Terms, checked_items
from backlane.visit import Tally
from backlane.wait import Wait, in_a_loop

OWNER = "messages"  # of every raw lease: it ends by time alone, so nobody's death ends it
LEASE = 30.0  # seconds
RECEIVE_LIMIT = 1_000  # messages a call


class MessageQueue:
    """A queue of raw messages: `app.messages(name)`.

    .. versionadded:: 0.1
    """

    def __init__(self, name: str, intake: Intake, max_bytes: int) -> None:
        self.name = name
        self._intake = intake
        self._max_bytes = max_bytes
        uses = uses_of(intake.queue(name), None)
        self._draft = Draft(Job(id=b"", queue=name, task=None, body=b"", uses=uses))

    def __repr__(self) -> str:
        return f"<MessageQueue {self.name}>"

    # -- sending --

    def send(self, body: bytes, **options: Unpack[SendOptions]) -> uuid.UUID:
        """Store one message, durably, and return its id (with a taken key, the first's).

        Raises:
            QueueFull: the queue is at its bound; nothing was stored.
            TooLarge: the body is larger than a job may be (1 MiB unless set).
            WrongUse: the queue holds tasks.
        """
        job, terms = self._message(body, options)
        return _id_of(self._intake.append([job], terms)[0])

    async def asend(self, body: bytes, **options: Unpack[SendOptions]) -> uuid.UUID:
        """Like `send`."""
        job, terms = self._message(body, options)
        return _id_of((await self._intake.aappend([job], terms))[0])

    def send_many(self, bodies: Iterable[bytes], **options: Unpack[SendOptions]) -> list[uuid.UUID]:
        """Store many messages, in transactions of 1,000 in order; see `send`.

        `QueueFull.accepted` says how many, the first of the call, are stored.
        """
        draft, sent, tally = self._drafted(options), list[uuid.UUID](), Tally()
        draft.check_many()
        for batch in _cut(bodies):
            jobs = draft.jobs([self._checked(body) for body in batch], self._intake.place.clock)
            sent += map(_id_of, self._intake.append(jobs, draft.terms, tally))
        return sent

    async def asend_many(
        self, bodies: Iterable[bytes], **options: Unpack[SendOptions]
    ) -> list[uuid.UUID]:
        """Like `send_many`."""
        draft, sent, tally = self._drafted(options), list[uuid.UUID](), Tally()
        draft.check_many()
        for batch in _cut(bodies):
            jobs = draft.jobs([self._checked(body) for body in batch], self._intake.place.clock)
            sent += map(_id_of, await self._intake.aappend(jobs, draft.terms, tally))
        return sent

    # -- receiving --

    def receive(
        self,
        max: int = 1,  # noqa: A002 - what everyone calls it
        *,
        wait: Duration = 0,
        lease: Duration = LEASE,
    ) -> list[Message]:
        """Take up to `max` messages, waiting up to `wait` for the first of them.

        They are hidden from others for the length of `lease`. An empty list means that
        none came in time.

        Raises:
            BadOption: `max` is not 1 to 1,000.
            WrongUse: a wait here would block the running event loop.
        """
        wanted, left = self._wanted(max, lease), Wait(self._intake.place.clock, wait, "wait")
        claimed = self._claim(wanted)
        if claimed.leases or left.is_over:
            return self._messages(claimed)
        if in_a_loop():
            raise WrongUse(
                "receive(wait=…) would block the running event loop; use `await queue.areceive()`"
            )
        bell = self._intake.place.engine.listen((self.name,))
        try:
            while not (claimed := self._claim(wanted)).leases and not left.is_over:
                left.heard(bell, claimed.next_due_ms)
        finally:
            bell.close()
        return self._messages(claimed)

    async def areceive(
        self,
        max: int = 1,  # noqa: A002 - what everyone calls it
        *,
        wait: Duration = 0,
        lease: Duration = LEASE,
    ) -> list[Message]:
        """Like `receive`."""
        wanted, left = self._wanted(max, lease), Wait(self._intake.place.clock, wait, "wait")
        claimed = await self._aclaim(wanted)
        if claimed.leases or left.is_over:
            return self._messages(claimed)
        bell = self._intake.place.engine.listen((self.name,))
        try:
            while not (claimed := await self._aclaim(wanted)).leases and not left.is_over:
                await left.aheard(bell, claimed.next_due_ms)
        finally:
            bell.close()
        return self._messages(claimed)

    # -- by receipt, from any process --

    def ack(self, receipt: str) -> None:
        """Say that a message is done with: it is not delivered again.

        Raises:
            LeaseLost: its lease has ended or went to another; it may be delivered again.
            BadOption: this is not a receipt.
        """
        self._end(receipt, Succeeded())

    async def aack(self, receipt: str) -> None:
        """Like `ack`."""
        await self._aend(receipt, Succeeded())

    def ack_many(self, receipts: Iterable[str]) -> list[str]:
        """Ack many in one transaction; return the receipts whose lease was lost."""
        given = list(checked_items(receipts, "ack_many(…)", "receipts"))
        return _lost_of(given, self._run_settle([_settlement(it, Succeeded()) for it in given]))

    async def aack_many(self, receipts: Iterable[str]) -> list[str]:
        """Like `ack_many`."""
        given = list(checked_items(receipts, "ack_many(…)", "receipts"))
        settled = await self._arun_settle([_settlement(it, Succeeded()) for it in given])
        return _lost_of(given, settled)

    def release(self, receipt: str, delay: Duration = 0) -> None:
        """Give a message back, to be delivered again after `delay`; see `ack`."""
        self._end(receipt, _given_back(delay))

    async def arelease(self, receipt: str, delay: Duration = 0) -> None:
        """Like `release`."""
        await self._aend(receipt, _given_back(delay))

    def extend(self, receipt: str, by: Duration = LEASE) -> None:
        """Move the end of a message's lease to now + `by`; see `ack`."""
        engine = self._intake.place.engine
        _check_extended(receipt, engine.run(self._extension(receipt, by)))

    async def aextend(self, receipt: str, by: Duration = LEASE) -> None:
        """Like `extend`."""
        engine = self._intake.place.engine
        _check_extended(receipt, await engine.arun(self._extension(receipt, by)))

    # -- steps of these --

    def _drafted(self, options: SendOptions) -> Draft:
        if not options:
            return self._draft
        check_options(options, SendOptions.__annotations__, "send()")
        check_enqueue(self._intake.place, options, "send")
        return self._draft.with_options(cast("EnqueueOptions", options), self._intake.queue)

    def _message(self, body: bytes, options: SendOptions) -> tuple[Job, Terms]:
        draft = self._drafted(options)
        return draft.job(self._checked(body), self._intake.place.clock), draft.terms

    def _checked(self, body: bytes) -> bytes:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise BadOption(
                f"a message is bytes, and this is {type(body).__name__}; encode it, for "
                "example with json.dumps(…).encode()"
            )
        body = bytes(body)
        if len(body) > self._max_bytes:
            raise TooLarge(
                f"the message has {len(body):,} bytes, {self._max_bytes:,} are allowed; store "
                "it elsewhere and send where"
            )
        return body

    def _wanted(self, number: int, lease: Duration) -> Wanted:
        if type(number) is not int or not 1 <= number <= RECEIVE_LIMIT:
            raise BadOption(f"max is {number!r}; use a whole number from 1 to {RECEIVE_LIMIT:,}")
        return Wanted(
            owner=OWNER,
            number=number,
            lease_ms=_lease_ms(lease, "lease"),
            queues=(self.name,),
            lane=None,
            kind=Kind.MESSAGES,
        )

    def _claim(self, wanted: Wanted) -> Claimed:
        engine = self._intake.place.engine
        return engine.run(engine.claim(wanted))

    async def _aclaim(self, wanted: Wanted) -> Claimed:
        engine = self._intake.place.engine
        return await engine.arun(engine.claim(wanted))

    def _messages(self, claimed: Claimed) -> list[Message]:
        return [Message(lease, self) for lease in claimed.leases]

    def _run_settle(self, settlements: Sequence[Settlement]) -> Settled:
        engine = self._intake.place.engine
        return engine.run(engine.settle(settlements))

    async def _arun_settle(self, settlements: Sequence[Settlement]) -> Settled:
        engine = self._intake.place.engine
        return await engine.arun(engine.settle(settlements))

    def _end(self, receipt: str, outcome: Outcome) -> None:
        if self._run_settle([_settlement(receipt, outcome)]).lost:
            raise _lease_lost(receipt)

    async def _aend(self, receipt: str, outcome: Outcome) -> None:
        if (await self._arun_settle([_settlement(receipt, outcome)])).lost:
            raise _lease_lost(receipt)

    def _extension(self, receipt: str, by: Duration) -> Plan[Extended]:
        return self._intake.place.engine.extend([_read_receipt(receipt)], _lease_ms(by, "by"))


class Message:
    """A message that was received, and the right to it until its lease ends.

    .. versionadded:: 0.1
    """

    def __init__(self, lease: Lease, queue: MessageQueue) -> None:
        self._lease = lease
        self._queue = queue

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self._lease.queue}>"

    @property
    def body(self) -> bytes:
        return self._lease.body

    @cached_property
    def id(self) -> uuid.UUID:
        """The message's id, the same at every delivery."""
        return uuid.UUID(bytes=self._lease.job)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """What the sender attached."""
        return decode_headers(self._lease.headers)

    @property
    def attempt(self) -> int:
        """Which delivery this is, 1 being the first; deliveries given back do not count."""
        return self._lease.attempt + 1

    @property
    def enqueued_at(self) -> datetime:
        return datetime.fromtimestamp(self._lease.enqueued_ms / 1000, UTC)

    @cached_property
    def receipt(self) -> str:
        """What `ack`, `release` and `extend` of any process know this delivery by."""
        return f"{self._lease.job.hex()}.{self._lease.token}"

    def ack(self) -> None:
        """See `MessageQueue.ack`."""
        self._queue.ack(self.receipt)

    async def aack(self) -> None:
        """See `MessageQueue.ack`."""
        await self._queue.aack(self.receipt)

    def release(self, delay: Duration = 0) -> None:
        """See `MessageQueue.release`."""
        self._queue.release(self.receipt, delay)

    async def arelease(self, delay: Duration = 0) -> None:
        """See `MessageQueue.release`."""
        await self._queue.arelease(self.receipt, delay)

    def extend(self, by: Duration = LEASE) -> None:
        """See `MessageQueue.extend`."""
        self._queue.extend(self.receipt, by)

    async def aextend(self, by: Duration = LEASE) -> None:
        """See `MessageQueue.extend`."""
        await self._queue.aextend(self.receipt, by)


def _id_of(receipt: Receipt) -> uuid.UUID:
    return uuid.UUID(bytes=receipt.first or receipt.job)


def _cut(bodies: Iterable[bytes]) -> Iterator[list[bytes]]:
    if isinstance(bodies, bytes | bytearray | memoryview):
        raise BadOption("send_many takes messages, and this is one; use send")
    source = iter(checked_items(bodies, "send_many(…)", "messages, each bytes"))
    while batch := list(islice(source, BATCH)):
        yield batch


def _lease_ms(given: Duration, option: str) -> int:
    lease_ms = milliseconds(given, option)
    if lease_ms == 0:
        raise BadOption(f"{option} is 0, so the lease would be over at once; use release")
    return lease_ms


_RECEIPT = re.compile(r"([0-9a-f]{32})\.([0-9]{1,18})")


def _read_receipt(receipt: str) -> tuple[bytes, int]:
    found = _RECEIPT.fullmatch(receipt) if isinstance(receipt, str) else None
    if found is None:
        raise BadOption(f"{receipt!r} is not a receipt; use `message.receipt`")
    return bytes.fromhex(found[1]), int(found[2])


def _settlement(receipt: str, outcome: Outcome) -> Settlement:
    job, token = _read_receipt(receipt)
    return Settlement(job, token, outcome)


def _given_back(delay: Duration) -> Outcome:
    delay_ms = milliseconds(delay, "delay")
    return Snoozed(delay_ms) if delay_ms else Released()


def _lease_lost(receipt: str) -> LeaseLost:
    return LeaseLost(
        f"the lease of message {uuid.UUID(bytes=_read_receipt(receipt)[0])} has ended or went to "
        "another receiver, and the message is, or was, delivered again; give it a longer lease, "
        "or extend it in time"
    )


def _check_extended(receipt: str, extended: Extended) -> None:
    if extended.lost:
        raise _lease_lost(receipt)


def _lost_of(receipts: Sequence[str], settled: Settled) -> list[str]:
    lost = frozenset(settled.lost)
    return [receipt for receipt in receipts if _read_receipt(receipt)[0] in lost]
