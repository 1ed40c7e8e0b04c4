"""`backlane capacity`: what queues take, how long jobs wait, and how many slots would do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from backlane.cli.output import Output, count
from backlane.cli.overhead import CheapTask, cheap_tasks, overhead_ms
from backlane.cli.store import APP_HELP, URL_HELP, Store, named, opened
from backlane.engine.selection import Selection
from backlane.model.capacity import Load, bound_for, mean_wait_s, percentile_wait_s, slots_for
from backlane.model.job import State
from backlane.model.pressure.meter import Meter

RECENT = 1_000  # finished jobs whose run times are looked at
COLUMNS = ("queue", ">came/s", ">taken/s", ">run", ">slots", ">used", ">ready", ">wait now")
EXPECTED = (">mean", ">95 %", ">slots for it", ">max_jobs")


class CapacityView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one queue. Null: nothing tells it yet."""

    queue: str | None  # null: planned on paper
    arrivals: float | None  # jobs a second
    taken: float | None = None  # jobs a second, over the same seconds
    service_s: float | None
    slots: int | None
    can_take: float | None = None  # jobs a second that the slots can take
    utilisation: float | None = None
    stable: bool | None = None
    ready: int | None = None
    wait_now_s: float | None = None  # of a job enqueued now: the line as it stands
    mean_wait_s: float | None = None  # Erlang C; null also where the line grows without end
    p95_wait_s: float | None = None
    wanted_wait_s: float | None = None
    slots_needed: int | None = None
    max_jobs: int | None = None  # the bound that keeps accepted jobs within that wait


class CapacitiesView(msgspec.Struct, frozen=True):
    """The answer of `capacity`."""

    queues: list[CapacityView]
    overhead_ms: float | None = None  # null: no finished jobs to compare it with
    cheap: list[CheapTask] = []


@click.command()
@click.argument("names", nargs=-1, metavar="[QUEUE]...")
@click.option("--url", metavar="URL", envvar="BACKLANE_URL", help=URL_HELP)
@click.option("--app", metavar="MODULE:ATTR", envvar="BACKLANE_APP", help=APP_HELP)
@click.option(
    "--over", type=click.FloatRange(0.2, 300), default=3.0, metavar="S", help="Look for so long."
)
@click.option("--arrivals", type=click.FloatRange(0), metavar="N", help="Plan: jobs a second.")
@click.option("--service", type=click.FloatRange(0), metavar="S", help="Plan: a job's run time.")
@click.option("--slots", type=click.IntRange(1), metavar="N", help="Plan: jobs run at a time.")
@click.option("--wait", type=click.FloatRange(0), metavar="S", help="How many slots for this wait?")
@click.option(
    "--percent",
    type=click.FloatRange(0, 100, max_open=True),
    metavar="P",
    help="Of so many jobs; else on average.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def capacity(
    names: tuple[str, ...],
    url: str | None,
    app: str | None,
    over: float,
    as_json: bool,
    wait: float | None,
    percent: float | None,
    **paper: Any,
) -> None:
    """Tell how long jobs wait and how many slots would do.

    Two looks at the store, --over seconds apart, give the figures of its queues. With
    --arrivals and --service no store is needed: that is planning on paper.
    """
    output = Output(as_json)
    if any(value is not None for value in paper.values()):
        _told(output, CapacitiesView([_planned(wait, percent, **paper)]))
        return
    with opened(*named(url, app)) as store:
        meters = _measured(store, names, over)
        queues = [seen(name, meter, wait, percent) for name, meter in meters.items()]
        _told(output, _with_cheap(store, queues))


# -- on paper --


def _planned(
    wait: float | None,
    percent: float | None,
    arrivals: float | None,
    service: float | None,
    slots: int | None,
) -> CapacityView:
    if arrivals is None or service is None:
        raise click.UsageError("a plan needs both --arrivals and --service")
    if slots is None and wait is None:
        raise click.UsageError("say what there is, --slots, or what is wanted, --wait")
    if slots is None:
        slots = slots_for(arrivals, service, wait or 0.0, percent)
    return _view(None, arrivals, service, slots, wait, percent)


# -- live --


def _measured(store: Store, names: Sequence[str], over: float) -> dict[str, Meter]:
    for name in names:
        store.queue(name)
    wanted = tuple(names) or tuple(queue.name for queue in store.queues())
    meters = {name: Meter() for name in wanted}
    for look in range(2 if wanted else 0):
        if look:
            time.sleep(over)
        at_ms = time.monotonic_ns() // 1_000_000
        for sample in store.run(store.engine.measure(wanted)).queues:
            meters[sample.name].took(sample, at_ms)
    return meters


def seen(name: str, meter: Meter, wait: float | None, percent: float | None) -> CapacityView:
    """Return what a meter knows of a queue, and what would keep its jobs within a wait."""
    slots = meter.sample.slots if meter.sample else None
    ran = meter.service_ms / 1000 if meter.service_ms else None
    expected = meter.expected_ms()
    # Where a line stood, what was taken tells how long a job does keep its slot: claims and
    # commits are in it, and that slots are shared or not for jobs of this kind.
    kept = slots / meter.mu if slots and meter.mu else ran
    return msgspec.structs.replace(
        _view(name, meter.arrivals, kept, slots, wait, percent),
        service_s=ran,
        taken=meter.starting,
        ready=meter.ready,
        wait_now_s=None if expected is None else expected / 1000,
    )


def _with_cheap(store: Store, queues: list[CapacityView]) -> CapacitiesView:
    ended = Selection(states=(State.SUCCEEDED,))
    recent = store.run(store.engine.find(ended, RECENT)).records
    if not recent:
        return CapacitiesView(queues)
    overhead = overhead_ms(store.engine)
    return CapacitiesView(queues, round(overhead, 3), cheap_tasks(recent, overhead))


# -- the answer --


def _view(
    queue: str | None,
    arrivals: float | None,
    service: float | None,
    slots: int | None,
    wait: float | None,
    percent: float | None,
) -> CapacityView:
    known = CapacityView(
        queue=queue, arrivals=arrivals, service_s=service, slots=slots, wanted_wait_s=wait
    )
    if arrivals is None or service is None:
        return known
    needed = None if wait is None else slots_for(arrivals, service, wait, percent)
    known = msgspec.structs.replace(known, slots_needed=needed)
    if not slots:
        return known
    load = Load(arrivals, service, slots)
    return msgspec.structs.replace(
        known,
        can_take=load.throughput if math.isfinite(load.throughput) else None,
        utilisation=load.utilisation,
        stable=load.is_stable,
        mean_wait_s=_finite(mean_wait_s(load)),
        p95_wait_s=_finite(percentile_wait_s(load, 95)),
        max_jobs=None if wait is None else bound_for(load, wait),
    )


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _told(output: Output, answer: CapacitiesView) -> None:
    if output.as_json:
        output.document(answer)
        return
    if not answer.queues:
        output.line("no queues: nothing was enqueued here yet")
    wanted = any(view.wanted_wait_s is not None for view in answer.queues)
    columns = COLUMNS + EXPECTED[: 4 if wanted else 2]
    output.table(columns, [_row(view)[: len(columns)] for view in answer.queues])
    for view in answer.queues:
        if view.stable is False:
            output.line(_growing(view))
        elif view.slots == 0 and view.ready:
            output.line(f"queue {view.queue}: no worker serves it")
    if answer.overhead_ms is not None:
        output.line(
            f"a job costs {answer.overhead_ms:.2f} ms here beside its run "
            "(append, claim and settle, one by one)"
        )
    for one in answer.cheap:
        output.line(
            f"{one.task} runs {one.run_ms:.1f} ms (mean of {count(one.jobs, 'job')}): "
            "cheaper than its own queueing, so rather call it in line"
        )


def _row(view: CapacityView) -> tuple[str, ...]:
    is_growing = view.stable is False
    return (
        view.queue or "(plan)",
        _number(view.arrivals),
        _number(view.taken),
        _span(view.service_s),
        "-" if view.slots is None else f"{view.slots:,}",
        "-" if view.utilisation is None else f"{view.utilisation:.0%}",
        "-" if view.ready is None else f"{view.ready:,}",
        _span(view.wait_now_s),
        "grows" if is_growing else _span(view.mean_wait_s),
        "grows" if is_growing else _span(view.p95_wait_s),
        "-" if view.slots_needed is None else f"{view.slots_needed:,}",
        "-" if view.max_jobs is None else f"{view.max_jobs:,}",
    )


def _growing(view: CapacityView) -> str:
    came, slots, can_take = view.arrivals or 0.0, view.slots or 0, view.can_take or 0.0
    least = slots_for(came, slots / can_take, math.inf) if can_take else None
    enough = "more than a million" if least is None else f"at least {least:,}"
    return (
        f"{f'queue {view.queue}' if view.queue else 'the plan'}: {count(slots, 'slot')} can take "
        f"{can_take:,.1f} of {came:,.1f} jobs/s, so the line grows until it is full; "
        f"{enough} would do"
    )


def _number(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:,.3g} s"
