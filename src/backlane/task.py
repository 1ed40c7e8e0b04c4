"""Tasks: a function registered for later execution, with its options.

`@app.task` makes one. Calling it runs the function, unchanged; `enqueue` and its twins
make jobs of calls and hand them to the verb that the application gave. Arguments are
bound by the function's signature and encoded at once, so that what a worker could not
read is refused where it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from itertools import islice
from typing import Any, Final, Generic, ParamSpec, TypeVar, Unpack, cast

from backlane.context import Context
from backlane.declaration import Declaration
from backlane.draft import Draft, uses_of
from backlane.engine.protocol import Capability
from backlane.errors import BadOption
from backlane.handle import JobHandle, Reader
from backlane.intake import Intake
from backlane.middleware import Bulk, Call, Next, Stored, compose, drive
from backlane.model.codec import Codec
from backlane.model.job import Job, Lane, Receipt
from backlane.model.option import check_options
from backlane.model.queue import RunsIn
from backlane.model.retry import Retry
from backlane.options import EnqueueOptions, checked_items
from backlane.transaction import JobTransaction
from backlane.visit import Tally

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # of one call: (args, kwargs)

BATCH = 1_000  # jobs a transaction: a full one costs 10 ms, and others get their turn between
ATOMIC_LIMIT = 10_000  # jobs in one transaction at most: it holds the store's only writer


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
        )
        draft = Draft(template, limits=declared.limits)
        self._plain: Enqueuer[P, R] = Enqueuer(draft, self.codec, intake, reader)
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


class Enqueuer(Generic[P, R]):
    """What enqueues calls of one task, all with the same options; it never changes.

    .. versionadded:: 0.1
    """

    def __init__(self, draft: Draft, codec: Codec, intake: Intake, reader: Reader) -> None:
        self._draft = draft
        self._codec = codec
        self._intake = intake
        self._reader = reader
        wraps = intake.wraps
        self._is_wrapped = bool(wraps)
        self._wrapped: Next = compose(wraps, self._store)
        self._awrapped: Next = compose(wraps, self._astore)
        self._bulk_wrapped: Next = compose(wraps, self._park)

    def using(self, **options: Unpack[EnqueueOptions]) -> Enqueuer[P, R]:
        """Return an enqueuer with these options in place of this one's; see `Task.using`."""
        check_options(options, EnqueueOptions.__annotations__, "using()")
        if "key" in options:
            self._intake.require(Capability.KEYS, "using(key=…)")
        if "idempotency_key" in options:
            self._intake.require(Capability.KEYS, "using(idempotency_key=…)")
        if "connection" in options:
            self._intake.require(Capability.JOINS, "using(connection=…)")
        draft = self._draft.with_options(options, self._intake.queue)
        return Enqueuer(draft, self._codec, self._intake, self._reader)

    def transact(self, connection: object | None) -> JobTransaction:
        """Return a transaction of no job, for a function that is called directly."""
        return JobTransaction(self._intake.place.engine.transaction(connection), None)

    # -- one --

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """See `Task.enqueue`."""
        if self._is_wrapped:
            return cast("JobHandle[R]", drive(self._wrapped(self._call(args, kwargs))))
        job = self._draft.job(self._codec.encode_arguments(args, kwargs), self._intake.place.clock)
        return self._handle(self._intake.append([job], self._draft.terms)[0])

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """See `Task.aenqueue`."""
        if self._is_wrapped:
            return cast("JobHandle[R]", await self._awrapped(self._call(args, kwargs)))
        job = self._draft.job(self._codec.encode_arguments(args, kwargs), self._intake.place.clock)
        return self._handle((await self._intake.aappend([job], self._draft.terms))[0])

    # -- many --

    def enqueue_many(
        self, calls: Iterable[Arguments], *, atomic: bool = False
    ) -> list[JobHandle[R]]:
        """See `Task.enqueue_many`."""
        handles: list[JobHandle[R]] = []
        tally = Tally()
        parts = None if atomic else tally  # what is all or nothing comes in together
        for batch in _batches(calls, atomic=atomic):
            bulk = Bulk()
            with _telling(tally, bulk):
                jobs = self._jobs(batch, bulk)
                receipts = self._intake.append(jobs, self._draft.terms, parts)
            handles += self._handles(receipts, bulk)
        return handles

    async def aenqueue_many(
        self, calls: Iterable[Arguments], *, atomic: bool = False
    ) -> list[JobHandle[R]]:
        """See `Task.aenqueue_many`."""
        handles: list[JobHandle[R]] = []
        tally = Tally()
        parts = None if atomic else tally  # what is all or nothing comes in together
        for batch in _batches(calls, atomic=atomic):
            bulk = Bulk()
            with _telling(tally, bulk):
                jobs = self._jobs(batch, bulk)
                receipts = await self._intake.aappend(jobs, self._draft.terms, parts)
            handles += self._handles(receipts, bulk)
        return handles

    # -- steps of these --

    def _handle(self, receipt: Receipt) -> JobHandle[R]:
        return JobHandle(receipt.first or receipt.job, self._reader, receipt)

    def _handles(self, receipts: list[Receipt], bulk: Bulk) -> list[JobHandle[R]]:
        reader = self._reader
        handles: list[JobHandle[R]] = [JobHandle(it.first or it.job, reader, it) for it in receipts]
        return bulk.leave(handles) if self._is_wrapped else handles

    def _jobs(self, batch: list[Arguments], bulk: Bulk) -> list[Job]:
        self._draft.check_many()
        if self._is_wrapped:
            calls = (self._call(args, kwargs) for args, kwargs in batch)
            return [bulk.enter(self._bulk_wrapped(call)) for call in calls]
        encode = self._codec.encode_arguments
        return self._draft.jobs(
            [encode(args, kwargs) for args, kwargs in batch], self._intake.place.clock
        )

    # -- behind the middleware --

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        template = self._draft.template
        return Call(
            task=template.task or "",
            queue=template.queue,
            args=args,
            kwargs=kwargs,
            headers=self._draft.headers,
        )

    def _called(self, call: Call) -> Job:
        body = self._codec.encode_arguments(call.args, call.kwargs)
        changed = None if call.headers is self._draft.headers else call.headers
        return self._draft.job(body, self._intake.place.clock, changed)

    async def _store(self, call: Call) -> JobHandle[R]:
        receipts = self._intake.append([self._called(call)], self._draft.terms)
        return self._handle(receipts[0])

    async def _astore(self, call: Call) -> JobHandle[R]:
        receipts = await self._intake.aappend([self._called(call)], self._draft.terms)
        return self._handle(receipts[0])

    async def _park(self, call: Call) -> Any:
        return await Stored(self._called(call))


def _batches(calls: Iterable[Arguments], *, atomic: bool) -> Iterator[list[Arguments]]:
    """Cut calls into what one transaction takes, reading no further than needed."""
    if not isinstance(atomic, bool):
        raise BadOption(f"atomic is {atomic!r}; use True or False")
    source = iter(checked_items(calls, "enqueue_many(…)", "calls, each (args, kwargs)"))
    size = ATOMIC_LIMIT + 1 if atomic else BATCH
    while batch := list(islice(source, size)):
        if len(batch) > ATOMIC_LIMIT:
            raise BadOption(
                f"atomic=True takes up to {ATOMIC_LIMIT:,} jobs in one transaction; leave it "
                "out, or enqueue one job that enqueues the others"
            )
        for call in batch:
            if not _is_call(call):
                raise BadOption(
                    f"{call!r:.200} is not a call; give each as (args, kwargs): ((7,), {{}})"
                )
        yield batch


def _is_call(call: object) -> bool:
    return (
        type(call) is tuple and len(call) == 2 and type(call[0]) is tuple and type(call[1]) is dict
    )


@contextmanager
def _telling(tally: Tally, bulk: Bulk) -> Iterator[None]:
    """Where a batch fails: end the calls in their middleware, and tell what is stored."""
    try:
        yield
    except BaseException as error:
        bulk.fail(error)
        if tally.stored:
            error.add_note(f"The first {tally.stored} jobs of this call are stored.")
        raise
