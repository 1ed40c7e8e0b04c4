"""`backlane limits`: how many jobs run at a time or begin in a time, and tuning it."""

from __future__ import annotations

import click
import msgspec

from backlane.cli.output import Output
from backlane.cli.store import Store, store_options
from backlane.engine.limiting import Tuned
from backlane.errors import BadOption, UnknownLimit, nearest
from backlane.limits import UNCHANGED, Unchanged, Wish
from backlane.model import limit as stored
from backlane.model.limit import LimitRecord
from backlane.model.limiting import RateOption, limit_text, rate_text


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as `--json` shows it: fields are only ever added."""

    name: str
    concurrency: int | None  # in force, as `rate` and `burst`
    rate: str | None
    burst: int | None
    per_group: bool
    declared: str
    tuned: str | None
    running: int
    blocked: int


def limit_view(record: LimitRecord) -> LimitView:
    """Return what is shown of a limit."""
    limit, tuned = record.limit, record.tuned
    return LimitView(
        name=record.name,
        concurrency=limit.concurrency,
        rate=rate_text(limit.rate) if limit.rate else None,
        burst=limit.rate.burst if limit.rate else None,
        per_group=limit.per_group,
        declared=limit_text(record.declared),
        tuned=None if tuned is None else limit_text(tuned),
        running=record.running,
        blocked=record.blocked,
    )


@click.group()
def limits() -> None:
    """List limits, and tune them at run time."""


@limits.command("list")
@store_options
def list_(store: Store, output: Output) -> None:
    """List all limits: what is in force, and how many jobs run and wait under each."""
    records = store.run(store.engine.list_limits())
    if output.as_json:
        output.document([limit_view(record) for record in records])
    elif not records:
        output.line("no limits: no job was enqueued here that is under one")
    else:
        columns = ("limit", "in force", ">running", ">blocked", "tuned")
        output.table(columns, [_row(record) for record in records])


def _row(record: LimitRecord) -> tuple[str, ...]:
    return (
        record.name,
        limit_text(record.limit),
        f"{record.running:,}",
        f"{record.blocked:,}",
        "" if record.tuned is None else f"instead of: {limit_text(record.declared)}",
    )


@limits.command("tune")
@click.argument("name", metavar="LIMIT")
@click.option("--concurrency", metavar="N", help="The most at a time, or 'none'.")
@click.option("--rate", metavar="RATE", help="As '100/s', '10/m' or '5/h', or 'none'.")
@click.option(
    "--burst", type=click.IntRange(1), metavar="N", help="Of the rate: this many at once."
)
@click.option("--reset", is_flag=True, help="Forget what was tuned: as the code declares.")
@store_options
def tune(  # long: each is an option of the command
    store: Store,
    output: Output,
    name: str,
    concurrency: str | None,
    rate: str | None,
    burst: int | None,
    reset: bool,
) -> None:
    """Set a limit in all processes, before what the code declares, until it is reset.

    `task:<task>` is the limit of a task, `queue:<queue>` that of a queue; any queue can be
    given one. What runs beyond a lowered concurrency runs on.
    """
    known = {record.name: record for record in store.run(store.engine.list_limits())}
    if reset:
        if (concurrency, rate, burst) != (None, None, None):
            raise click.UsageError("--reset forgets what was tuned; give it alone")
        change = Tuned(None)
    else:
        wish = Wish(_concurrency(concurrency), _rate(rate), burst)
        change = Tuned(wish.applied(known[name].limit if name in known else stored.Limit()))
    record = store.run(store.engine.regulate(name, change))
    if record is None:
        raise UnknownLimit(
            f"no limit {name!r} in {store.engine.url}{nearest(name, known)}: it is made by the "
            "first job that is under it, or by a worker of the application that declares it"
        )
    if output.as_json:
        output.document(limit_view(record))
    else:
        output.line(f"limit {record.name}: {limit_text(record.limit)}")


def _rate(given: str | None) -> RateOption | Unchanged | None:
    return UNCHANGED if given is None else None if given == "none" else given


def _concurrency(given: str | None) -> int | Unchanged | None:
    if given is None:
        return UNCHANGED
    if given == "none":
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= 10):
        raise BadOption(f"--concurrency is {given!r}; use a whole number from 1, or 'none'")
    return int(given)
