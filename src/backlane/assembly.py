"""Assembly: nodes become jobs, all of which are stored together or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from msgspec.structs import replace

from backlane.content import Call, Items, Member, Origin, Out, is_out
from backlane.errors import BadOption, TooLarge
from backlane.handle import JobHandle, Reader
from backlane.middleware import Bulk, Stored, compose
from backlane.middleware import Call as Wrapped
from backlane.model.codec import encode_headers
from backlane.model.codec.envelope import (
    Envelope,
    Hole,
    Reference,
    What,
    emptied,
    enveloped,
    holes,
)
from backlane.model.ids import new_id
from backlane.model.job import Edge, Job, When
from backlane.model.workflow import (
    GATHER_TASK,
    SLICE_TASK,
    SPREAD_TASK,
    Slice,
    encode,
    leaves_tag,
    own_job,
    windowed,
)
from backlane.ties import fillers, folded, in_order
from backlane.workflow_handle import WorkflowHandle

MOST_JOBS = 10_000  # in one transaction: it holds the store's only writer


class Placed(NamedTuple):
    """The jobs that a node has become."""

    jobs: tuple[bytes, ...]  # what is waited for
    what: What  # how its result is read from them
    alarm: bytes | None = None  # the one that is skipped if one of several fails


class Assembly:
    """The jobs of one workflow, made of what it is to result in."""

    def __init__(self, shape: object) -> None:
        """Make the jobs.

        Raises:
            TypeError, BadOption, Unencodable, TooLarge: a node lacks an argument, or has
                a wrong one, or there are too many.
        """
        outs = fillers(holes(shape, ("value",), is_out))
        if not outs:
            raise BadOption("a workflow without nodes has nothing to run; give it one")
        self.origin: Origin = outs[0].node.origin
        self.jobs: list[Job] = []
        self._made: list[tuple[Member, int]] = []  # which of the jobs are calls of whom
        self._now = self.origin.intake.place.clock.wall_ms()
        self._placed: dict[int, Placed] = {}
        members = in_order([out.node for out in outs])
        self._check_home(members)
        self._needed = {
            id(out.node)
            for member in members
            for out in fillers(member.content.holes)
            if not out.is_failure
        }
        self.end = new_id(self._now)
        is_one = is_out(shape) and not _is_sliced(outs[0].node)
        for member in members:
            is_end = is_one and member is outs[0].node
            self._place(member, self.end if is_end else None)
        if not is_one:
            self._gather(shape)
        if len(self.jobs) > MOST_JOBS:
            raise TooLarge(
                f"the workflow has {len(self.jobs):,} jobs, and {MOST_JOBS:,} at most are stored "
                "at once; map a task over the items, which cuts them into slices"
            )

    def _check_home(self, members: list[Member]) -> None:
        for member in members:
            if member.origin.intake is not self.origin.intake:
                raise BadOption(
                    f"{member!r} is of another application than {self.origin.task!r}, and a "
                    "workflow is stored as a whole, in one store; let the last job of one "
                    "enqueue the other"
                )

    def _place(self, member: Member, job: bytes | None) -> None:
        member.content.check()
        match member.content:
            case Call():
                self._call(member, member.content, job or new_id(self._now))
            case Items() if member.content.is_known:
                self._slices(member, member.content)
            case Items():
                self._spread(member, member.content, job or new_id(self._now))

    def _call(self, member: Member, content: Call, job: bytes) -> None:
        body = enveloped(self._envelope(member), content.body)
        made = replace(
            member.origin.template(),
            id=job,
            body=body,
            after=self._after(member),
            workflow=self.end,
        )
        self._placed[id(member)] = Placed((job,), What.VALUE)
        self._made.append((member, len(self.jobs)))
        self.jobs.append(made)

    def _envelope(self, member: Member) -> Envelope:
        references = tuple(self._references(member.content.holes))
        is_dropped = not member.origin.codec.keeps_result
        return Envelope(references, keeps=is_dropped and id(member) in self._needed)

    def _slices(self, member: Member, content: Items) -> None:
        like = replace(member.origin.template(), workflow=self.end)
        leaf = replace(like, delay_ms=0, workflow=None)
        codec = member.origin.codec
        is_needed = id(member) in self._needed
        keeps = is_needed and not codec.keeps_result
        gathers = is_needed or codec.keeps_result
        after = self._after(member)
        ids: list[bytes] = []
        for at, bodies in enumerate(content.parts(keeps=keeps)):
            ids.append(new_id(self._now))
            body = encode(
                Slice(template=leaf, bodies=bodies, partial=content.partial, gathers=gathers)
            )
            made = replace(
                own_job(ids[at], SLICE_TASK, body, like),
                after=folded((*after, *windowed(ids, at))),
                delay_ms=like.delay_ms,
                tags=(leaves_tag(len(bodies)),),
            )
            self.jobs.append(made)
        alarm = None
        if member.handlers:
            alarm = new_id(self._now)
            edges = tuple(Edge(job) for job in ids)
            self.jobs.append(replace(own_job(alarm, GATHER_TASK, b"{}", like), after=edges))
        self._placed[id(member)] = Placed(tuple(ids), What.JOINED, alarm)

    def _spread(self, member: Member, content: Items, job: bytes) -> None:
        like = replace(member.origin.template(), workflow=self.end)
        codec = member.origin.codec
        is_needed = id(member) in self._needed
        body = encode(
            {
                "template": replace(like, delay_ms=0, workflow=None),
                "items": None,
                "workflow": uuid.UUID(bytes=self.end),
                "way": content.way,
                "size": content.size,
                "partial": content.partial,
                "gathers": is_needed or codec.keeps_result,
                "keeps": is_needed and not codec.keeps_result,
            }
        )
        envelope = Envelope(tuple(self._references(content.holes)))
        made = own_job(job, SPREAD_TASK, enveloped(envelope, body), like)
        self.jobs.append(replace(made, after=self._after(member), delay_ms=like.delay_ms))
        self._placed[id(member)] = Placed((job,), What.VALUE)

    def _gather(self, shape: object) -> None:
        """Make the last job of what results in several: its body says how they are put together."""
        found = holes(shape, ("value",), is_out)
        body = encode({"value": emptied(shape, is_out)})
        references = tuple(self._references(found))
        edges = [
            Edge(job, out.when) for out in fillers(found) for job in self._jobs_of(out.node, out)
        ]
        like = replace(self.origin.template(), workflow=self.end)
        made = own_job(self.end, GATHER_TASK, enveloped(Envelope(references), body), like)
        self.jobs.append(replace(made, after=folded(edges)))

    # -- what waits for what --

    def _after(self, member: Member) -> tuple[Edge, ...]:
        edges = [
            Edge(job, out.when)
            for out in fillers(member.content.holes)
            for job in self._jobs_of(out.node, out)
        ]
        for other, when in member.edges:
            placed = self._placed[id(other)]
            if when is When.FAILED and placed.alarm:
                edges.append(Edge(placed.alarm, when))
            else:
                edges += [Edge(job, when) for job in placed.jobs]
        return folded(edges)

    def _jobs_of(self, member: Member, out: Out) -> tuple[bytes, ...]:
        placed = self._placed[id(member)]
        return (placed.alarm,) if out.is_failure and placed.alarm else placed.jobs

    def _references(self, found: Iterable[Hole]) -> Iterator[Reference]:
        for hole in found:
            if is_out(hole.filler):
                yield self._reference(hole.at, cast(Out, hole.filler))
                continue
            outs = cast("tuple[Out, ...]", hole.filler)
            singles = [self._placed[id(out.node)] for out in outs]
            is_plain = (
                all(one.what is What.VALUE for one in singles)
                and len({(out.partial, out.is_failure) for out in outs}) == 1
            )
            if is_plain and not outs[0].is_failure:
                jobs = tuple(uuid.UUID(bytes=one.jobs[0]) for one in singles)
                yield Reference(hole.at, jobs, What.LIST, outs[0].partial)
            else:
                for number, out in enumerate(outs):
                    yield self._reference((*hole.at, number), out)

    def _reference(self, at: tuple[str | int, ...], out: Out) -> Reference:
        what = What.FAILURE if out.is_failure else self._placed[id(out.node)].what
        jobs = tuple(uuid.UUID(bytes=job) for job in self._jobs_of(out.node, out))
        return Reference(at, jobs, what, out.partial)

    # -- storing them --

    def enter(self, bulk: Bulk) -> list[Job]:
        """Return the jobs, each call of a task gone through the middleware around enqueues."""
        jobs = list(self.jobs)
        wraps = self.origin.intake.wraps
        if wraps:
            for member, at in self._made:
                jobs[at] = bulk.enter(compose(wraps, _Park(self, member, jobs[at]))(_call(member)))
        return jobs

    def leave(self, bulk: Bulk) -> WorkflowHandle[Any]:
        """Return the grip on the workflow, once its jobs are stored."""
        place = self.origin.intake.place
        if self.origin.intake.wraps:
            bulk.leave(
                [
                    JobHandle(self.jobs[at].id, Reader(place, member.origin.codec.decode_result))
                    for member, at in self._made
                ]
            )
        return WorkflowHandle(self.end, place, self.origin.intake.decoders)

    def rebuilt(self, member: Member, job: Job, call: Wrapped) -> Job:
        """Return a job as a middleware has changed its call."""
        content = cast(Call, member.content)
        if call.args is not content.args or call.kwargs is not content.kwargs:
            changed = content.changed(call.args, call.kwargs)
            envelope = Envelope(
                tuple(self._references(changed.holes)), keeps=self._envelope(member).keeps
            )
            job = replace(job, body=enveloped(envelope, changed.body))
        if call.headers is not member.origin.draft.headers:
            job = replace(job, headers=encode_headers(call.headers))
        return job


class _Park:
    """The innermost of a call's middleware: it says which job the call has become."""

    def __init__(self, assembly: Assembly, member: Member, job: Job) -> None:
        self._assembly, self._member, self._job = assembly, member, job

    async def __call__(self, call: Wrapped) -> Any:
        return await Stored(self._assembly.rebuilt(self._member, self._job, call))


def _call(member: Member) -> Wrapped:
    content = cast(Call, member.content)
    template = member.origin.draft.template
    return Wrapped(
        task=member.origin.task,
        queue=template.queue,
        args=content.args,
        kwargs=content.kwargs,
        headers=member.origin.draft.headers,
    )


def store(shape: object) -> WorkflowHandle[Any]:
    """Store what results in this shape."""
    bulk, assembly = Bulk(), Assembly(shape)
    try:
        jobs = assembly.enter(bulk)
        assembly.origin.intake.append(jobs, assembly.origin.draft.terms)
    except BaseException as error:
        bulk.fail(error)
        raise
    return assembly.leave(bulk)


async def astore(shape: object) -> WorkflowHandle[Any]:
    """Like `store`."""
    bulk, assembly = Bulk(), Assembly(shape)
    try:
        jobs = assembly.enter(bulk)
        await assembly.origin.intake.aappend(jobs, assembly.origin.draft.terms)
    except BaseException as error:
        bulk.fail(error)
        raise
    return assembly.leave(bulk)


def _is_sliced(member: Member) -> bool:
    return isinstance(member.content, Items) and member.content.is_known
