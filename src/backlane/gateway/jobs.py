"""Jobs: what became of one, its result, and cancelling or running it again."""

from __future__ import annotations

from starlette.responses import Response

from backlane.engine.selection import Cancel, Redrive, Selection
from backlane.errors import BadOption
from backlane.gateway import auth
from backlane.gateway.answer import JSON, answer
from backlane.gateway.declined import decline
from backlane.gateway.resource import resource_of
from backlane.gateway.site import WAIT_SECONDS, Exchange, Rule
from backlane.gateway.waiting import found, until
from backlane.model.ids import parse_id
from backlane.model.job import JobRecord, State

POLL_SECONDS = "1"  # hint: how soon to ask again


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
    Rule("GET", "/v1/jobs/{job}", show, "read"),
    Rule("GET", "/v1/jobs/{job}/result", result, "read"),
    Rule("POST", "/v1/jobs/{job}/cancel", cancel, "operate"),
    Rule("POST", "/v1/jobs/{job}/retry", retry, "operate"),
]


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
