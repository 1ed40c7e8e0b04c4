"""Limits: what is in force, what runs and waits under each, and tuning them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response

from backlane.engine.limiting import Tuned
from backlane.errors import UnknownLimit, nearest
from backlane.gateway import auth
from backlane.gateway.answer import answer
from backlane.gateway.body import fitting
from backlane.gateway.site import Exchange, Rule
from backlane.limits import UNCHANGED, Wish
from backlane.model import limit as stored
from backlane.model.limit import LimitRecord
from backlane.model.limiting import RATE, rate_text


class LimitNumbers(msgspec.Struct, frozen=True):
    """How many at a time, and how fast; null: any number."""

    concurrency: int | None
    rate: str | None
    burst: int | None


class LimitResource(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as the gateway shows it, over all groups."""

    name: str
    per_group: bool
    limit: LimitNumbers  # in force
    declared: LimitNumbers  # by the code
    tuned: LimitNumbers | None  # set at run time
    running: int
    blocked: int


class LimitTuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to set at run time; null lifts a number, `reset` forgets all that was set."""

    concurrency: Annotated[int, Meta(ge=1, le=2**31)] | UnsetType | None = UNSET
    rate: Annotated[str, Meta(pattern=f"^{RATE.pattern}$")] | UnsetType | None = UNSET
    burst: Annotated[int, Meta(ge=1, le=2**31)] | UnsetType = UNSET
    reset: bool = False


# What is asked for is something, and a burst is a part of a rate.
CHANGES: Sequence[dict[str, Any]] = (
    {"required": ["rate"], "properties": {"rate": {"type": "string"}}},
    {"required": ["rate"], "properties": {"burst": False}},
    {"required": ["concurrency"], "properties": {"burst": False}},
    {"required": ["burst"], "properties": {"rate": False}},
    {"required": ["reset"], "properties": {"reset": {"const": True}}},
)


async def index(exchange: Exchange) -> Response:
    """List the limits."""
    auth.check(exchange.caller, "read")  # of everything: a limit may be that of many queues
    engine = exchange.app.engine
    return answer({"limits": [shown(it) for it in await engine.arun(engine.list_limits())]})


async def tune(exchange: Exchange) -> Response:
    """Set a limit at run time."""
    auth.check(exchange.caller, "operate")
    asked = fitting(_decode, exchange.headers, exchange.body)
    engine, name = exchange.app.engine, exchange.param("limit")
    known = {record.name: record for record in await engine.arun(engine.list_limits())}
    before = known[name].limit if name in known else stored.Limit()
    change = Tuned(None if asked.reset else _applied(asked, before))
    record = await engine.arun(engine.regulate(name, change))
    if record is None:
        raise UnknownLimit(
            f"the store has no limit {name[:128]!r}{nearest(name[:128], known)}: it is made by the "
            "first job that is under it, or by a worker of the application that declares it"
        )
    return answer(shown(record))


ROUTES = [
    Rule("GET", "/v1/limits", index, "read"),
    Rule("PATCH", "/v1/limits/{limit}", tune, "operate"),
]

_decode = msgspec.json.Decoder(LimitTuning).decode


def _applied(asked: LimitTuning, before: stored.Limit) -> stored.Limit:
    return Wish(
        UNCHANGED if asked.concurrency is UNSET else asked.concurrency,
        UNCHANGED if asked.rate is UNSET else asked.rate,
        None if asked.burst is UNSET else asked.burst,
    ).applied(before)


def shown(record: LimitRecord) -> LimitResource:
    """Return what is shown of a limit."""
    return LimitResource(
        name=record.name,
        per_group=record.limit.per_group,
        limit=_numbers(record.limit),
        declared=_numbers(record.declared),
        tuned=None if record.tuned is None else _numbers(record.tuned),
        running=record.running,
        blocked=record.blocked,
    )


def _numbers(limit: stored.Limit) -> LimitNumbers:
    rate = limit.rate
    return LimitNumbers(
        limit.concurrency, rate_text(rate) if rate else None, rate.burst if rate else None
    )
