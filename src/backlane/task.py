"""Tasks: a function registered for later execution, with its options.

`@app.task` makes one. Calling it runs the function, unchanged; `enqueue` and its twins
make jobs of calls and hand them to the verb that the application gave. Arguments are
bound by the function's signature and encoded at once, so that what a worker could not
read is refused where it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from backlane.context import Context
from backlane.declaration import Declaration
from backlane.draft import Draft, check_in_time, told_apart, uses_of
from backlane.engine.plan import Plan
from backlane.engine.protocol import Engine
from backlane.engine.recalling import Latest
from backlane.enqueuer import Arguments, Enqueuer
from backlane.errors import NoResult, WrongUse
from backlane.handle import JobHandle, Reader
from backlane.intake import Intake
from backlane.model.codec import Codec
from backlane.model.job import Job, Lane
from backlane.model.queue import RunsIn
from backlane.model.retry import Retry
from backlane.options import EnqueueOptions
from backlane.place import Place
from backlane.unique import check_names

if TYPE_CHECKING:  # see enqueuer.py
    from backlane.node import Node

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")


class Task(Generic[P, C, R]):
    """A registered function: call it, or enqueue calls of it.

    `P` are the parameters of its calls (without the `Context`), `C` is what a direct
    call returns (for an async function its coroutine), `R` what its jobs result in.

    .. versionadded:: 0.1
    """

    name: Final[str]
    queue: Final[str]
    function: Final[Callable[..., Any]]
    is_async: Final[bool]
    runs_in: Final[RunsIn]
    lane: Final[Lane]
    takes_context: Final[bool]
    keeps_result: Final[bool]
    priority: Final[int]
    expires_ms: Final[int | None]

    def __init__(self, declared: Declaration, intake: Intake, max_bytes: int) -> None:
        self.name = declared.name
        self.queue = declared.queue
        self.function = declared.function
        self.is_async = declared.is_async
        self.runs_in = declared.runs_in
        self.lane = Lane.EXCLUSIVE if declared.runs_in == "process" else Lane.SHARED
        self.takes_context = declared.takes_context
        self.keeps_result = declared.keeps_result
        self.priority = declared.priority
        self.expires_ms = declared.expires_ms
        self.resource = declared.resource
        self.retry: Final[Retry] = declared.retry
        self.policy = declared.policy
        self.codec = Codec(
            declared.function,
            name=declared.name,
            skip_first=declared.takes_context,
            max_bytes=max_bytes,
            keeps_result=declared.keeps_result,
        )
        reader = Reader(intake.place, self.codec.decode_result)
        template = Job(
            id=b"",
            queue=self.queue,
            task=self.name,
            body=b"",
            priority=declared.priority,
            lane=self.lane,
            expires_ms=declared.expires_ms,
            policy=self.policy,
            resource=declared.resource,
            uses=uses_of(intake.queue(self.queue), None, declared.limits),
            tags=declared.tags,
        )
        self.unique = declared.unique
        if declared.unique is not None:
            check_names(declared.unique, self.codec.keys, f"task {self.name!r}")
            template = told_apart(template, declared.unique)
            check_in_time(template, declared.unique)
        self.template: Final = template
        draft = Draft(template, limits=declared.limits, unique=declared.unique)
        self._plain: Enqueuer[P, R] = Enqueuer(draft, self.codec, intake, reader)
        intake.decoders[self.name] = self.codec.decode_result
        update_wrapper(self, declared.function)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> C:
        """Run the function here and now; a `Context` it wants is a detached one."""
        if self.takes_context:
            context = Context.detached(self.name, transact=self._plain.transact)
            return cast("C", self.function(context, *args, **kwargs))
        return cast("C", self.function(*args, **kwargs))

    def using(self, **options: Unpack[EnqueueOptions]) -> Enqueuer[P, R]:
        """Return what enqueues calls of this task with these options.

        Raises:
            UnknownOption, BadOption, UnknownQueue: an option does not exist or cannot work.
            NotSupported: the engine lacks what an option needs.
        """
        return self._plain.using(**options)

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store one call as a job, durably, and return the grip on it.

        Raises:
            QueueFull: the queue is at its bound; nothing was stored.
            TypeError: the arguments do not fit the signature.
            Unencodable, TooLarge: an argument has no encoding, or all are too large.
            OutcomeUnknown: it may be stored; `using(id=…)` with its id sends it again.
            EngineUnavailable: the store did not take it.
        """
        return self._plain.enqueue(*args, **kwargs)

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Like `enqueue`."""
        return await self._plain.aenqueue(*args, **kwargs)

    def enqueue_many(
        self, calls: Iterable[Arguments], *, atomic: bool = False
    ) -> list[JobHandle[R]]:
        """Store many calls, each `(args, kwargs)`, in transactions of 1,000 in order.

        With `atomic=True` all are stored or none, and 10,000 at most.

        Raises:
            QueueFull: `accepted` jobs, the first of the call, are stored; no other is.
            BadOption: a call is not `(args, kwargs)`, or there are too many for `atomic`.
            TypeError, Unencodable, TooLarge, OutcomeUnknown, EngineUnavailable: as
                `enqueue`; a note on the error tells how many jobs are stored.
        """
        return self._plain.enqueue_many(calls, atomic=atomic)

    async def aenqueue_many(
        self, calls: Iterable[Arguments], *, atomic: bool = False
    ) -> list[JobHandle[R]]:
        """Like `enqueue_many`."""
        return await self._plain.aenqueue_many(calls, atomic=atomic)

    # -- the newest result --

    def latest(self) -> R:
        """Return the result of the newest job that succeeded, at once.

        It is kept for ever, whatever becomes of its job, until a later one succeeds.

        Raises:
            NoResult: there is none yet.
            WrongUse: the task was declared without `keep_latest=True`.
        """
        engine = self._plain.place.engine
        return cast("R", self._decoded(engine.run(self._latest(engine))))

    async def alatest(self) -> R:
        """Like `latest`."""
        engine = self._plain.place.engine
        return cast("R", self._decoded(await engine.arun(self._latest(engine))))

    def _latest(self, engine: Engine) -> Plan[Latest | None]:
        if not self.policy.keeps_latest:
            raise WrongUse(
                f"task {self.name!r} does not keep its newest result; declare it with "
                "@app.task(keep_latest=True)"
            )
        return engine.latest(self.name)

    def _decoded(self, found: Latest | None) -> Any:
        if found is None:
            raise NoResult(f"no job of task {self.name!r} has succeeded yet; enqueue one")
        return self.codec.decode_result(found.result)

    # -- for schedules --

    @property
    def place(self) -> Place:
        """Where its jobs are kept."""
        return self._plain.place

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Draft, Job]:
        """Return what all jobs of one call have in common; see `Enqueuer.call`."""
        return self._plain.call(args, kwargs)

    def stored(self, job: Job) -> JobHandle[R]:
        """Store a job that was made of this task's template; see `enqueue` for errors."""
        return self._plain.stored(job)

    async def astored(self, job: Job) -> JobHandle[R]:
        """Like `stored`."""
        return await self._plain.astored(job)

    # -- parts of workflows --

    @overload
    def node(self, /) -> Node[R]: ...
    @overload
    def node(self, /, *args: P.args, **kwargs: P.kwargs) -> Node[R]: ...
    def node(self, /, *args: Any, **kwargs: Any) -> Node[R]:
        """Return a call that is not enqueued yet, as a node of a workflow.

        Arguments may be what other nodes result in (`other.out`). In a chain or a chord
        the first one may be left out: it is what the part before results in.

        Raises:
            TypeError: the arguments do not fit the signature.
            Unencodable, TooLarge: as `enqueue`.
            BadOption: an option (of `using`) that does not go with a node.
        """
        return self._plain.node(*args, **kwargs)

    def map(self, items: Iterable[Any] | None = None, *, partial: bool = False) -> Node[list[R]]:
        """Return a node that calls the task with each item, and results in a list of results.

        There may be a million items: they become jobs a few thousand at a time. They may be
        what another node results in (`other.out`), also by coming behind it in a chain.

        Args:
            partial: succeed in any case; None stands for the result of a call that failed.
        """
        return self._plain.map(items, partial=partial)

    def starmap(
        self, items: Iterable[Any] | None = None, *, partial: bool = False
    ) -> Node[list[R]]:
        """Like `map`, where each item is the list of the arguments of a call."""
        return self._plain.starmap(items, partial=partial)

    def chunks(
        self, items: Iterable[Any] | None, size: int, *, partial: bool = False
    ) -> Node[list[R]]:
        """Like `map`, but each call gets a list of up to `size` items as its one argument."""
        return self._plain.chunks(items, size, partial=partial)
