"""Dead letters of a broker without a ledger: a queue's, as many at a time as one can hold."""

from __future__ import annotations

import time

import click

from backlane.cli.output import Output, age, count
from backlane.engine.bare import Bare
from backlane.engine.bare.dead import Dead
from backlane.engine.selection import Selection
from backlane.model.clock import SystemClock

REDRIVE_MOST = 100_000  # a call: what was sent back may die again meanwhile
BATCH = 100


def list_dead(engine: Bare, output: Output, selection: Selection, limit: int) -> None:
    """Print dead letters of one queue, the oldest first."""
    queue = _queue(engine, selection, "dead list")
    found = engine.run(engine.list_dead(queue, limit))
    if output.as_json:
        output.document(found)
    elif not found:
        output.line("no dead letters")
    else:
        now_ms = SystemClock().wall_ms()
        columns = ("id", "queue", "task", "reason", ">attempts", ">died", "last error")
        output.table(columns, [_row(each, now_ms) for each in found])


def redrive(engine: Bare, output: Output, selection: Selection, *, yes: bool) -> None:
    """Send all dead letters of one queue back to it."""
    queue = _queue(engine, selection, "dead redrive")
    if not yes:
        click.confirm(f"send the dead letters of {queue} back to it?", abort=True)
    went, began = 0, time.monotonic()
    while went < REDRIVE_MOST:
        number = engine.run(engine.redrive_dead(queue, BATCH))
        went += number
        if number < BATCH:
            break
    if output.as_json:
        output.document({"redriven": went})
        return
    output.line(f"{count(went, 'job')} will run again ({time.monotonic() - began:.1f} s)")


def _queue(engine: Bare, selection: Selection, command: str) -> str:
    """Return the queue that is selected, and refuse whatever else is: a broker cannot search.

    Raises:
        UsageError: no queue is named, or more than it.
    """
    if selection.queue is None or selection != Selection(queue=selection.queue):
        raise click.UsageError(
            f"{engine.url} has no ledger, and a broker cannot search: name one queue and nothing "
            f"else, as in `backlane {command} --queue mail`"
        )
    return selection.queue


def _row(dead: Dead, now_ms: int) -> tuple[str, ...]:
    return (
        dead.id or "-",
        dead.queue,
        dead.task or "(message)",
        dead.reason,
        str(dead.attempts),
        "-" if dead.at_ms is None else age(now_ms - dead.at_ms),
        dead.error,
    )
