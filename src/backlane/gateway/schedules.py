"""Schedules: what runs on time, and changing it at run time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw
from starlette.responses import Response

from backlane.engine.scheduling import ScheduleRecord
from backlane.errors import BacklaneError, UnknownSchedule, nearest
from backlane.gateway import auth
from backlane.gateway.answer import answer
from backlane.gateway.body import fitting
from backlane.gateway.declined import misfit
from backlane.gateway.resource import moment, resource_of
from backlane.gateway.site import Exchange, Rule
from backlane.gateway.tasks import arguments_of, check_queue
from backlane.gateway.waiting import found
from backlane.model.cron import Cron
from backlane.model.ids import parse_id
from backlane.model.schedule import At, CatchUp, Every
from backlane.schedules import Schedule, next_times, schedule_of
from backlane.task import Task

NEXT = 5  # due times that are told of one schedule


class ScheduleResource(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as the gateway shows it; times are RFC 3339 in UTC, durations seconds."""

    name: str
    task: str
    rule: str  # in words
    declared: bool  # by code, and not put at run time
    paused: bool
    next: list[str]
    last_job: str | None
    catch_up: str
    jitter: float
    arguments: Raw


class ScheduleList(msgspec.Struct, frozen=True):
    """Schedules by name."""

    schedules: list[ScheduleResource]


Text = Annotated[str, Meta(min_length=1, max_length=256)]
# Of cron, for who makes one: what is wrong of it is told in words, by `Cron` itself.
FORM = {"pattern": r"^\s*(@[A-Za-z]+|([0-9A-Za-z*,/#()-]+\s+){4,5}[0-9A-Za-z*,/#()-]+)\s*$"}


class ScheduleAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A schedule to be kept: its task, its rule (one of `cron`, `every`, `at`) and its call."""

    task: str
    cron: Annotated[str, Meta(min_length=1, max_length=1_000, extra_json_schema=FORM)] | None = None
    tz: Annotated[str, Meta(min_length=1, max_length=100)] | None = None  # of `cron`; UTC
    every: Annotated[float, Meta(ge=1, le=3_155_760_000)] | None = None  # seconds
    at: Annotated[datetime, Meta(tz=True)] | None = None
    arguments: Raw = msgspec.field(default_factory=lambda: Raw(b"{}"))
    catch_up: CatchUp = "latest"
    most: Annotated[int, Meta(ge=1, le=1_000)] = 100
    jitter: Annotated[float, Meta(ge=0, le=3_155_760_000)] = 0
    queue: str | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    group: Text | None = None


_decode = msgspec.json.Decoder(ScheduleAsked).decode


async def index(exchange: Exchange) -> Response:
    """List the schedules that the caller may read."""
    engine = exchange.app.engine
    timetable = await engine.arun(engine.list_schedules())
    seen = [it for it in timetable.schedules if _may(exchange, "read", it.task)]
    return answer({"schedules": [_shown(schedule_of(it)) for it in seen]})


async def show(exchange: Exchange) -> Response:
    """Show one schedule, with the next times at which it fires."""
    record, now_ms = await _found(exchange, "read")
    try:
        times = [] if record.paused else next_times(record, now_ms, NEXT)
    except BacklaneError:  # the rule of another version: it is shown as far as it is known
        times = []
    return answer(_shown(schedule_of(record), times))


async def put(exchange: Exchange) -> Response:
    """Keep a schedule, in place of one of that name; with another rule it begins anew."""
    asked = fitting(_decode, exchange.headers, exchange.body)
    task = _task(exchange, asked.task)
    if asked.queue is not None:
        check_queue(exchange, task, asked.queue)
    await _check_known(exchange)
    args, kwargs = arguments_of(task, asked.arguments)
    options = {
        name: value
        for name in ("queue", "priority", "group")
        if (value := getattr(asked, name)) is not None
    }
    try:
        made = await exchange.app.schedules.aput(
            exchange.param("schedule"),
            _rule(asked),
            task.using(**options) if options else task,
            args=args,
            kwargs=kwargs,
            catch_up=asked.catch_up,
            most=asked.most,
            jitter=asked.jitter,
        )
    except (BacklaneError, TypeError) as error:
        if isinstance(error, BacklaneError) and not isinstance(error, ValueError | TypeError):
            raise
        raise misfit(str(error)) from None
    return answer(_shown(made))


async def pause(exchange: Exchange) -> Response:
    """Let it make no jobs until it is resumed."""
    await _found(exchange, "operate")
    return answer(_shown(await exchange.app.schedules.apause(exchange.param("schedule"))))


async def resume(exchange: Exchange) -> Response:
    """Let it go on from now; what was due meanwhile is not caught up with."""
    await _found(exchange, "operate")
    return answer(_shown(await exchange.app.schedules.aresume(exchange.param("schedule"))))


async def remove(exchange: Exchange) -> Response:
    """Forget it; its jobs stay. One that code declares comes back."""
    await _found(exchange, "operate")
    await exchange.app.schedules.aremove(exchange.param("schedule"))
    return Response(status_code=204)


async def run(exchange: Exchange) -> Response:
    """Enqueue what it calls, now and once more; it goes on as if nothing was."""
    record, _ = await _found(exchange, "operate")
    auth.check(exchange.caller, "submit", (record.task,))
    job = await exchange.app.schedules.arun_now(record.name)
    shown = resource_of(await found(exchange.site, parse_id(job.id)))
    return answer(shown, 202, {"Location": exchange.place(f"/v1/jobs/{job.id}")})


ROUTES = [
    Rule("GET", "/v1/schedules", index, "read"),
    Rule("GET", "/v1/schedules/{schedule}", show, "read"),
    Rule("PUT", "/v1/schedules/{schedule}", put, "operate"),
    Rule("DELETE", "/v1/schedules/{schedule}", remove, "operate"),
    Rule("POST", "/v1/schedules/{schedule}/pause", pause, "operate"),
    Rule("POST", "/v1/schedules/{schedule}/resume", resume, "operate"),
    Rule("POST", "/v1/schedules/{schedule}/run", run, "operate"),
]


def _rule(asked: ScheduleAsked) -> Cron | Every | At:
    given = [name for name in ("cron", "every", "at") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise misfit("give one of cron, every and at", ("", "give one of cron, every and at"))
    if asked.cron is not None:
        try:
            return Cron(asked.cron, asked.tz or "UTC")
        except BacklaneError as error:
            where = "/tz" if str(error).startswith("tz") else "/cron"
            raise misfit(str(error), (where, str(error))) from None
    if asked.tz is not None:
        raise misfit("tz goes with cron", ("/tz", "tz goes with cron"))
    if asked.every is not None:
        return Every(timedelta(seconds=asked.every))
    return At(asked.at)  # type: ignore[arg-type]  # it is the third of three


def _task(exchange: Exchange, name: str) -> Task[..., Any, Any]:
    task = exchange.app.tasks.get(name)
    names = (name,) if task is None else (name, task.queue)
    auth.check(exchange.caller, "operate", names)
    auth.check(exchange.caller, "submit", names)
    if task is None:
        known = exchange.app.tasks
        why = f"no task {name[:128]!r} in this application{nearest(name[:128], known)}"
        raise misfit(why, ("/task", why))
    return task


async def _check_known(exchange: Exchange) -> None:
    """Refuse to put a schedule over one that the caller may not touch."""
    try:
        await _found(exchange, "operate")
    except UnknownSchedule:
        return


async def _found(exchange: Exchange, scope: str) -> tuple[ScheduleRecord, int]:
    engine, name = exchange.app.engine, exchange.param("schedule")
    timetable = await engine.arun(engine.list_schedules())
    seen = {it.name: it for it in timetable.schedules if _may(exchange, "read", it.task)}
    record = next((it for it in timetable.schedules if it.name == name), None)
    if record is None:
        raise UnknownSchedule(f"no schedule {name[:128]!r}{nearest(name[:128], seen)}; put it")
    auth.check(exchange.caller, scope, _names(exchange, record.task))
    return record, timetable.now_ms


def _may(exchange: Exchange, scope: str, task: str) -> bool:
    caller = exchange.caller
    return caller.allows(scope, _names(exchange, task))


def _names(exchange: Exchange, task: str) -> tuple[str, ...]:
    known = exchange.app.tasks.get(task)
    return (task,) if known is None else (task, known.queue)


def _shown(one: Schedule, times: list[datetime] | None = None) -> ScheduleResource:
    """Return what is shown of a schedule; `times` are the next, where they were asked for."""
    if times is None:
        times = [] if one.next is None else [one.next]
    return ScheduleResource(
        name=one.name,
        task=one.task,
        rule=one.rule,
        declared=one.is_declared,
        paused=one.paused,
        next=[moment(round(it.timestamp() * 1000)) for it in times],
        last_job=None if one.last_job is None else str(one.last_job),
        catch_up=one.catch_up,
        jitter=one.jitter.total_seconds(),
        arguments=one.arguments,
    )
