"""Schedules of an application: declared by its code, and put at run time.

    @app.schedule("0 3 * * *", tz="Europe/Paris")
    @app.task
    async def nightly() -> Report: ...

    app.schedules.put("cleanup-7", timedelta(hours=1), cleanup, args=(7,))

A schedule is kept by the store; any worker of the application applies it. What code
declares follows the code; what is put at run time stays until it is removed.
"""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec
from msgspec.structs import replace

from backlane.draft import Draft
from backlane.engine.plan import Plan
from backlane.engine.protocol import Capability, Engine
from backlane.engine.scheduling import Pause, Put, Remove, Resume, ScheduleRecord, Timetable
from backlane.enqueuer import Enqueuer
from backlane.errors import BacklaneError, BadOption, UnknownSchedule, UnknownTask, nearest
from backlane.handle import JobHandle
from backlane.model.ids import new_id
from backlane.model.job import Job
from backlane.model.option import check_options
from backlane.model.queue import checked_name
from backlane.model.retry import Duration
from backlane.model.schedule import (
    CatchUp,
    Rule,
    Spec,
    decode_spec,
    encode_spec,
    spec_of,
    told,
    upcoming,
)
from backlane.place import Place
from backlane.task import Task
from backlane.tick import Declared, headers_of, scheduled

Tasks = Mapping[str, Task[..., Any, Any]]
Called = TypeVar("Called", bound="Task[..., Any, Any]")

T = TypeVar("T")

NEXT_MOST = 1_000


class ScheduleOptions(TypedDict, total=False):
    """The options of `@app.schedule`; `app.schedules.put` has them too, but for the name."""

    name: str | None  # of the schedule: the task's, unless given
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None
    tz: str | None  # of a cron expression; UTC, unless given
    catch_up: CatchUp  # "latest", unless given
    most: int  # due times that are caught up with; 100, unless given
    jitter: Duration  # spreads the starts over so long; 0, unless given


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as the store has it. Times are UTC.

    .. versionadded:: 0.1
    """

    name: str
    task: str
    rule: str  # in words: "0 3 * * * (Europe/Paris)", "every 0:05:00"
    is_declared: bool  # by code: it goes when no code declares it any more
    paused: bool
    next: datetime | None  # None: paused, or not known by this version
    last_job: uuid.UUID | None  # the id of the newest job that it made
    catch_up: CatchUp
    jitter: timedelta
    arguments: msgspec.Raw  # JSON
    applied: datetime  # all that was due up to then is done with


class Schedules:
    """The schedules of one store: `app.schedules`.

    .. versionadded:: 0.1
    """

    def __init__(self, place: Place, tasks: Tasks) -> None:
        self._place, self._tasks = place, tasks
        self.declared: dict[str, Declared] = {}

    def __repr__(self) -> str:
        return f"<Schedules of {self._place.url}>"

    # -- declared by code --

    def declaring(
        self, rule: Rule | str | timedelta, options: ScheduleOptions
    ) -> Callable[[Called], Called]:
        """Return what declares that a task is scheduled so; see `Backlane.schedule`."""
        check_options(options, ScheduleOptions.__annotations__, "@app.schedule")
        if not self._place.keeps_jobs:
            self._place.require(Capability.SCHEDULES, "@app.schedule")
        spec_of(rule, **_timing(options))  # what is wrong of it is told before the task is made

        def declare(task: Called) -> Called:
            given = options.get("name")
            name = task.name if given is None else checked_name(given, "schedule")
            if name in self.declared:
                raise BadOption(
                    f"there is a schedule {name!r} already; give this one another name: "
                    "@app.schedule(…, name=…)"
                )
            self.declared[name] = self._made(name, rule, task, options)
            return task

        return declare

    # -- at run time --

    def put(
        self,
        name: str,
        rule: Rule | str | timedelta,
        task: Task[..., Any, Any] | Enqueuer[..., Any],
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Keep a schedule in the store, in place of one of that name.

        Its rule is cron as text (with `tz`), a timedelta, `Every` or `At`. It calls `task`
        with `args=` and `kwargs=`; `task.using(queue=…, priority=…)` says how. Other options
        are `catch_up`, `most` and `jitter`. With another rule or call it begins anew, now.

        Raises:
            BadOption: a value cannot work, or it would never fire.
            TypeError, Unencodable, TooLarge: the arguments are none of the task.
        """
        put = self._put(name, rule, task, options)
        return self._shown(self._run(self._engine.alter_schedule(name, put)))

    async def aput(
        self,
        name: str,
        rule: Rule | str | timedelta,
        task: Task[..., Any, Any] | Enqueuer[..., Any],
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Like `put`."""
        put = self._put(name, rule, task, options)
        return self._shown(await self._arun(self._engine.alter_schedule(name, put)))

    def pause(self, name: str) -> Schedule:
        """Let a schedule make no jobs until it is resumed.

        Raises:
            UnknownSchedule: the store holds none of that name; names the nearest.
        """
        self._found(name, self._run(self._listing))
        return self._shown(self._run(self._engine.alter_schedule(name, Pause())))

    async def apause(self, name: str) -> Schedule:
        """Like `pause`."""
        self._found(name, await self._arun(self._listing))
        return self._shown(await self._arun(self._engine.alter_schedule(name, Pause())))

    def resume(self, name: str) -> Schedule:
        """Let a schedule go on from now; what was due meanwhile is not caught up with.

        Raises:
            UnknownSchedule: as `pause`.
        """
        self._found(name, self._run(self._listing))
        return self._shown(self._run(self._engine.alter_schedule(name, Resume())))

    async def aresume(self, name: str) -> Schedule:
        """Like `resume`."""
        self._found(name, await self._arun(self._listing))
        return self._shown(await self._arun(self._engine.alter_schedule(name, Resume())))

    def remove(self, name: str) -> None:
        """Forget a schedule; its jobs stay. One that code declares comes back: pause it.

        Raises:
            UnknownSchedule: as `pause`.
        """
        self._found(name, self._run(self._listing))
        self._run(self._engine.alter_schedule(name, Remove()))

    async def aremove(self, name: str) -> None:
        """Like `remove`."""
        self._found(name, await self._arun(self._listing))
        await self._arun(self._engine.alter_schedule(name, Remove()))

    # -- looking --

    def list(self) -> builtins.list[Schedule]:
        """Return all schedules of the store by name, at most 10,000."""
        return [schedule_of(record) for record in self._run(self._listing).schedules]

    async def alist(self) -> builtins.list[Schedule]:
        """Like `list`."""
        return [schedule_of(record) for record in (await self._arun(self._listing)).schedules]

    def get(self, name: str) -> Schedule:
        """Return the schedule of that name.

        Raises:
            UnknownSchedule: as `pause`.
        """
        return schedule_of(self._found(name, self._run(self._listing)))

    async def aget(self, name: str) -> Schedule:
        """Like `get`."""
        return schedule_of(self._found(name, await self._arun(self._listing)))

    def next(self, name: str, number: int = 5) -> builtins.list[datetime]:
        """Return the next times at which a schedule fires, paused or not; see `get`."""
        timetable = self._run(self._listing)
        return next_times(self._found(name, timetable), timetable.now_ms, number)

    async def anext(self, name: str, number: int = 5) -> builtins.list[datetime]:
        """Like `next`."""
        timetable = await self._arun(self._listing)
        return next_times(self._found(name, timetable), timetable.now_ms, number)

    def run_now(self, name: str) -> JobHandle[Any]:
        """Enqueue what a schedule calls, now and once more; it goes on as if nothing was.

        Raises:
            UnknownSchedule: as `pause`.
            UnknownTask: this application does not know its task.
            QueueFull: as `task.enqueue`.
        """
        record = self._found(name, self._run(self._listing))
        task, job = self._job(record)
        return task.stored(job)

    async def arun_now(self, name: str) -> JobHandle[Any]:
        """Like `run_now`."""
        record = self._found(name, await self._arun(self._listing))
        task, job = self._job(record)
        return await task.astored(job)

    # -- steps of these --

    @property
    def _engine(self) -> Engine:
        return self._place.engine

    @property
    def _listing(self) -> Plan[Timetable]:
        return self._engine.list_schedules()

    def _run(self, plan: Plan[T]) -> T:
        return self._engine.run(plan)

    async def _arun(self, plan: Plan[T]) -> T:
        return await self._engine.arun(plan)

    def _found(self, name: str, timetable: Timetable) -> ScheduleRecord:
        known = {record.name: record for record in timetable.schedules}
        if name not in known:
            raise UnknownSchedule(
                f"no schedule {name!r} in {self._place.url}{nearest(str(name), known)}; put it, or "
                "start a worker whose code declares it"
            )
        return known[name]

    def _shown(self, record: ScheduleRecord | None) -> Schedule:
        if record is None:
            raise UnknownSchedule("the schedule was removed just now; put it anew")
        return schedule_of(record)

    def _put(
        self, name: str, rule: Rule | str | timedelta, task: Any, options: ScheduleOptions
    ) -> Put:
        checked_name(name, "schedule")
        known = [option for option in ScheduleOptions.__annotations__ if option != "name"]
        check_options(options, known, "schedules.put()")
        made = self._made(name, rule, task, options)
        if not upcoming(decode_spec(made.spec), name, self._place.clock.wall_ms(), 1):
            raise BadOption(f"schedule {name!r} would never fire: its time has passed")
        return Put(spec=made.spec, task=made.task)

    def _made(
        self, name: str, rule: Rule | str | timedelta, task: Any, options: ScheduleOptions
    ) -> Declared:
        """Return a schedule as a store keeps it."""
        if not isinstance(task, Task | Enqueuer):
            raise BadOption(f"{task!r:.200} is no task; give one, or task.using(…)")
        spec = spec_of(rule, **_timing(options))
        args, kwargs = options.get("args", ()), options.get("kwargs") or {}
        if not isinstance(args, tuple) or not isinstance(kwargs, Mapping):
            raise BadOption(f"args is {args!r:.100}, kwargs {kwargs!r:.100}; use a tuple, a dict")
        draft, job = task.call(args, dict(kwargs))
        own = self._tasks.get(job.task or "")
        if own is None or task.place is not self._place:
            raise BadOption(f"{task!r} is of another application; give one of this one")
        return Declared(name, own.name, encode_spec(_filled(spec, draft, job, own.template)))

    def _job(self, record: ScheduleRecord) -> tuple[Task[..., Any, Any], Job]:
        """Return a job of a schedule, as if it were due now, with an id of its own."""
        task = self._tasks.get(record.task)
        if task is None:
            raise UnknownTask(
                f"schedule {record.name!r} calls task {record.task!r}, which this application "
                f"does not know{nearest(record.task, self._tasks)}; run it with one that does"
            )
        spec, now_ms = decode_spec(record.spec), self._place.clock.wall_ms()
        made = scheduled(spec, task.template)
        headers = headers_of(spec, record.name, now_ms)
        return task, replace(made, id=new_id(now_ms), headers=headers)


def _timing(options: ScheduleOptions) -> dict[str, Any]:
    """Return those of the options that say when."""
    return {
        option: value
        for option, value in options.items()
        if option in ("tz", "catch_up", "most", "jitter")
    }


def _filled(spec: Spec, draft: Draft, job: Job, own: Job) -> Spec:
    """Return a spec with what it calls, and how that differs from the task's own ways."""
    return replace(
        spec,
        body=job.body,
        queue=None if job.queue == own.queue else job.queue,
        priority=None if job.priority == own.priority else job.priority,
        expires_ms=None if job.expires_ms == own.expires_ms else job.expires_ms,
        group=job.group,
        uses=None if job.uses == own.uses else job.uses,
        tags=None if job.tags == own.tags else job.tags,
        key=None if job.key is None else job.key.name,
        headers=dict(draft.headers),
    )


def schedule_of(record: ScheduleRecord) -> Schedule:
    """Return a schedule as people see it, also one that this version cannot apply."""
    try:
        spec = decode_spec(record.spec)
        rule, next_ms = told(spec.rule()), record.next_ms
        if next_ms is None:
            next_ms = next(iter(upcoming(spec, record.name, record.last_ms, 1)), None)
    except BacklaneError as error:
        spec, rule, next_ms = Spec(), str(error), None
    return Schedule(
        name=record.name,
        task=record.task,
        rule=rule,
        is_declared=record.is_declared,
        paused=record.paused,
        next=None if record.paused or next_ms is None else _moment(next_ms),
        last_job=None if record.last_job is None else uuid.UUID(bytes=record.last_job),
        catch_up=spec.catch_up,
        jitter=timedelta(milliseconds=spec.jitter_ms),
        arguments=msgspec.Raw(spec.body or b"{}"),
        applied=_moment(record.last_ms),
    )


def next_times(record: ScheduleRecord, now_ms: int, number: int) -> list[datetime]:
    """Return when a schedule fires next, whatever is missed or paused."""
    if type(number) is not int or not 1 <= number <= NEXT_MOST:
        raise BadOption(f"number is {number!r}; use a whole number from 1 to {NEXT_MOST:,}")
    after_ms = max(record.last_ms, now_ms)
    found = upcoming(decode_spec(record.spec), record.name, after_ms, number)
    return [_moment(moment_ms) for moment_ms in found]


def _moment(wall_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=wall_ms)
