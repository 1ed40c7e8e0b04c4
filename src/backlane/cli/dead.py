"""`backlane dead`: dead letters, what they died of, and running them again."""

from __future__ import annotations

import uuid

import click
import msgspec

from backlane.cli import bare, bulk
from backlane.cli.bulk import YES, Wish
from backlane.cli.output import Output, age
from backlane.cli.selection import selecting
from backlane.cli.store import Store, store_options
from backlane.cli.view import ErrorView, JobView, job_detail, job_view
from backlane.engine.bare import Bare
from backlane.engine.selection import Redrive, Selection
from backlane.model.clock import SystemClock
from backlane.model.job import JobRecord, State

FILTERS = ("queue", "task", "reasons", "text")


class DeadView(msgspec.Struct, frozen=True):
    """A dead letter with the error of its last attempt, if it left one."""

    job: JobView
    error: ErrorView | None


@click.group()
def dead() -> None:
    """List dead letters and run them again."""


@dead.command("list")
@selecting(*FILTERS)
@click.option(
    "--limit", type=click.IntRange(1, 1_000), metavar="N", default=20, help="Jobs at most."
)
@store_options
def list_(store: Store, output: Output, selection: Selection, limit: int) -> None:
    """List jobs that failed for good, the newest first, with their last error.

    Of a broker without a ledger: those of one queue, the oldest first.
    """
    if isinstance(store.engine, Bare):
        bare.list_dead(store.engine, output, selection, limit)
        return
    records = _dead(store, selection, limit)
    if output.as_json:
        output.document([_view(record) for record in records])
    elif not records:
        output.line("no dead letters")
    else:
        now_ms = SystemClock().wall_ms()
        columns = ("id", "queue", "task", "reason", ">attempts", ">died", "last error")
        output.table(columns, [_row(record, now_ms) for record in records])


def _dead(store: Store, selection: Selection, limit: int) -> list[JobRecord]:
    """Find dead letters, with the errors that only a look by id brings."""
    if selection.queue is not None:
        store.queue(selection.queue)
    ids: list[bytes] = []
    wanted, cursor = _failed(selection), None
    while True:
        page = store.run(store.engine.find(wanted, limit - len(ids), cursor))
        ids += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None or len(ids) >= limit:
            break
    if not ids:
        return []
    records = store.run(store.engine.find(Selection(ids=tuple(ids)), len(ids))).records
    return sorted(records, key=lambda record: ids.index(record.id))


def _failed(selection: Selection) -> Selection:
    return msgspec.structs.replace(selection, states=(State.FAILED,))


def _view(record: JobRecord) -> DeadView:
    errors = job_detail(record).errors
    return DeadView(job_view(record), errors[-1] if errors else None)


def _row(record: JobRecord, now_ms: int) -> tuple[str, ...]:
    last = record.errors[-1].error if record.errors else None
    return (
        str(uuid.UUID(bytes=record.id)),
        record.queue,
        record.task or "(message)",
        str(record.reason or ""),
        str(record.attempt),
        "-" if record.ended_ms is None else age(now_ms - record.ended_ms),
        f"{last.kind}: {last.message}" if last else "",
    )


@dead.command("redrive")
@selecting("ids", *FILTERS)
@click.option("--all", "every", is_flag=True, help="Every dead letter of the store.")
@YES
@store_options
def redrive(store: Store, output: Output, selection: Selection, every: bool, yes: bool) -> None:
    """Run dead letters again, their attempts counted anew.

    Name them by id, select them, or say --all. Of a broker without a ledger: all of one queue.
    """
    if isinstance(store.engine, Bare):
        bare.redrive(store.engine, output, selection, yes=yes)
        return
    if every and selection != Selection():
        raise click.UsageError("--all means every dead letter; leave the selection out")
    if not every and selection == Selection():
        raise click.UsageError("say which dead letters: ids, options that select them, or --all")
    # By id, `jobs retry` and this do the same: a job that is not dead is told as skipped.
    wanted = selection if selection.ids else _failed(selection)
    bulk.run(store, output, wanted, Wish(Redrive(), "redrive", "will run again"), yes=yes)
