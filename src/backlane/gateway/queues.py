"""Queues: how full they are, how fast, and steering them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response

from backlane.engine.protocol import Tune
from backlane.errors import UnknownQueue, nearest
from backlane.gateway.answer import answer
from backlane.gateway.body import fitting
from backlane.gateway.site import Exchange, Rule
from backlane.gateway.speed import Speed
from backlane.model.event import QueueChanged
from backlane.model.queue import Bounds, QueueRecord


class DepthResource(msgspec.Struct, frozen=True):
    """The jobs of a queue by state, and their bytes."""

    jobs: int
    scheduled: int
    ready: int
    running: int
    blocked: int
    bytes: int


class BoundsResource(msgspec.Struct, frozen=True):
    """The most a queue holds; `max_wait` in seconds."""

    max_jobs: int | None
    max_bytes: int | None
    max_wait: float | None
    group_share: float | None


class CountersResource(msgspec.Struct, frozen=True):
    """What became of its jobs since the queue was made."""

    appended: int
    started: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    retried: int


class QueueResource(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as the gateway shows it; durations are seconds, rates jobs a second."""

    name: str
    kind: str
    paused: bool
    depth: DepthResource
    bounds: BoundsResource  # in force
    tuned: BoundsResource  # set at run time; null where nothing was
    oldest_ready_age: float | None
    pressure: float | None = None
    expected_wait: float | None = None
    service_rate: float | None = None
    arrival_rate: float | None = None
    counters: CountersResource


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to set at run time; `max_wait` of null lifts it, `reset` first forgets all."""

    max_jobs: Annotated[int, Meta(ge=1, le=2**62)] | UnsetType = UNSET
    max_bytes: Annotated[int, Meta(ge=1, le=2**62)] | UnsetType = UNSET
    max_wait: Annotated[float, Meta(gt=0, le=3155760000)] | UnsetType | None = UNSET
    group_share: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    reset: bool = False


async def index(exchange: Exchange) -> Response:
    """List the queues that the caller may read."""
    speeds = await exchange.site.speeds.read(anew=True)
    seen = [it for it in speeds if exchange.caller.allows("read", (it.record.name,))]
    return answer({"queues": [shown(it.record, it) for it in seen]})


async def show(exchange: Exchange) -> Response:
    """Show one queue."""
    name = exchange.param("queue")
    speeds = await exchange.site.speeds.read(anew=True)
    for it in speeds:
        if it.record.name == name:
            return answer(shown(it.record, it))
    raise _unknown(name, [it.record.name for it in speeds])


async def pause(exchange: Exchange) -> Response:
    """Give its jobs to no worker until it is resumed."""
    return await _tuned(exchange, Tune(paused=True), "paused")


async def resume(exchange: Exchange) -> Response:
    """Give its jobs to workers again."""
    return await _tuned(exchange, Tune(paused=False), "resumed")


async def tune(exchange: Exchange) -> Response:
    """Set its bounds at run time."""
    asked = fitting(_decode, exchange.headers, exchange.body)
    change = Tune(
        max_jobs=asked.max_jobs or None,
        max_bytes=asked.max_bytes or None,
        max_wait_ms=_wait_ms(asked.max_wait),
        group_share=asked.group_share or None,
        reset=asked.reset,
    )
    return await _tuned(exchange, change, "tuned")


ROUTES = [
    Rule("GET", "/v1/queues", index, "read"),
    Rule("GET", "/v1/queues/{queue}", show, "read"),
    Rule("PATCH", "/v1/queues/{queue}", tune, "operate"),
    Rule("POST", "/v1/queues/{queue}/pause", pause, "operate"),
    Rule("POST", "/v1/queues/{queue}/resume", resume, "operate"),
]

_decode = msgspec.json.Decoder(Tuning).decode


def _wait_ms(given: float | UnsetType | None) -> int | None:
    if given is UNSET:
        return None
    return 0 if given is None else max(1, round(given * 1000))


async def _tuned(exchange: Exchange, change: Tune, what: str) -> Response:
    engine, name = exchange.app.engine, exchange.param("queue")
    record = await engine.arun(engine.tune(name, change))
    if record is None:
        raise _unknown(name, [])
    exchange.app.observers.tell(QueueChanged(name, what))
    return answer(shown(record))


def _unknown(name: str, known: list[str]) -> UnknownQueue:
    return UnknownQueue(
        f"the store holds no queue {name[:128]!r}{nearest(name[:128], known)}: it is made by the "
        "first job or message, or by the first worker that serves it"
    )


def shown(record: QueueRecord, speed: Speed | None = None) -> QueueResource:
    """Return what is shown of a queue, with its speed where that was asked for."""
    depth, age = record.depth, record.oldest_ready_ms
    return QueueResource(
        name=record.name,
        kind=record.kind.value,
        paused=record.paused,
        depth=DepthResource(
            depth.jobs, depth.scheduled, depth.ready, depth.running, depth.blocked, depth.bytes
        ),
        bounds=_bounds(record.bounds),
        tuned=BoundsResource(
            record.tuned_max_jobs,
            record.tuned_max_bytes,
            _seconds(record.tuned_max_wait_ms),
            record.tuned_group_share,
        ),
        oldest_ready_age=_seconds(age),
        pressure=None if speed is None else speed.pressure,
        expected_wait=None if speed is None else speed.expected_wait,
        service_rate=None if speed is None else speed.meter.mu,
        arrival_rate=None if speed is None else speed.meter.arrivals,
        counters=CountersResource(
            appended=record.appended,
            started=record.started,
            succeeded=record.succeeded,
            failed=record.failed,
            cancelled=record.cancelled,
            expired=record.expired,
            retried=record.retried,
        ),
    )


def _bounds(bounds: Bounds) -> BoundsResource:
    return BoundsResource(
        bounds.max_jobs, bounds.max_bytes, _seconds(bounds.max_wait_ms), bounds.group_share
    )


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
