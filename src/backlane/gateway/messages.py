"""Messages: a queue of bytes over HTTP, for programs in any language.

    POST /v1/queues/{queue}/messages            the body is the message
    POST /v1/queues/{queue}/receive?max=10&wait=20
    POST /v1/queues/{queue}/ack                 {"receipts": ["…"]}

A receipt is signed for its queue: who may receive from one queue cannot make one up for a
message of another, nor for a job that a worker runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from backlane.errors import LeaseLost
from backlane.gateway.answer import answer
from backlane.gateway.body import Gone, fitting
from backlane.gateway.idempotency import idempotency_key, ticket
from backlane.gateway.resource import moment
from backlane.gateway.site import WAIT_SECONDS, Exchange, Rule, Site
from backlane.gateway.waiting import departure
from backlane.messages import LEASE, Message, MessageQueue

MOST = 100  # messages a receive, receipts a call: an answer is held in memory whole
LONGEST_LEASE = 12 * 3600.0
SLICE_SECONDS = 1.0  # of a wait, between which we look whether anybody still waits


class MessageResource(msgspec.Struct, frozen=True):
    """A message as it is received; its body in base64."""

    id: str
    receipt: str
    attempt: int
    enqueued_at: str
    headers: dict[str, str]
    body: bytes


class Receipts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages; `delay` is for release, `by` for extend."""

    receipts: Annotated[list[str], Meta(max_length=MOST)]
    delay: Annotated[float, Meta(ge=0, le=LONGEST_LEASE)] = 0.0
    by: Annotated[float, Meta(gt=0, le=LONGEST_LEASE)] = LEASE


async def send(exchange: Exchange) -> Response:
    """Store the body as a message."""
    options: dict[str, Any] = {}
    for name in ("delay", "expires"):
        if name in exchange.query:
            options[name] = exchange.number(name, 0, 3_155_760_000)
    if "priority" in exchange.query:
        options["priority"] = exchange.whole("priority", 5, 0, 9)
    options |= {name: exchange.query[name] for name in ("key", "group") if name in exchange.query}
    options |= idempotency_key(exchange) | ticket(exchange)
    queue = _queue(exchange)
    made = await queue.asend(exchange.body, on_full="refuse", **options)
    return answer({"id": str(made)}, 202)


async def receive(exchange: Exchange) -> Response:
    """Take messages, and wait for the first of them as long as is asked for."""
    number = exchange.whole("max", 1, 1, MOST)
    ends = time.monotonic() + exchange.number("wait", 0, WAIT_SECONDS)
    lease = exchange.number("lease", LEASE, LONGEST_LEASE)
    queue, site = _queue(exchange), exchange.site
    left = asyncio.ensure_future(departure(exchange.receive))
    has_left = False
    try:
        while True:
            # In slices, and none of them cancelled: what is claimed is answered with or given back.
            rest = min(SLICE_SECONDS, max(0.0, ends - time.monotonic()))
            taken = await queue.areceive(number, wait=rest, lease=lease)
            has_left = left.done()
            if taken or rest <= 0 or has_left or site.stopping.is_set():
                break
    finally:
        left.cancel()
        with suppress(asyncio.CancelledError):
            await left
    if has_left:
        await asyncio.gather(*(_given_back(queue, message) for message in taken))
        raise Gone
    secret = await _secret(site)
    return answer({"messages": [_shown(message, queue.name, secret) for message in taken]})


async def _given_back(queue: MessageQueue, message: Message) -> None:
    """Give back what was taken for a caller who has left; its lease may be of hours."""
    with suppress(LeaseLost):
        await queue.arelease(message.receipt)


async def ack(exchange: Exchange) -> Response:
    """Say that messages are done with."""
    queue = _queue(exchange)
    return await _each(exchange, lambda receipt, _: queue.aack(receipt))


async def release(exchange: Exchange) -> Response:
    """Give messages back, to be delivered again."""
    queue = _queue(exchange)
    return await _each(exchange, lambda receipt, asked: queue.arelease(receipt, asked.delay))


async def extend(exchange: Exchange) -> Response:
    """Keep messages hidden from others for longer."""
    queue = _queue(exchange)
    return await _each(exchange, lambda receipt, asked: queue.aextend(receipt, asked.by))


ROUTES = [
    Rule("POST", "/v1/queues/{queue}/messages", send, "send"),
    Rule("POST", "/v1/queues/{queue}/receive", receive, "receive"),
    Rule("POST", "/v1/queues/{queue}/ack", ack, "receive"),
    Rule("POST", "/v1/queues/{queue}/release", release, "receive"),
    Rule("POST", "/v1/queues/{queue}/extend", extend, "receive"),
]

_decode = msgspec.json.Decoder(Receipts).decode


def _queue(exchange: Exchange) -> MessageQueue:
    return exchange.app.messages(exchange.param("queue"))


async def _each(exchange: Exchange, change: Callable[[str, Receipts], Awaitable[None]]) -> Response:
    """Change each message by its receipt; answer which were, and whose lease was lost."""
    asked, secret = fitting(_decode, exchange.headers, exchange.body), await _secret(exchange.site)
    queue = exchange.param("queue")
    known = [it for it in dict.fromkeys(asked.receipts) if _is_signed(it, queue, secret)]

    async def is_done(signed: str) -> bool:
        try:
            await change(signed.rpartition(".")[0], asked)
        except LeaseLost:
            return False
        return True

    # At once, so that the store's writer takes them in one commit.
    done = await asyncio.gather(*(is_done(signed) for signed in known))
    changed = {signed for signed, is_so in zip(known, done, strict=True) if is_so}
    return answer(
        {
            "done": [it for it in asked.receipts if it in changed],
            "lost": [it for it in asked.receipts if it not in changed],
        }
    )


# -- receipts --


async def _secret(site: Site) -> bytes:
    """Return the store's own secret, which all gateways of it share."""
    if site.secret is None:
        engine = site.app.engine
        site.secret = (await engine.arun(engine.measure(()))).secret
    return site.secret


def _shown(message: Message, queue: str, secret: bytes) -> MessageResource:
    receipt = message.receipt
    return MessageResource(
        id=str(message.id),
        receipt=f"{receipt}.{_signature(receipt, queue, secret)}",
        attempt=message.attempt,
        enqueued_at=moment(round(message.enqueued_at.timestamp() * 1000)),
        headers=dict(message.headers),
        body=message.body,
    )


def _signature(receipt: str, queue: str, secret: bytes) -> str:
    signed = f"receipt\0{queue}\0{receipt}".encode("utf-8", "surrogatepass")
    return hmac.new(secret, signed, hashlib.sha256).hexdigest()[:32]


def _is_signed(given: str, queue: str, secret: bytes) -> bool:
    receipt, _, signature = given.rpartition(".")
    made = _signature(receipt, queue, secret)
    return signature.isascii() and hmac.compare_digest(signature, made)
