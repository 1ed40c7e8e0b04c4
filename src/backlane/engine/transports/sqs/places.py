"""Places: our queues at SQS. Each is looked for when first named, and made if need be."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backlane.engine.transport import Bounds
from backlane.engine.transports.sqs.address import Address
from backlane.engine.transports.sqs.client import Client
from backlane.engine.transports.sqs.naming import dead_name, sqs_name
from backlane.engine.transports.sqs.pace import backoff
from backlane.engine.transports.sqs.trouble import Kind, Trouble, trouble_of

log = logging.getLogger("backlane.sqs")

MOST_BYTES = 1_048_576  # of a message, and of a batch; it was a quarter before August 2025
RETENTION = 1_209_600  # seconds: fourteen days, the most there is
# The most there is. Whoever holds messages for later gives them back and receives them
# again: only what nobody can make sense of comes so often.
RECEIVES = 1_000
TRIES = 4  # at opening a place
MADE_OTHERWISE = "MadeOtherwise"  # the code of the one trouble that is our own


class Place(msgspec.Struct, frozen=True):
    """A queue at SQS."""

    queue: str  # as it is called by us
    name: str
    url: str
    most_bytes: int = MOST_BYTES


class Places:
    """The places of one transport, by the names of their queues."""

    def __init__(
        self, address: Address, run: Callable[[Callable[[Client], Place]], asyncio.Future[Place]]
    ) -> None:
        self._address, self._run = address, run
        self.bounds: dict[str, Bounds] = {}  # of queues that were declared
        self._known: dict[str, asyncio.Future[Place]] = {}

    async def of(self, queue: str) -> Place:
        """Return the place of a queue.

        Raises:
            Trouble: it is not there and cannot be made, or nobody answers.
        """
        found = self._known.get(queue)
        if found is None:
            bounds = self.bounds.get(queue, Bounds())
            found = self._run(lambda client: _open(client, self._address, queue, bounds))
            found.add_done_callback(_hear)
            self._known[queue] = found
        try:
            return await asyncio.shield(found)
        except asyncio.CancelledError:
            if found.cancelled():
                self._known.pop(queue, None)
            raise
        except BaseException:
            if self._known.get(queue) is found:
                del self._known[queue]
            raise

    def forget(self, queue: str) -> None:
        """Look again when it is named next: it is not where it was."""
        self._known.pop(queue, None)


def _hear(found: asyncio.Future[Place]) -> None:
    """Whoever asked may have gone: then nobody else looks at what went wrong."""
    if not found.cancelled():
        found.exception()


def _open(client: Client, address: Address, queue: str, bounds: Bounds) -> Place:
    """Open a place; what had no answer is asked again, for finding and making are harmless."""
    for tries in range(1, TRIES):
        try:
            return open_place(client, address, queue, bounds)
        except Trouble as trouble:
            if trouble.kind not in (Kind.DOUBT, Kind.THROTTLED):
                raise
            time.sleep(backoff(tries))
    return open_place(client, address, queue, bounds)


def open_place(client: Client, address: Address, queue: str, bounds: Bounds) -> Place:
    """Find a queue, or make it. Blocks.

    Raises:
        Trouble: see `Places.of`.
    """
    name = sqs_name(queue, fifo=address.fifo)
    try:
        url = _find(client, address, queue, name)
        if url is None:
            url = _make(client, address, queue, bounds)
        elif bounds.tries is not None:
            _bind(client, address, queue, url, bounds)
        attributes = read(client, address, queue, url)
    except Trouble as trouble:
        if trouble.kind is Kind.GONE:  # deleted between two calls
            raise Trouble(Kind.REFUSED, trouble.text, trouble.code) from trouble
        raise
    most = int(attributes.get("MaximumMessageSize", MOST_BYTES))
    return Place(queue, name, url, min(most, MOST_BYTES))


def read(client: Client, address: Address, queue: str, url: str) -> Mapping[str, str]:
    """Return the attributes of a queue that matter to us; {}: that right is missing."""
    try:
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    except Exception as error:
        trouble = trouble_of(error, "GetQueueAttributes", queue, address)
        if trouble.kind in (Kind.DENIED, Kind.REFUSED):
            return {}
        raise trouble from error
    found: Mapping[str, str] = answer.get("Attributes") or {}
    return found


def _find(client: Client, address: Address, queue: str, name: str) -> str | None:
    try:
        return str(client.get_queue_url(QueueName=name)["QueueUrl"])
    except Exception as error:
        trouble = trouble_of(error, "GetQueueUrl", queue, address)
        if trouble.kind is Kind.GONE or trouble.code in ("AccessDenied", "AccessDeniedException"):
            return None  # who may not look may perhaps make it, which finds it too
        raise trouble from error


def _make(client: Client, address: Address, queue: str, bounds: Bounds) -> str:
    attributes = {
        "VisibilityTimeout": str(address.visibility),
        "MessageRetentionPeriod": str(RETENTION),
    }
    if address.fifo:
        attributes |= {"FifoQueue": "true", "ContentBasedDeduplication": "false"}
    fuller = attributes | {"MaximumMessageSize": str(MOST_BYTES)}
    if address.fifo:  # by group: a busy one does not slow the others
        fuller |= {"DeduplicationScope": "messageGroup"}
        fuller |= {"FifoThroughputLimit": "perMessageGroupId"}
    dead = _create(client, address, queue, _dead(queue, bounds, address), fuller, attributes)
    arn = read(client, address, queue, dead).get("QueueArn")
    if arn:
        fuller = fuller | {"RedrivePolicy": _policy(arn, bounds)}
    name = sqs_name(queue, fifo=address.fifo)
    url = _create(client, address, queue, name, fuller, attributes)
    log.info("made queue %r at %s", name, address.place)
    return url


def _bind(client: Client, address: Address, queue: str, url: str, bounds: Bounds) -> None:
    """See that a queue which is there has the redrive policy that was declared.

    Raises:
        Trouble: it has another, and it cannot be changed.
    """
    made = {"VisibilityTimeout": str(address.visibility), "MessageRetentionPeriod": str(RETENTION)}
    made |= {"FifoQueue": "true"} if address.fifo else {}
    dead = _create(client, address, queue, _dead(queue, bounds, address), made, made)
    arn = read(client, address, queue, dead).get("QueueArn", "")
    wanted = _policy(arn, bounds)
    has = read(client, address, queue, url).get("RedrivePolicy", "{}")
    if _same(has, wanted):
        return
    try:
        client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": wanted})
    except Exception as error:
        trouble = trouble_of(error, "SetQueueAttributes", queue, address)
        if trouble.kind in (Kind.DENIED, Kind.REFUSED):
            text = f"queue {queue!r} was made with the redrive policy {has}, and not {wanted}; "
            raise Trouble(Kind.REFUSED, text + trouble.text, MADE_OTHERWISE) from error
        raise trouble from error


def _dead(queue: str, bounds: Bounds, address: Address) -> str:
    if bounds.dead is not None:
        return sqs_name(bounds.dead, fifo=address.fifo)
    return dead_name(queue, fifo=address.fifo)


def _policy(arn: str, bounds: Bounds) -> str:
    tries = min(RECEIVES, max(1, bounds.tries or RECEIVES))
    return json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(tries)})


def _same(has: str, wanted: str) -> bool:
    def parts(policy: str) -> tuple[str, str]:
        read: dict[str, object] = json.loads(policy)
        return str(read.get("deadLetterTargetArn")), str(read.get("maxReceiveCount"))

    return parts(has) == parts(wanted)


def _create(  # long: what is asked first, and what is asked for if that is refused
    client: Client,
    address: Address,
    queue: str,
    name: str,
    fuller: Mapping[str, str],
    attributes: Mapping[str, str],
) -> str:
    """Create a queue with all that we want of it, else with as much as is allowed.

    A tag needs a right of its own, and other endpoints do not know every attribute.
    """
    tries: list[dict[str, Any]] = [
        {"Attributes": fuller, "tags": {"made-by": "backlane"}},
        {"Attributes": fuller},
        {"Attributes": attributes},
    ]
    troubles: list[Trouble] = []
    for request in tries:
        try:
            return str(client.create_queue(QueueName=name, **request)["QueueUrl"])
        except Exception as error:
            trouble = trouble_of(error, "CreateQueue", queue, address)
            trouble.__cause__ = error
            troubles.append(trouble)
            if "Exists" in trouble.code:  # another was faster, and with other attributes
                return str(client.get_queue_url(QueueName=name)["QueueUrl"])
            if trouble.kind not in (Kind.DENIED, Kind.REFUSED):
                raise trouble from error
    raise troubles[0]
