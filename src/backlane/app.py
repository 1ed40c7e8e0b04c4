"""The application: which tasks and queues there are, and the way into the store.

    app = Backlane("sqlite:///jobs.db")

    @app.task(queue="mail")
    async def send_mail(user_id: int) -> str: ...

    job = send_mail.enqueue(7)

Making an application opens nothing. The engine is connected at its first use, and a
process that is forked opens its own. All of it may be used from any thread.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from types import MappingProxyType, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Never,
    ParamSpec,
    Self,
    TypeVar,
    Unpack,
    overload,
)

from msgspec.structs import replace

from backlane.context import Context
from backlane.control import QueueHandle
from backlane.declaration import declare
from backlane.decorator import Declare, DeclareScheduled
from backlane.engine.connect import url_of
from backlane.engine.protocol import Admission, Engine
from backlane.errors import BadOption, WrongUse
from backlane.gauge import Gauge
from backlane.handle import JobHandle, Reader
from backlane.holding import LimitBlock
from backlane.intake import Intake
from backlane.limits import Limits
from backlane.messages import MessageQueue
from backlane.middleware import Middleware
from backlane.model.clock import Clock, SystemClock
from backlane.model.codec import DEFAULT_MAX_BYTES, plain
from backlane.model.event import Observer, Observers
from backlane.model.ids import parse_id
from backlane.model.job import JobRecord
from backlane.model.limiting import Limit, known_limit, use
from backlane.model.option import check_options
from backlane.model.queue import Kind, Queue, checked_name
from backlane.model.retry import DEFAULT_RETRY, Duration, Retry
from backlane.model.schedule import Rule
from backlane.needs import check_patience, check_task
from backlane.options import TaskOptions
from backlane.place import Place
from backlane.resource import ResourceHandle
from backlane.retention import DEFAULT_RETENTION, Retention, checked_retention
from backlane.schedules import ScheduleOptions, Schedules
from backlane.setting import Queues, bounds_of, check_settings, checked_middleware, where
from backlane.task import Task

if TYPE_CHECKING:
    from backlane.workflow_handle import WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")
ObserverT = TypeVar("ObserverT", bound=Observer)

DEFAULT_QUEUE = "default"

_SETTINGS = (
    *("transport", "ledger", "queues", "middleware", "clock", "retry", "max_bytes", "limits"),
    "retention",
)


class Backlane:
    """An application: its tasks, its queues and the store behind them.

    Args:
        url: the store, such as `"sqlite:///jobs.db"` (`sqlite:////` for an absolute
            path) or `"memory://"`.
        transport: instead of `url`, the broker that carries jobs, such as `"amqp://…"`.
        ledger: the store that keeps the jobs of `transport`; without it few things can be.
        queues: the queues of the application. With any given, a task that names
            another one is refused where it is declared; `"default"` always exists.
        middleware: what wraps enqueues and attempts, the outermost first.
        clock: where time comes from; the machine's, unless given.
        retry: the retry of tasks that give none.
        max_bytes: the most bytes of one job's arguments, result or message.
        limits: limits by name, which tasks name in `limits=` and `app.limit` is under.
        retention: how long the records of ended jobs are kept, where their tasks say nothing.

    Raises:
        BadOption: a value cannot work.
        UnknownOption: an option does not exist.

    .. versionadded:: 0.1
    """

    def __init__(  # long: each says what an application is
        self,
        url: str | None = None,
        *,
        transport: str | None = None,
        ledger: str | None = None,
        queues: Iterable[Queue] = (),
        middleware: Iterable[Middleware] = (),
        clock: Clock | None = None,
        retry: Retry = DEFAULT_RETRY,
        max_bytes: int = DEFAULT_MAX_BYTES,
        limits: Mapping[str, Limit] = MappingProxyType({}),
        retention: Retention = DEFAULT_RETENTION,
        **unknown: Never,
    ) -> None:
        check_options(unknown, _SETTINGS, "Backlane()")
        check_settings(clock, retry, max_bytes)
        self.retention = checked_retention(retention)
        self.observers = Observers()
        url = url_of(url, transport, ledger)
        self._place = Place(url, SystemClock() if clock is None else clock)
        self._tasks: dict[str, Task[..., Any, Any]] = {}
        self._queues = Queues(queues, self._place, DEFAULT_QUEUE)
        named = self._queues.named
        self._message_queues: dict[str, MessageQueue] = {}
        wraps = checked_middleware(middleware)
        self.enqueue_middleware = tuple(it.enqueue for it in wraps if it.enqueue is not None)
        self.attempt_middleware = tuple(it.attempt for it in wraps if it.attempt is not None)
        self._retry = retry
        self._max_bytes = max_bytes
        self.limits = Limits(self._place, limits, named.values())
        bounds = bounds_of(named)  # complete: a queue named later has the engine's default
        fair = frozenset(name for name, queue in named.items() if queue.fair)
        self.admission = of_tasks = Admission(bounds, limits=self.limits.in_store, fair=fair)
        of_messages = replace(of_tasks, kind=Kind.MESSAGES)
        self.schedules = Schedules(self._place, self._tasks)
        self._gauge = gauge = Gauge(self._place)
        self._task_intake = Intake(
            self._place,
            gauge,
            of_tasks,
            self._queues.for_tasks,
            self.observers,
            self.enqueue_middleware,
        )
        self._message_intake = Intake(
            self._place, gauge, of_messages, self._queues.known, self.observers, ()
        )

    def __repr__(self) -> str:
        return f"<Backlane {self.url}>"

    # -- what there is --

    @property
    def tasks(self) -> Mapping[str, Task[..., Any, Any]]:
        """The registered tasks by name."""
        return MappingProxyType(self._tasks)

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The queues for tasks, declared or named by a task, by name."""
        return self._queues.of_tasks

    @property
    def url(self) -> str:
        return self._place.url

    @property
    def clock(self) -> Clock:
        return self._place.clock

    @property
    def engine(self) -> Engine:
        """The store, connected at first use (which still opens nothing)."""
        return self._place.engine

    @property
    def intake(self) -> Intake:
        """The way into the store for jobs of tasks that are made already: for the worker."""
        return self._task_intake

    def replaced(self, engine: Engine, clock: Clock) -> AbstractContextManager[None]:
        """Use another engine and clock within the block, in all threads: for tests."""
        return self._place.replaced(engine, clock)

    def observe(self, observer: ObserverT) -> ObserverT:
        """Call `observer` with every event of this process; also a decorator.

        It is called where the event happens and must be quick. One that raises is
        logged and stays.
        """
        if not callable(observer):
            raise BadOption(f"{observer!r} cannot observe; pass a function that takes an event")
        self.observers.add(observer)
        return observer

    # -- declaring --

    @overload
    def task(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(self, function: Callable[Concatenate[Context, P], R], /) -> Task[P, R, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> Declare: ...
    def task(self, function: Any = None, /, **options: Unpack[TaskOptions]) -> Any:
        """Register a function as a task: `@app.task` or `@app.task(queue="mail", …)`.

        Options are `name`, `queue`, `priority` (0 to 9, higher first), `timeout`
        (seconds, or (soft, hard)), `retry`, `expires`, `runs_in`, `keep_result`,
        `resource` (what it depends on: its jobs pause while that fails), `limit` (how many
        of its jobs run at a time or begin in a time, over all workers) and `limits` (names
        of `Backlane(limits=…)` that they are under as well).

        Raises:
            BadOption: the function cannot be a task, or an option cannot work.
            UnknownOption, UnknownQueue, UnknownLimit: names the nearest one that exists.
        """
        check_options(options, TaskOptions.__annotations__, "@app.task")
        if function is None:
            return lambda function: self._declare(function, options)
        return self._declare(function, options)

    def _declare(self, function: object, options: TaskOptions) -> Task[..., Any, Any]:
        queue = self._queues.for_tasks(options.get("queue", DEFAULT_QUEUE))
        check_task(self._place, options)
        declared = declare(function, options, queue, self._retry, self.limits.named)
        check_patience(self._place, declared.name, declared.policy)
        other = self._tasks.get(declared.name)
        if other is not None:
            raise BadOption(
                f"there is a task {declared.name!r} already, {where(other.function)}; give this "
                f"one, {where(declared.function)}, another name: @app.task(name=…)"
            )
        if "limit" in options:
            self.limits.declare(f"task:{declared.name}", options["limit"])
        task: Task[..., Any, Any] = Task(declared, self._task_intake, self._max_bytes)
        self._tasks[task.name] = task
        return task

    def schedule(
        self, rule: Rule | str | timedelta, /, **options: Unpack[ScheduleOptions]
    ) -> DeclareScheduled:
        """Let a task run on time: `@app.schedule("0 3 * * *", tz="Europe/Paris")`.

        Written over `@app.task`, or over a function, which then is a task. The rule is cron
        as text, a timedelta, `Every` or `At`. Options are `tz`, `name` (the task's, unless
        given), `args` and `kwargs` of the call, `catch_up` ("none", "latest" or "all"), `most`
        (due times that are caught up with) and `jitter` (spreads the starts over so long).

        Raises:
            BadOption, UnknownOption: the rule, or an option, cannot work; says which part.
        """
        declare: Any = self.schedules.declaring(rule, options)
        return lambda it: declare(it if isinstance(it, Task) else self._declare(it, {}))

    def messages(self, name: str) -> MessageQueue:
        """Return the message queue of that name.

        Raises:
            WrongUse: a task of this application names it as its queue.
            UnknownQueue: `queues` were given, and it is not among them.
        """
        checked_name(name, "queue")
        found = self._message_queues.get(name)
        if found is not None:
            return found
        user = next((task for task in self._tasks.values() if task.queue == name), None)
        if user is not None or name == DEFAULT_QUEUE:
            raise WrongUse(
                f"queue {name!r} holds tasks{f' ({user.name})' if user else ''}, and a queue holds "
                "tasks or messages; name another one"
            )
        self._queues.known(name)
        self._queues.messages.add(name)
        made = MessageQueue(name, self._message_intake, self._max_bytes)
        return self._message_queues.setdefault(name, made)

    def queue(self, name: str) -> QueueHandle:
        """Return the grip on a queue of tasks or messages, to look at, pause or tune it."""
        if self._queues.is_closed:
            self._queues.known(name)
        return QueueHandle(name, self._place, self._gauge, self.observers)

    def resource(self, name: str) -> ResourceHandle:
        """Return the grip on what tasks name as `resource=`, to look at, open or close it."""
        return ResourceHandle(name, self._place, self.observers)

    def limit(
        self, name: str, *, timeout: Duration | None = None, group: str | None = None
    ) -> LimitBlock:
        """Return a block under a limit: `with app.limit("stripe"): …`, or `async with`.

        Entering waits for a place that no job and nobody else has, `timeout` at most; of
        a rate it takes one token. `group` says which part of a limit per group.

        Raises:
            UnknownLimit: the application declares none of that name; names the nearest.
            BadOption: `timeout` is no duration, or `group` is given and the limit has none.
        """
        limit = self.limits.declared[known_limit(name, self.limits.declared)]
        if group is not None and not limit.per_group:
            raise BadOption(f"limit {name!r} is not per group; leave group= out")
        return LimitBlock(self._place, use(name, limit, group), limit.in_store, timeout)

    # -- jobs by id --

    def job(self, job_id: uuid.UUID | str) -> JobHandle[Any]:
        """Return the grip on a job by its id.

        Its result is decoded by its task; where this application does not know the
        task, it is plain data.

        Raises:
            JobNotFound: it is not stored, or its history has been pruned.
            BadOption: this is not a job's id.
        """
        job = parse_id(job_id)
        return JobHandle(job, self._reader_of(self._reader(plain).record(job)))

    async def ajob(self, job_id: uuid.UUID | str) -> JobHandle[Any]:
        """Like `job`."""
        job = parse_id(job_id)
        return JobHandle(job, self._reader_of(await self._reader(plain).arecord(job)))

    def workflow(self, workflow_id: uuid.UUID | str) -> WorkflowHandle[Any]:
        """Return the grip on a workflow by its id.

        Raises:
            JobNotFound: it is not stored, or its history has been pruned.
            BadOption: this is not the id of a workflow.
        """
        return self._workflow(self._reader(plain).record(parse_id(workflow_id)))

    async def aworkflow(self, workflow_id: uuid.UUID | str) -> WorkflowHandle[Any]:
        """Like `workflow`."""
        return self._workflow(await self._reader(plain).arecord(parse_id(workflow_id)))

    def _workflow(self, record: JobRecord) -> WorkflowHandle[Any]:
        from backlane.workflow_handle import found  # few need it: see enqueuer.py

        return found(record, self._place, self._task_intake.decoders)

    def _reader_of(self, record: JobRecord) -> Reader:
        task = self._tasks.get(record.task or "")
        return self._reader(plain if task is None else task.codec.decode_result)

    def _reader(self, decode_result: Callable[[bytes], Any]) -> Reader:
        return Reader(self._place, decode_result)

    # -- closing --

    def close(self) -> None:
        """Wait for what has begun and let go of the store. The next use opens it anew."""
        self._place.close()

    async def aclose(self) -> None:
        """Like `close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
