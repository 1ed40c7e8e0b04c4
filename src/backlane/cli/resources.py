"""`backlane resources`: what jobs depend on, and whether it stands or is down."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import msgspec

from backlane.cli.output import Output, age
from backlane.cli.store import Store, store_options
from backlane.engine.protocol import Close, Open
from backlane.errors import UnknownResource, nearest
from backlane.model.breaker import ResourceRecord
from backlane.model.retry import milliseconds

NAMES = click.argument("names", nargs=-1, required=True, metavar="RESOURCE...")


class ResourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as `--json` shows it: fields are only ever added."""

    name: str
    state: str
    since: datetime | None
    reason: str | None
    next_trial_seconds: float | None
    succeeded: int
    failed: int
    trips: int


def resource_view(record: ResourceRecord) -> ResourceView:
    """Return what is shown of a resource."""
    wait_ms = record.opens_in_ms
    return ResourceView(
        name=record.name,
        state=record.state,
        since=_moment(record.since_ms),
        reason=record.reason,
        next_trial_seconds=None if wait_ms is None else wait_ms / 1000,
        succeeded=record.succeeded,
        failed=record.failed,
        trips=record.trips,
    )


def _moment(wall_ms: int) -> datetime | None:
    return datetime.fromtimestamp(wall_ms / 1000, UTC) if wall_ms else None


@click.group()
def resources() -> None:
    """List resources, pause and resume the jobs that depend on them."""


@resources.command("list")
@store_options
def list_(store: Store, output: Output) -> None:
    """List all resources: how each stands and why, and when it is tried again."""
    records = store.run(store.engine.list_resources())
    if output.as_json:
        output.document([resource_view(record) for record in records])
    elif not records:
        output.line("no resources: no job was enqueued here that depends on one")
    else:
        columns = ("resource", "state", ">next trial", ">succeeded", ">failed", ">trips", "reason")
        output.table(columns, [_row(record) for record in records])


def _row(record: ResourceRecord) -> tuple[str, ...]:
    return (
        record.name,
        record.state,
        "-" if record.opens_in_ms is None else f"in {age(record.opens_in_ms)}",
        f"{record.succeeded:,}",
        f"{record.failed:,}",
        f"{record.trips:,}",
        record.reason or "",
    )


@resources.command("open")
@NAMES
@click.option(
    "--for",
    "seconds",
    type=float,
    metavar="SECONDS",
    help="Then try a few jobs; until `close`, unless given.",
)
@store_options
def open_(store: Store, output: Output, names: tuple[str, ...], seconds: float | None) -> None:
    """Stop giving out the jobs of these resources. Enqueuing goes on; running jobs finish."""
    _steer(store, output, names, Open(None if seconds is None else milliseconds(seconds, "--for")))


@resources.command("close")
@NAMES
@store_options
def close(store: Store, output: Output, names: tuple[str, ...]) -> None:
    """Give out the jobs of these resources again, and forget what was counted."""
    _steer(store, output, names, Close())


def _steer(store: Store, output: Output, names: tuple[str, ...], change: Open | Close) -> None:
    known = [record.name for record in store.run(store.engine.list_resources())]
    for name in names:
        if name not in known:  # all of them are known before the first is changed
            raise UnknownResource(
                f"no resource {name!r} in {store.engine.url}{nearest(name, known)}: it is made by "
                "the first job that depends on it"
            )
    answers = [store.run(store.engine.steer(name, change)) for name in names]
    records = [record for record in answers if record is not None]
    if output.as_json:
        output.document([resource_view(record) for record in records])
        return
    for record in records:
        output.line(f"resource {record.name} is {record.state}{_until(record)}")


def _until(record: ResourceRecord) -> str:
    if record.state == "closed":
        return ": its jobs run"
    if record.opens_in_ms is None:
        return f": its jobs wait until `backlane resources close {record.name}`"
    return f": its jobs wait for {age(record.opens_in_ms)}, then a few are tried"
