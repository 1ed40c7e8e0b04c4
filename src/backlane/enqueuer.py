"""Enqueuers: what makes jobs of calls of one task, all with the same options.

`task.using(…)` returns one. It binds and encodes arguments, leads calls through the
middleware around enqueues, and hands the jobs to the intake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from msgspec.structs import replace

from backlane.draft import Draft
from backlane.errors import BadOption
from backlane.handle import JobHandle, Reader
from backlane.intake import Intake
from backlane.middleware import Bulk, Call, Next, Stored, compose, drive
from backlane.model.codec import Codec
from backlane.model.job import Job, Receipt
from backlane.model.option import check_options
from backlane.needs import check_enqueue
from backlane.options import EnqueueOptions, checked_items
from backlane.place import Place
from backlane.transaction import JobTransaction
from backlane.unique import Unique, check_names
from backlane.visit import Tally

if TYPE_CHECKING:  # workflows are loaded by the first node: they are an eighth of an import
    from backlane.content import Origin
    from backlane.node import Node

P = ParamSpec("P")
R = TypeVar("R")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # of one call: (args, kwargs)

BATCH = 1_000  # jobs a transaction: a full one costs 10 ms, and others get their turn between
ATOMIC_LIMIT = 10_000  # jobs in one transaction at most: it holds the store's only writer


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
        check_enqueue(self._intake.place, options, "using")
        unique = options.get("unique")
        if isinstance(unique, Unique):
            check_names(unique, self._codec.keys, "using()")
        draft = self._draft.with_options(options, self._intake.queue)
        return Enqueuer(draft, self._codec, self._intake, self._reader)

    def transact(self, connection: object | None) -> JobTransaction:
        """Return a transaction of no job, for a function that is called directly."""
        return JobTransaction(self._intake.place.engine.transaction(connection), None)

    # -- for schedules --

    @property
    def place(self) -> Place:
        """Where its jobs are kept."""
        return self._intake.place

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Draft, Job]:
        """Return the draft of a call, and what all of its jobs have in common, body included.

        Raises:
            BadOption: an option says what is true of one job only.
            TypeError, Unencodable, TooLarge: as `enqueue`.
        """
        self._draft.check_lasting()
        body = self._codec.encode_arguments(args, kwargs)
        job = replace(self._draft.template, body=body)
        return self._draft, self._draft.keyed(job, body)

    def stored(self, job: Job) -> JobHandle[R]:
        """Store a job that was made of this draft; see `Task.enqueue` for errors."""
        return self._handle(self._intake.append([job], self._draft.terms)[0])

    async def astored(self, job: Job) -> JobHandle[R]:
        """Like `stored`."""
        return self._handle((await self._intake.aappend([job], self._draft.terms))[0])

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

    # -- parts of workflows --

    @overload
    def node(self, /) -> Node[R]: ...
    @overload
    def node(self, /, *args: P.args, **kwargs: P.kwargs) -> Node[R]: ...
    def node(self, /, *args: Any, **kwargs: Any) -> Node[R]:
        """See `Task.node`."""
        from backlane import content, node

        return node.Node(self._origin(), content.Call(self._codec, args, kwargs))

    def map(self, items: Iterable[Any] | None = None, *, partial: bool = False) -> Node[list[R]]:
        """See `Task.map`."""
        return self._mapped(items, "map", 1, partial=partial)

    def starmap(
        self, items: Iterable[Any] | None = None, *, partial: bool = False
    ) -> Node[list[R]]:
        """See `Task.starmap`."""
        return self._mapped(items, "starmap", 1, partial=partial)

    def chunks(
        self, items: Iterable[Any] | None, size: int, *, partial: bool = False
    ) -> Node[list[R]]:
        """See `Task.chunks`."""
        return self._mapped(items, "chunks", size, partial=partial)

    def _mapped(
        self, items: Iterable[Any] | None, way: str, size: int, *, partial: bool
    ) -> Node[list[R]]:
        from backlane import content, node
        from backlane.model.workflow import Way

        made = content.Items(self._codec, items, Way(way), size, partial=partial)
        return node.Node(self._origin(), made)

    def _origin(self) -> Origin:
        from backlane import content

        return content.Origin(self._draft, self._codec, self._intake)

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
