"""Letters of a brokered engine: a message that names a job, and nothing else of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from backlane.engine import wire
from backlane.engine.offering import Carried
from backlane.engine.transport import Delivery, Parcel
from backlane.errors import Undecodable
from backlane.model.queue import Kind

# As `wire.named` writes it. What is written otherwise is read letter by letter.
_NAMED = re.compile(
    rb'\{"v":1,"id":"([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})",'
    rb'"at":(\d{1,15})\}'
).fullmatch

_NO_HEADERS: Mapping[str, str] = {}


def parcel(job: Carried, kind: Kind, at_ms: int) -> Parcel:
    """Return the message of a job that is offered at that time."""
    body = wire.named(job.job, at_ms)
    # Any body may be a raw message, so there it says in the header that it is none.
    headers = {wire.HEADER: body.decode()} if kind is Kind.MESSAGES else _NO_HEADERS
    return Parcel(wire.id_text(job.job), body, headers, job.group)


def named(delivery: Delivery, kind: Kind) -> tuple[bytes, int] | None:
    """Return the job that a message names and the time of its offer; None: it is not ours."""
    body = delivery.body
    if kind is Kind.MESSAGES and delivery.headers.get(wire.HEADER, "").encode() != body:
        return None
    found = _NAMED(body)
    if found is not None:
        return bytes.fromhex(b"".join(found.groups()[:5]).decode()), int(found[6])
    if kind is Kind.MESSAGES or len(body) > 4_096:
        return None
    try:
        letter = wire.read(body)
    except Undecodable:
        return None
    return (letter.job, letter.at or 0) if letter.is_reference else None
