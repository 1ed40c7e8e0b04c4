"""`backlane schedules`: what runs on time, and changing it at run time."""

from __future__ import annotations

import uuid
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import click
import msgspec

from backlane.app import Backlane
from backlane.cli.application import load
from backlane.cli.enqueue import call_of
from backlane.cli.output import Output
from backlane.cli.store import Store, refuse_emptiness, store_options
from backlane.engine.scheduling import Pause, Remove, Resume, ScheduleRecord
from backlane.errors import BadOption, UnknownSchedule, nearest
from backlane.model.cron import Cron
from backlane.model.schedule import At, Every, Rule
from backlane.schedules import Schedule, next_times, schedule_of

NAMES = click.argument("names", nargs=-1, required=True, metavar="SCHEDULE...")


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as `--json` shows it: fields are only ever added."""

    name: str
    task: str
    rule: str
    declared: bool
    paused: bool
    next: datetime | None
    last_job: uuid.UUID | None
    catch_up: str
    jitter_seconds: float
    arguments: msgspec.Raw


class RunView(msgspec.Struct, frozen=True):
    """The answer of `run`."""

    id: uuid.UUID
    schedule: str


class TimesView(msgspec.Struct, frozen=True):
    """The answer of `next`."""

    schedule: str
    next: list[datetime]


def schedule_view(one: Schedule) -> ScheduleView:
    """Return what is shown of a schedule."""
    return ScheduleView(
        name=one.name,
        task=one.task,
        rule=one.rule,
        declared=one.is_declared,
        paused=one.paused,
        next=one.next,
        last_job=one.last_job,
        catch_up=one.catch_up,
        jitter_seconds=one.jitter.total_seconds(),
        arguments=one.arguments,
    )


@click.group()
def schedules() -> None:
    """List, put, pause, resume, remove and run schedules."""


@schedules.command("list")
@store_options
def list_(store: Store, output: Output) -> None:
    """List all schedules: what each calls, by which rule, and when it is next due."""
    found = [schedule_of(it) for it in store.run(store.engine.list_schedules()).schedules]
    if output.as_json:
        output.document([schedule_view(one) for one in found])
    elif not found:
        output.line("no schedules: none was put, and no worker has declared one")
    else:
        columns = ("schedule", "task", "rule", "next", "by", "last job")
        output.table(columns, [_row(one) for one in found])


def _row(one: Schedule) -> tuple[str, ...]:
    return (
        one.name,
        one.task,
        one.rule,
        "paused" if one.paused else _time(one.next),
        "code" if one.is_declared else "hand",
        "-" if one.last_job is None else str(one.last_job),
    )


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@schedules.command("next")
@click.argument("name", metavar="SCHEDULE")
@click.option(
    "--number", type=click.IntRange(1, 1_000), metavar="N", default=5, help="How many times."
)
@store_options
def next_(store: Store, output: Output, name: str, number: int) -> None:
    """Tell the next times at which a schedule fires, paused or not."""
    timetable = store.run(store.engine.list_schedules())
    (record,) = _known(store, (name,))
    found = next_times(record, timetable.now_ms, number)
    if output.as_json:
        output.document(TimesView(name, found))
        return
    for moment in found:
        output.line(_time(moment))
    if not found:
        output.line(f"schedule {name} never fires again")


# -- changing --


@schedules.command("put")
@click.argument("target", metavar="MODULE:ATTR")
@click.argument("name", metavar="SCHEDULE")
@click.argument("task", metavar="TASK")
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1)
@click.option("--cron", metavar="FIELDS", help="Five or six fields, or @hourly, @daily, ….")
@click.option("--tz", metavar="ZONE", help="Of the cron fields; UTC, unless given.")
@click.option("--every", type=click.FloatRange(1), metavar="SECONDS", help="An interval.")
@click.option("--at", metavar="TIME", help="Once, at an ISO time with its zone.")
@click.option(
    "--catch-up",
    type=click.Choice(["none", "latest", "all"]),
    help="What becomes of times that no worker saw; latest, unless given.",
)
@click.option(
    "--most", type=click.IntRange(1, 1_000), metavar="N", help="Of these, with --catch-up all."
)
@click.option(
    "--jitter", type=click.FloatRange(0), metavar="SECONDS", help="Spread starts over so long."
)
@click.option("--queue", metavar="NAME", help="Another queue than the task's own.")
@click.option(
    "--priority", type=click.IntRange(0, 9), metavar="N", help="0 to 9, higher goes first."
)
@click.option("--group", metavar="NAME", help="What jobs share, as a tenant.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def put(
    target: str,
    name: str,
    task: str,
    arguments: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Put a schedule that calls a task, in place of one of that name.

    Arguments are given as to `enqueue`. What is put stays until it is removed.
    """
    output = Output(as_json)
    options = {option: value for option, value in given.items() if value is not None}
    rule = _rule(options)
    with closing(load(target)) as app:
        refuse_emptiness(app.url, make=True)
        found, args, kwargs = call_of(app, task, arguments)
        how = {option: options.pop(option) for option in HOW if option in options}
        calls = found.using(**how)
        made = app.schedules.put(name, rule, calls, args=args, kwargs=kwargs, **options)
        if as_json:
            output.document(schedule_view(made))
        else:
            output.line(f"schedule {made.name}: {made.rule}, next {_time(made.next)}")


HOW = ("queue", "priority", "group")  # of each job: options of the enqueue


def _rule(options: dict[str, Any]) -> Rule:
    """Take the rule out of the options."""
    given = [option for option in ("cron", "every", "at") if option in options]
    if len(given) != 1:
        raise click.UsageError("say when: give one of --cron, --every and --at")
    tz = options.pop("tz", None)
    match given[0]:
        case "cron":
            return Cron(options.pop("cron"), "UTC" if tz is None else tz)
        case _ if tz is not None:
            raise click.UsageError("--tz goes with --cron")
        case "every":
            return Every(timedelta(seconds=options.pop("every")))
        case _:
            return At(_moment(options.pop("at")))


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise BadOption(
            f"--at {text!r} is no time; use one such as 2030-01-31T12:00:00+00:00"
        ) from error


@schedules.command("run")
@click.argument("target", metavar="MODULE:ATTR")
@click.argument("name", metavar="SCHEDULE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(target: str, name: str, as_json: bool) -> None:
    """Enqueue what a schedule calls, now and once more; it goes on as if nothing was."""
    output = Output(as_json)
    with closing(load(target)) as app:
        refuse_emptiness(app.url, make=False)
        job = _run(app, name)
        if as_json:
            output.document(RunView(job, name))
        else:
            output.line(str(job))


def _run(app: Backlane, name: str) -> uuid.UUID:
    return app.schedules.run_now(name).id


@schedules.command("pause")
@NAMES
@store_options
def pause(store: Store, output: Output, names: tuple[str, ...]) -> None:
    """Let schedules make no jobs until they are resumed."""
    _alter(store, output, names, Pause())


@schedules.command("resume")
@NAMES
@store_options
def resume(store: Store, output: Output, names: tuple[str, ...]) -> None:
    """Let schedules go on from now; what was due meanwhile is not caught up with."""
    _alter(store, output, names, Resume())


@schedules.command("remove")
@NAMES
@store_options
def remove(store: Store, output: Output, names: tuple[str, ...]) -> None:
    """Forget schedules; their jobs stay. Those that code declares come back: pause them."""
    known = _known(store, names)
    for name in names:
        store.run(store.engine.alter_schedule(name, Remove()))
    if output.as_json:
        output.document([schedule_view(schedule_of(record)) for record in known])
        return
    for record in known:
        back = "; it comes back while code declares it" if record.is_declared else ""
        output.line(f"schedule {record.name} is removed{back}")


def _alter(store: Store, output: Output, names: tuple[str, ...], change: Pause | Resume) -> None:
    _known(store, names)  # all of them are known before the first is changed
    answers = [store.run(store.engine.alter_schedule(name, change)) for name in names]
    found = [schedule_of(record) for record in answers if record is not None]
    if output.as_json:
        output.document([schedule_view(one) for one in found])
        return
    for one in found:
        told = "is paused" if one.paused else f"is due next {_time(one.next)}"
        output.line(f"schedule {one.name} {told}")


def _known(store: Store, names: tuple[str, ...]) -> list[ScheduleRecord]:
    known = {it.name: it for it in store.run(store.engine.list_schedules()).schedules}
    for name in names:
        if name not in known:
            raise UnknownSchedule(
                f"no schedule {name!r} in {store.engine.url}{nearest(name, known)}: put it, or "
                "start a worker whose code declares it"
            )
    return [known[name] for name in names]
