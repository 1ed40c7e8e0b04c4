"""`backlane jobs`: look at jobs, and change what becomes of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime

import click
import msgspec

from backlane.cli import bulk
from backlane.cli.bulk import YES
from backlane.cli.output import Output, age, count
from backlane.cli.selection import selecting
from backlane.cli.store import JOB_ID, Store, store_options
from backlane.cli.view import JobDetail, JobView, job_detail, job_view
from backlane.engine.selection import Cancel, Delete, Redrive, Selection
from backlane.errors import BadOption
from backlane.model.clock import SystemClock
from backlane.model.job import JobRecord

FILTERS = (
    *("queue", "task", "states", "reasons", "key", "group", "tag", "workflow"),
    *("since_ms", "before_ms", "text"),
)


class JobsView(msgspec.Struct, frozen=True):
    """A page of jobs; `next` is what `--after` takes to go on."""

    jobs: list[JobView]
    next: str | None


@click.group()
def jobs() -> None:
    """List, show, retry, cancel and delete jobs."""


@jobs.command("list")
@selecting(*FILTERS)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), metavar="N", default=20, help="Jobs at most."
)
@click.option("--after", metavar="CURSOR", help="Go on where a list ended.")
@store_options
def list_(
    store: Store, output: Output, selection: Selection, limit: int, after: str | None
) -> None:
    """List jobs, the newest first."""
    if selection.queue is not None:
        store.queue(selection.queue)  # a misspelt name is told, not an empty list
    records, cursor = _page(store, selection, limit, _cursor(after))
    following = None if cursor is None else cursor.hex()
    if output.as_json:
        output.document(JobsView([job_view(record) for record in records], following))
        return
    now_ms = SystemClock().wall_ms()
    columns = ("id", "queue", "task", "state", ">attempts", ">enqueued", "note")
    output.table(columns, [_row(record, now_ms) for record in records])
    if not records:
        output.line("no jobs")
    if following is not None:
        output.line(f"there are more: --after {following}")


def _page(
    store: Store, selection: Selection, limit: int, cursor: bytes | None
) -> tuple[list[JobRecord], bytes | None]:
    """Read until the page is full or nothing is left: one call reads a bounded part."""
    records: list[JobRecord] = []
    while True:
        page = store.run(store.engine.find(selection, limit - len(records), cursor))
        records += page.records
        cursor = page.cursor
        if cursor is None or len(records) >= limit:
            return records, cursor


def _cursor(after: str | None) -> bytes | None:
    try:
        return None if after is None else bytes.fromhex(after)
    except ValueError as error:
        raise BadOption(f"--after {after!r} is not what a list ended with") from error


def _row(record: JobRecord, now_ms: int) -> tuple[str, ...]:
    return (
        str(uuid.UUID(bytes=record.id)),
        record.queue,
        record.task or "(message)",
        str(record.state),
        str(record.attempt),
        age(now_ms - record.enqueued_ms),
        _note(record, now_ms),
    )


def _note(record: JobRecord, now_ms: int) -> str:
    """Return the one thing worth knowing of a job in its state."""
    if record.reason is not None:
        return str(record.reason)
    if record.cancelling:
        return "asked to stop"
    if record.progress is not None and not record.state.is_final:
        done, message = record.progress.fraction, record.progress.message
        return " ".join(([] if done is None else [f"{done:.0%}"]) + ([message] if message else []))
    if record.state == "scheduled" and record.due_ms is not None:
        return f"due in {age(record.due_ms - now_ms)}"
    if record.state == "blocked":
        return waited_for(record.blocked_on, record.waits_for)
    return ""


def waited_for(limit: str | None, jobs: int) -> str:
    """Return what a blocked job waits for; "": nothing."""
    if limit is not None:
        return f"limit {limit}"
    return f"{count(jobs, 'job')}" if jobs else ""


@jobs.command("show")
@click.argument("job_id", metavar="ID", type=JOB_ID)
@store_options
def show(store: Store, output: Output, job_id: bytes) -> None:
    """Show all that is known of one job: arguments, result, progress, errors."""
    detail = job_detail(store.job(job_id))
    if output.as_json:
        output.document(detail)
        return
    for line in _detail_lines(detail):
        output.line(line)


def _detail_lines(job: JobDetail) -> Iterator[str]:
    """Yield what is set, one field a line, and the errors below."""
    fields = [
        ("id", str(job.id)),
        ("task", job.task),
        ("queue", job.queue),
        ("state", _state(job)),
        ("waits for", waited_for(job.blocked_on, job.waits_for) or None),
        ("attempts", f"{job.attempts} of {job.max_attempts}"),
        ("priority", str(job.priority)),
        ("enqueued", _time(job.enqueued_at)),
        ("due", _time(job.due_at)),
        ("started", _time(job.started_at)),
        ("ended", _time(job.ended_at)),
        ("expires", _time(job.expires_at)),
        ("worker", job.worker),
        ("progress", _progress(job)),
        ("key", job.key),
        ("group", job.group),
        ("tags", ", ".join(job.tags) or None),
        ("workflow", str(job.workflow) if job.workflow else None),
        ("parent", str(job.parent) if job.parent else None),
        ("headers", _json(job.headers) if job.headers else None),
        ("arguments", _json(job.arguments) if job.arguments is not None else None),
        ("text", job.text),
        ("base64", job.base64),
        ("result", _json(job.result) if job.has_result else None),
    ]
    shown = [(name, value) for name, value in fields if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        yield f"{name:>{width}}  {value}"
    for error in job.errors:
        yield ""
        print_ = f" ({error.fingerprint})" if error.fingerprint else ""
        yield f"attempt {error.attempt}, {_time(error.at)}: {error.kind}{print_}"
        yield from (f"    {line}" for line in (error.traceback or error.message).splitlines())


def _state(job: JobDetail) -> str:
    if job.cancelling:
        return f"{job.state}, asked to stop"
    return f"{job.state} ({job.reason})" if job.reason else job.state


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _progress(job: JobDetail) -> str | None:
    parts = ([] if job.progress is None else [f"{job.progress:.0%}"]) + (
        [job.progress_message] if job.progress_message else []
    )
    return " ".join(parts) or None


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


# -- changes --


@jobs.command("retry")
@selecting("ids", *FILTERS)
@YES
@store_options
def retry(store: Store, output: Output, selection: Selection, yes: bool) -> None:
    """Make failed, cancelled and expired jobs ready again; bring scheduled ones forward.

    Attempts are counted anew.
    """
    bulk.run(store, output, selection, bulk.Wish(Redrive(), "retry", "will run again"), yes=yes)


@jobs.command("cancel")
@selecting("ids", *FILTERS)
@YES
@store_options
def cancel(store: Store, output: Output, selection: Selection, yes: bool) -> None:
    """Cancel jobs: waiting ones end at once, running ones are asked to stop."""
    bulk.run(store, output, selection, bulk.Wish(Cancel(), "cancel", "cancelled"), yes=yes)


@jobs.command("delete")
@selecting("ids", *FILTERS)
@YES
@store_options
def delete(store: Store, output: Output, selection: Selection, yes: bool) -> None:
    """Forget jobs that are not running, with their history."""
    bulk.run(store, output, selection, bulk.Wish(Delete(), "delete", "deleted"), yes=yes)
