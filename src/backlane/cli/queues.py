"""`backlane queues`: depth and bounds of queues, and how they are changed at run time."""

from __future__ import annotations

import re
import time

import click

from backlane.cli.bulk import YES, Wish, change, confirmed, told
from backlane.cli.output import Output, age, count, size
from backlane.cli.store import Store, store_options
from backlane.cli.view import queue_view
from backlane.control import tuned_wait_ms
from backlane.engine.protocol import Tune
from backlane.engine.selection import Delete, Selection
from backlane.errors import BadOption
from backlane.model.clock import SystemClock
from backlane.model.job import State
from backlane.model.pressure.meter import Meter
from backlane.model.queue import MOST, QueueRecord

LOOK_SECONDS = 1.0  # between two looks at a queue, which give its speed
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
NAMES = click.argument("names", nargs=-1, required=True, metavar="QUEUE...")


class Bytes(click.ParamType[int]):
    """A size in bytes: `1048576`, `64KiB`, `256MiB`, `2GiB`."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = re.fullmatch(r"(\d+)\s*([kmg]?)i?b?", str(value).strip().lower())
        given = int(found[1]) * UNITS[found[2]] if found else 0
        if not 1 <= given <= MOST:
            self.fail(f"{value!r} is no size; use bytes, or KiB, MiB, GiB as in 64MiB", param, ctx)
        return given


class MaxWait(click.ParamType[int]):
    """A bound on the wait in seconds, or `none`; in milliseconds, where 0 is none."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return tuned_wait_ms(float("inf") if value == "none" else float(str(value)))
        except (ValueError, BadOption):
            self.fail(f"{value!r} is no wait; use seconds above 0, or 'none'", param, ctx)


@click.group()
def queues() -> None:
    """List, show, pause, resume, purge and tune queues."""


@queues.command("list")
@store_options
def list_(store: Store, output: Output) -> None:
    """List all queues with their depth, their bound and what they have seen."""
    records = store.queues()
    meters = _measured(store, [record.name for record in records])
    if output.as_json:
        output.document([queue_view(record, meters[record.name]) for record in records])
    elif not records:
        output.line("no queues: nothing was enqueued here yet")
    else:
        columns = (
            "queue",
            "state",
            ">ready",
            ">scheduled",
            ">blocked",
            ">running",
            ">of",
            ">bytes",
        )
        seen = (">pressure", ">wait", ">oldest", ">succeeded", ">failed", ">retried")
        rows = [_row(record, meters[record.name]) for record in records]
        output.table(columns + seen, rows)


@queues.command("show")
@click.argument("name", metavar="QUEUE")
@store_options
def show(store: Store, output: Output, name: str) -> None:
    """Show one queue: its bounds, how busy it is and what a new job would wait.

    It is read twice, a second apart, so that its speed is that of now.
    """
    store.queue(name)
    meter = _measured(store, [name])[name]
    time.sleep(LOOK_SECONDS)
    meter = _measured(store, [name], {name: meter})[name]
    record = store.queue(name)
    if output.as_json:
        output.document(queue_view(record, meter))
        return
    for line in _lines(record, meter):
        output.line(line)


def _lines(record: QueueRecord, meter: Meter) -> list[str]:
    """Return a queue as a person reads it."""
    depth, bounds = record.depth, record.bounds
    held = f"{depth.ready:,} ready, {depth.running:,} running"
    later = f"{depth.scheduled:,} later, {depth.blocked:,} blocked, {size(depth.bytes)}"
    speed = "not known" if meter.mu is None else f"{meter.mu:,.1f} jobs a second"
    return [
        f"queue     {record.name} ({'paused' if record.paused else record.kind})",
        f"holds     {held}, {later}",
        f"bounds    {_bounds(record)}",
        f"pressure  {meter.pressure(bounds):.0%} of the fullest bound",
        f"speed     {speed} while a line stands",
        f"wait      {_wait(meter)} for a job enqueued now",
        f"oldest    {age(record.oldest_ready_ms)} in line",
    ]


def _measured(
    store: Store, names: list[str], known: dict[str, Meter] | None = None
) -> dict[str, Meter]:
    """Return what is known of the speed of queues, after one more look at them."""
    meters = known or {name: Meter() for name in names}
    now_ms = SystemClock().boot_ms()
    for sample in store.run(store.engine.measure(names)).queues:
        meters[sample.name].took(sample, now_ms)
    return meters


def _wait(meter: Meter) -> str:
    expected_ms = meter.expected_ms()
    return "not known" if expected_ms is None else f"about {age(expected_ms)}"


def _row(record: QueueRecord, meter: Meter) -> tuple[str, ...]:
    depth = record.depth
    return (
        record.name,
        "paused" if record.paused else str(record.kind),
        f"{depth.ready:,}",
        f"{depth.scheduled:,}",
        f"{depth.blocked:,}",
        f"{depth.running:,}",
        f"{record.bounds.max_jobs:,}",
        size(depth.bytes),
        f"{meter.pressure(record.bounds):.0%}",
        age(meter.expected_ms()),
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
@click.option(
    "--max-jobs", type=click.IntRange(1, MOST), metavar="N", help="The most jobs it holds."
)
@click.option("--max-bytes", type=Bytes(), metavar="SIZE", help="The most bytes, as in 64MiB.")
@click.option(
    "--max-wait", type=MaxWait(), metavar="SECONDS", help="The longest expected wait, or 'none'."
)
@click.option(
    "--group-share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="The part of --max-jobs that one group may fill, as in 0.1.",
)
@click.option("--reset", is_flag=True, help="First forget what was tuned: the code's bounds hold.")
@store_options
def tune(
    store: Store,
    output: Output,
    names: tuple[str, ...],
    max_jobs: int | None,
    max_bytes: int | None,
    max_wait: int | None,
    group_share: float | None,
    reset: bool,
) -> None:
    """Set the bounds of queues. What is tuned goes before the code, until --reset."""
    if (max_jobs, max_bytes, max_wait, group_share) == (None,) * 4 and not reset:
        raise click.UsageError(
            "say what to tune: --max-jobs, --max-bytes, --max-wait, --group-share or --reset"
        )
    wanted = Tune(
        max_jobs=max_jobs,
        max_bytes=max_bytes,
        max_wait_ms=max_wait,
        group_share=group_share,
        reset=reset,
    )
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
        output.line(f"queue {record.name} {done}; holds at most {_bounds(record)}")


def _bounds(record: QueueRecord) -> str:
    bounds = record.bounds
    told = [f"{bounds.max_jobs:,} jobs", size(bounds.max_bytes)]
    if bounds.max_wait_ms:
        told.append(f"a wait of {bounds.max_wait_ms / 1000:g} s")
    if bounds.group_share is not None:
        told.append(f"{bounds.group_share:.0%} of the jobs for a group")
    return ", ".join(told)


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
