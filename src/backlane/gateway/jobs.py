"""Jobs: what became of one, its result, and cancelling or running it again."""

from __future__ import annotations

import uuid
from datetime import datetime

import msgspec
from starlette.responses import Response

from backlane.engine.selection import Cancel, Redrive, Selection
from backlane.errors import BacklaneError, BadOption, nearest
from backlane.gateway import auth
from backlane.gateway.answer import JSON, answer
from backlane.gateway.declined import decline, misfit
from backlane.gateway.resource import resource_of
from backlane.gateway.site import WAIT_SECONDS, Exchange, Rule
from backlane.gateway.waiting import found, until
from backlane.model.ids import parse_id
from backlane.model.job import JobRecord, State
from backlane.model.outcome import Reason
from backlane.model.schedule import moment_ms

POLL_SECONDS = "1"  # hint: how soon to ask again
PAGE, MOST = 100, 1_000  # jobs of a page
READS = 10  # of 10,000 rows each: then the page is answered as it is, be it empty

# What jobs are found by: the field of a selection, and its type.
FIELDS: dict[str, tuple[str, object]] = {
    "state": ("states", tuple[State, ...]),
    "reason": ("reasons", tuple[Reason, ...]),
    "queue": ("queue", str),
    "task": ("task", str),
    "key": ("key", str),
    "group": ("group", str),
    "tag": ("tag", str),
    "workflow": ("workflow", uuid.UUID),
    "since": ("since_ms", datetime),
    "before": ("before_ms", datetime),
    "text": ("text", str),
}
LISTS = ("state", "reason")  # may come several times


async def show(exchange: Exchange) -> Response:
    """Show a job; with `wait` once it has ended, or changed since `revision`."""
    known = exchange.whole("revision", -1, 0, 999_999_999)
    seconds = exchange.number("wait", 0, WAIT_SECONDS)

    def is_enough(record: JobRecord) -> bool:
        return record.state.is_final or (0 <= known < record.revision)

    record = await found(exchange.site, job_id(exchange))
    check_job(exchange, "read", record)
    if seconds and not is_enough(record):
        record = await until(exchange.site, record.id, is_enough, seconds, exchange.receive)
    return _shown(record)


async def index(exchange: Exchange) -> Response:
    """Find jobs by all that is given of them, the newest first, in pages."""
    selection = _selection(exchange)
    narrowed = tuple(it for it in (selection.task, selection.queue) if it is not None)
    auth.check(exchange.caller, "read", narrowed)
    limit = exchange.whole("limit", PAGE, 1, MOST)
    given = exchange.query.get("cursor")
    try:
        cursor = None if given is None else bytes.fromhex(given)
    except ValueError:
        why = "cursor is not what a page before said is next"
        raise misfit(why, ("/cursor", why)) from None
    engine, records = exchange.app.engine, list[JobRecord]()
    for _ in range(READS):  # one reads a bounded part, and may find nothing in it
        page = await engine.arun(engine.find(selection, limit - len(records), cursor))
        records += page.records
        cursor = page.cursor
        if cursor is None or len(records) >= limit:
            break
    following = None if cursor is None else cursor.hex()
    return answer({"jobs": [resource_of(record) for record in records], "next": following})


async def result(exchange: Exchange) -> Response:
    """Answer with what the job's function returned, and nothing around it."""
    record = await found(exchange.site, job_id(exchange))
    check_job(exchange, "read", record)
    if record.state is not State.SUCCEEDED:
        _decline_result(record)
    if record.result is None:
        decline(
            410,
            "result-gone",
            "The result was not kept",
            f"job {exchange.param('job')} succeeded, and its task keeps no results",
        )
    return Response(record.result, media_type=JSON, headers={"Cache-Control": "no-store"})


async def cancel(exchange: Exchange) -> Response:
    """Cancel a job: at once while it waits, by asking it to stop while it runs."""
    record = await found(exchange.site, job_id(exchange))
    check_job(exchange, "operate", record)
    engine = exchange.app.engine
    await engine.arun(engine.amend(Selection(ids=(record.id,)), Cancel()))
    return _shown(await found(exchange.site, record.id))


async def retry(exchange: Exchange) -> Response:
    """Run a job again that failed, was cancelled or expired, its attempts counted anew."""
    record = await found(exchange.site, job_id(exchange))
    check_job(exchange, "operate", record)
    engine = exchange.app.engine
    amended = await engine.arun(engine.amend(Selection(ids=(record.id,)), Redrive()))
    if not amended.changed:
        why = amended.skipped[0].why if amended.skipped else "it is gone"
        decline(
            409,
            "not-redrivable",
            "The job cannot run again now",
            f"job {exchange.param('job')} is {record.state.value}: {why}",
            state=record.state.value,
        )
    return _shown(await found(exchange.site, record.id))


ROUTES = [
    Rule("GET", "/v1/jobs", index, "read"),
    Rule("GET", "/v1/jobs/{job}", show, "read"),
    Rule("GET", "/v1/jobs/{job}/result", result, "read"),
    Rule("POST", "/v1/jobs/{job}/cancel", cancel, "operate"),
    Rule("POST", "/v1/jobs/{job}/retry", retry, "operate"),
]


def _selection(exchange: Exchange) -> Selection:
    """Return which jobs the query asks for.

    Raises:
        Declined: names the parameter that cannot be, or that does not exist.
    """
    query = exchange.query
    for name in query:
        if name not in FIELDS and name not in ("limit", "cursor"):
            why = f"there is no {name[:50]!r}{nearest(name[:50], FIELDS)}"
            raise misfit(why, (f"/{name[:50]}", why))
    fields: dict[str, object] = {}
    for name, (field, type_) in FIELDS.items():
        given = query.getlist(name) if name in LISTS else query.get(name)
        if given:
            try:
                fields[field] = _converted(given, type_)
            except (ValueError, BacklaneError):  # msgspec's errors are among them
                why = f"{name} is {str(given)[:100]!r}, which it cannot be"
                raise misfit(why, (f"/{name}", why)) from None
    return Selection(**fields)  # type: ignore[arg-type]  # each was converted to its type


def _converted(given: object, type_: object) -> object:
    if type_ is uuid.UUID:
        return uuid.UUID(str(given)).bytes  # of another version: it is no workflow's, nothing is
    if type_ is datetime:
        return moment_ms(msgspec.convert(given, datetime, strict=False), "time")
    if isinstance(given, str):
        given.encode()  # half a character can be in no store
    return msgspec.convert(given, type_)


def job_id(exchange: Exchange) -> bytes:
    """Return the job that the path names.

    Raises:
        Declined: 404, for what is no job's id names no job.
    """
    given = exchange.param("job")
    try:
        return parse_id(given)
    except BadOption as error:
        decline(404, "unknown-job", "There is no such job", str(error))


def check_job(exchange: Exchange, scope: str, record: JobRecord) -> None:
    """Refuse a caller whose scope is narrowed to other tasks and queues than the job's."""
    names = (record.queue,) if record.task is None else (record.task, record.queue)
    auth.check(exchange.caller, scope, names)


def _shown(record: JobRecord) -> Response:
    headers = {} if record.state.is_final else {"Retry-After": POLL_SECONDS}
    return answer(resource_of(record), headers=headers)


def _decline_result(record: JobRecord) -> None:
    state = record.state
    if not state.is_final:
        decline(
            409,
            "not-finished",
            "The job has not finished",
            f"the job is {state.value}; ask again, or follow it: GET …/events",
            (("Retry-After", POLL_SECONDS),),
            state=state.value,
        )
    told = resource_of(record)
    decline(
        409,
        f"job-{state.value}",
        f"The job {'has' if state is State.EXPIRED else 'was' if state is State.CANCELLED else ''} "
        f"{state.value}".replace("  ", " "),
        "there is no result; run it again (POST …/retry) once the cause is gone",
        state=state.value,
        reason=told.reason,
        error=told.error,
    )
