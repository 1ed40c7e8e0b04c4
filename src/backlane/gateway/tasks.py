"""Tasks: a call over HTTP becomes a job, its arguments checked by the task's annotations.

    POST /v1/tasks/{task}/jobs   {"arguments": {"user_id": 7}, "delay": 60}

This is the gateway's hot path. What a plain submission takes is: one decoding of the body,
the enqueue, one encoding of the answer.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from backlane.enqueuer import Enqueuer
from backlane.errors import (
    BacklaneError,
    Duplicate,
    JobNotFound,
    Undecodable,
    Unencodable,
    UnknownTask,
    nearest,
)
from backlane.gateway import auth
from backlane.gateway.answer import Plain, encode
from backlane.gateway.body import fitting
from backlane.gateway.declined import Declined, misfit
from backlane.gateway.idempotency import idempotency_key, ticket
from backlane.gateway.pointer import pointer
from backlane.gateway.resource import JobResource, moment, resource_of
from backlane.gateway.site import LONGEST_SECONDS, WAIT_SECONDS, Exchange, Reply, Rule, Site
from backlane.gateway.waiting import until
from backlane.handle import JobHandle
from backlane.model.job import JobRecord, State
from backlane.options import TAG_LIMIT, TAGS_MOST
from backlane.task import Task

AnyTask = Task[..., Any, Any]

Text = Annotated[str, Meta(min_length=1, max_length=256)]
Tag = Annotated[str, Meta(min_length=1, max_length=TAG_LIMIT)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_SECONDS)]


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The body of a submission: the arguments by name, and the options of an enqueue."""

    # By a factory, for a schema cannot tell of a raw default.
    arguments: Raw = msgspec.field(default_factory=lambda: Raw(b"{}"))
    id: str | None = None
    queue: str | None = None
    delay: Seconds | None = None
    at: Annotated[datetime, Meta(tz=True)] | None = None
    expires: Seconds | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    key: Text | None = None
    group: Text | None = None
    headers: dict[Annotated[str, Meta(min_length=1)], str] | None = None
    tags: Annotated[list[Tag], Meta(max_length=TAGS_MOST)] | None = None


OPTIONS = Submission.__struct_fields__[1:]
NO_OPTIONS = Submission()

_decode = msgspec.json.Decoder(Submission).decode


async def submit(exchange: Exchange) -> Reply:
    """Make a job of a call, and answer with it: what it is now, or with `wait` its result."""
    site = exchange.site
    task = _task(exchange)
    body = exchange.body
    asked = fitting(_decode, exchange.headers, body) if body else NO_OPTIONS
    args, kwargs = arguments_of(task, asked.arguments)
    options = _options(exchange, task, asked)
    handle = await _enqueued(site, task, args, kwargs, options)
    prefer = exchange.header(b"prefer") or ""
    wait = _wanted_wait(prefer) if prefer else 0.0
    if handle.is_new and not wait:  # of an older job the state has to be read
        return _accepted(exchange, handle, _fresh(site, task, handle, asked), prefer)
    try:
        record = await until(site, handle.id.bytes, _is_final, wait, exchange.receive)
    except JobNotFound:  # a key outlives its job: the answer is what the first one got
        return _accepted(exchange, handle, _fresh(site, task, handle, asked), prefer)
    _check_same(exchange, task, record)
    if wait and record.state.is_final:
        applied = (b"preference-applied", b"wait=%d" % wait)
        return Plain(200, encode(resource_of(record)), [applied])
    return _accepted(exchange, handle, resource_of(record, _expected(handle)), prefer)


ROUTES = [Rule("POST", "/v1/tasks/{task}/jobs", submit, "submit")]


def _is_final(record: JobRecord) -> bool:
    return record.state.is_final


# -- what is asked for --


def _task(exchange: Exchange) -> AnyTask:
    name = exchange.param("task")
    tasks = exchange.app.tasks
    task = tasks.get(name)
    auth.check(exchange.caller, "submit", (name,) if task is None else (name, task.queue))
    if task is None:
        raise UnknownTask(
            f"no task {name[:128]!r} in this application{nearest(name[:128], tasks)}; "
            "GET /openapi.json lists them"
        )
    return task


def arguments_of(task: AnyTask, raw: Raw) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a call is made of, or decline it, naming what does not fit."""
    body = bytes(raw)
    try:
        return task.codec.decode_arguments(body)
    except Undecodable:
        found_ = task.codec.misfits(body)
        told = [(pointer(each.path, "/arguments"), each.why) for each in found_]
        what = "; ".join(f"{where}: {why}" for where, why in told[:3])
        raise misfit(f"these are no arguments of task {task.name!r}: {what}", *told) from None


def _options(exchange: Exchange, task: AnyTask, submission: Submission) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if submission is not NO_OPTIONS:
        for name in OPTIONS:
            value = getattr(submission, name)
            if value is not None:
                options[name] = value
    if (queue := options.get("queue")) is not None:
        check_queue(exchange, task, queue)
    if b"idempotency-key" in exchange.headers:
        options |= idempotency_key(exchange)
    if b"backlane-ticket" in exchange.headers:
        options |= ticket(exchange)
    return options


def check_queue(exchange: Exchange, task: AnyTask, queue: str) -> None:
    """Decline a queue that is not declared, or that the caller may not submit to."""
    queues = exchange.app.queues
    if queue not in queues:  # no worker would ever serve it
        why = f"no queue {queue[:128]!r} is declared{nearest(queue[:128], queues)}"
        raise misfit(why, ("/queue", why))
    if queue != task.queue:
        auth.check(exchange.caller, "submit", (queue,))


_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def _wanted_wait(prefer: str) -> float:
    """Return the seconds that `Prefer: wait=…` asks for; what is no number is ignored."""
    asked = _WAIT.search(prefer)
    return min(float(asked[1]), WAIT_SECONDS) if asked else 0.0


def _check_same(exchange: Exchange, task: AnyTask, record: JobRecord) -> None:
    """Refuse to show the job of another task, whose id or key the caller has given."""
    if record.task != task.name:
        first = uuid.UUID(bytes=record.id)
        raise Duplicate(f"job {first} is not one of task {task.name!r}; use another id", first)
    auth.check(exchange.caller, "submit", (task.name, record.queue))


# -- the enqueue --


async def _enqueued(
    site: Site,
    task: AnyTask,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: dict[str, Any],
) -> JobHandle[Any]:
    enqueuer = _enqueuer(site, task, options)
    try:
        return await enqueuer.aenqueue(*args, **kwargs)
    except Unencodable as error:
        raise misfit(str(error), ("/arguments", str(error))) from None


def _enqueuer(site: Site, task: AnyTask, options: dict[str, Any]) -> Enqueuer[..., Any]:
    refusing = site.enqueuers.get(task.name)
    if refusing is None:
        # A request that waited for room would hold its connection; its client waits better.
        refusing = site.enqueuers[task.name] = task.using(on_full="refuse")
    if not options:
        return refusing
    try:
        return refusing.using(**options)
    except BacklaneError as error:
        raise _blamed(refusing, options, error) from None


def _blamed(
    enqueuer: Enqueuer[..., Any], options: Mapping[str, Any], error: BacklaneError
) -> Declined:
    """Return the answer that names which option cannot work."""
    for name, value in options.items():
        try:
            enqueuer.using(**{name: value})
        except BacklaneError as its_own:
            return misfit(str(its_own), (f"/{name}", str(its_own)))
    return misfit(str(error))


# -- the answer --


def _fresh(site: Site, task: AnyTask, handle: JobHandle[Any], asked: Submission) -> JobResource:
    """Return a job as it is just after it was stored, as its record says it, without reading it.

    Of one that was there already and is there no more, the receipt tells no time.
    """
    receipt = handle.receipt
    if receipt is not None and receipt.is_new:
        now, due = receipt.enqueued_ms, receipt.due_ms
    else:
        now = site.app.clock.wall_ms()
        due = now + _delay_ms(asked, now)
    enqueued_at = moment(now)
    expires_ms = task.expires_ms if asked.expires is None else round(asked.expires * 1000)
    return JobResource(
        id=str(handle.id),
        task=task.name,
        queue=asked.queue or task.queue,
        state=State.READY if due == now else State.SCHEDULED,
        priority=task.priority if asked.priority is None else asked.priority,
        enqueued_at=enqueued_at,
        due_at=enqueued_at if due == now else moment(due),
        expires_at=None if expires_ms is None else moment(now + expires_ms),
        group=asked.group,
        key=asked.key,
        resource=task.resource,
        expected_wait=_expected(handle),
    )


def _delay_ms(asked: Submission, now: int) -> int:
    if asked.delay is not None:
        return round(asked.delay * 1000)
    return 0 if asked.at is None else max(0, int(asked.at.timestamp() * 1000) - now)


def _expected(handle: JobHandle[Any]) -> float | None:
    wait = handle.expected_wait
    return None if wait is None else wait.total_seconds()


def _accepted(exchange: Exchange, handle: JobHandle[Any], job: JobResource, prefer: str) -> Reply:
    location = exchange.place(f"/v1/jobs/{job.id}").encode("ascii")
    headers = [(b"location", location), (b"retry-after", b"1")]  # how soon to ask again
    if handle.pressure is not None:
        headers.append((b"backlane-pressure", b"%.2f" % handle.pressure))
    if "respond-async" in prefer:
        headers.append((b"preference-applied", b"respond-async"))
    return Plain(202, encode(job), headers)
