"""`backlane queues`: depth and bounds of queues, and how they are changed at run time."""

from __future__ import annotations

import re

import click

from backlane.cli.bulk import YES, Wish, change, confirmed, told
from backlane.cli.output import Output, age, count, size
from backlane.cli.store import Store, store_options
from backlane.cli.view import queue_view
from backlane.engine.protocol import Delete, Selection, Tune
from backlane.model.job import State
from backlane.model.queue import QueueRecord

UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
NAMES = click.argument("names", nargs=-1, required=True, metavar="QUEUE...")


class Bytes(click.ParamType[int]):
    """A size in bytes: `1048576`, `64KiB`, `256MiB`, `2GiB`."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = re.fullmatch(r"(\d+)\s*([kmg]?)i?b?", str(value).strip().lower())
        if not found or not int(found[1]):
            self.fail(f"{value!r} is no size; use bytes, or KiB, MiB, GiB as in 64MiB", param, ctx)
        return int(found[1]) * UNITS[found[2]]


@click.group()
def queues() -> None:
    """List, pause, resume, purge and tune queues."""


@queues.command("list")
@store_options
def list_(store: Store, output: Output) -> None:
    """List all queues with their depth, their bound and what they have seen."""
    _shown(output, store.queues())


def _shown(output: Output, records: list[QueueRecord]) -> None:
    if output.as_json:
        output.document([queue_view(record) for record in records])
    elif not records:
        output.line("no queues: nothing was enqueued here yet")
    else:
        columns = ("queue", "state", ">ready", ">scheduled", ">running", ">of", ">bytes")
        seen = (">oldest", ">succeeded", ">failed", ">retried")
        output.table(columns + seen, [_row(record) for record in records])


def _row(record: QueueRecord) -> tuple[str, ...]:
    depth = record.depth
    return (
        record.name,
        "paused" if record.paused else str(record.kind),
        f"{depth.ready:,}",
        f"{depth.scheduled + depth.blocked:,}",
        f"{depth.running:,}",
        f"{record.bounds.max_jobs:,}",
        size(depth.bytes),
        age(record.oldest_ready_ms),
        f"{record.succeeded:,}",
        f"{record.failed:,}",
        f"{record.retried:,}",
    )


@queues.command("pause")
@NAMES
@store_options
def pause(store: Store, output: Output, names: tuple[str, ...]) -> None:
    """Stop giving out jobs of these queues. Enqueuing goes on; running jobs finish."""
    _tuned(store, output, names, Tune(paused=True), "paused")


@queues.command("resume")
@NAMES
@store_options
def resume(store: Store, output: Output, names: tuple[str, ...]) -> None:
    """Give out jobs of these queues again."""
    _tuned(store, output, names, Tune(paused=False), "running")


@queues.command("tune")
@NAMES
@click.option("--max-jobs", type=click.IntRange(1), metavar="N", help="The most jobs it holds.")
@click.option("--max-bytes", type=Bytes(), metavar="SIZE", help="The most bytes, as in 64MiB.")
@click.option("--reset", is_flag=True, help="First forget what was tuned: the code's bounds hold.")
@store_options
def tune(
    store: Store,
    output: Output,
    names: tuple[str, ...],
    max_jobs: int | None,
    max_bytes: int | None,
    reset: bool,
) -> None:
    """Set the bounds of queues. What is tuned goes before the code, until --reset."""
    if max_jobs is None and max_bytes is None and not reset:
        raise click.UsageError("say what to tune: --max-jobs, --max-bytes or --reset")
    wanted = Tune(max_jobs=max_jobs, max_bytes=max_bytes, reset=reset)
    _tuned(store, output, names, wanted, "tuned")


def _tuned(store: Store, output: Output, names: tuple[str, ...], wanted: Tune, done: str) -> None:
    for name in names:
        store.queue(name)  # all of them are known before the first is changed
    records = [store.run(store.engine.tune(name, wanted)) for name in names]
    changed = [record for record in records if record is not None]
    if output.as_json:
        output.document([queue_view(record) for record in changed])
        return
    for record in changed:
        bounds = f"{record.bounds.max_jobs:,} jobs, {size(record.bounds.max_bytes)}"
        output.line(f"queue {record.name} {done}; holds at most {bounds}")


@queues.command("purge")
@click.argument("name", metavar="QUEUE")
@YES
@store_options
def purge(store: Store, output: Output, name: str, yes: bool) -> None:
    """Forget every job that waits in a queue. Running ones and history stay."""
    depth = store.queue(name).depth
    waiting = depth.jobs - depth.running
    question = f"forget {count(waiting, 'waiting job')} of queue {name!r} for good?"
    confirmed(question, yes=yes or not waiting)
    waiting_states = (State.SCHEDULED, State.READY, State.BLOCKED)
    selection = Selection(queue=name, states=waiting_states)
    wish = Wish(Delete(), "purge", "deleted")
    told(output, change(store, selection, wish, total=waiting), wish.done)
