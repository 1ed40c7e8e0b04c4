"""Workflow handles: the caller's grip on jobs that wait for each other.

A workflow is known by the id of its last job. All else is read from the store: which
nodes there are, what they wait for, how many leaves of a map have ended. So any process
can hold a grip on it, at any time, and there is no counter that all of its jobs write.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec

from backlane.engine.selection import Cancel, Redrive, Selection
from backlane.errors import BadOption, JobNotFound, WrongUse
from backlane.handle import JobHandle, refuse_inside_a_job
from backlane.model.graph import below, handlers_of, is_bad, is_unused, levels, state_of
from backlane.model.ids import parse_id
from backlane.model.job import JobRecord, State, Step
from backlane.model.retry import Duration
from backlane.model.workflow import (
    BEGAN_STEP,
    OWN_TASKS,
    SLICE_TASK,
    SPREAD_TASK,
    decode_began,
    leaf_ids,
    leaves_of,
)
from backlane.place import Place
from backlane.result import Decode, Results, Steps, refuse
from backlane.wait import Wait, in_a_loop

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

PAGE = 1_000
WATCHED = 1_000  # nodes whose changes ring; others are seen within a second


class WorkflowProgress(msgspec.Struct, frozen=True):
    """How far a workflow is: nodes and leaves of maps that have ended, of all.

    Handlers of errors count once they are needed. `failed` are those of `done` that did
    not succeed.

    .. versionadded:: 0.1
    """

    state: State
    done: int
    total: int
    failed: int = 0

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 1.0


class WorkflowHandle(Generic[R_co]):
    """A workflow that was enqueued, whose last node results in `R_co`.

    .. versionadded:: 0.1
    """

    __slots__ = ("_decoders", "_end", "_place")

    def __init__(self, end: bytes, place: Place, decoders: Mapping[str, Decode]) -> None:
        self._end, self._place, self._decoders = end, place, decoders

    def __repr__(self) -> str:
        return f"<WorkflowHandle {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkflowHandle) and other._end == self._end

    def __hash__(self) -> int:
        return hash(self._end)

    @property
    def id(self) -> uuid.UUID:
        """The workflow's id, which is that of its last job."""
        return uuid.UUID(bytes=self._end)

    # -- one reading each --

    def nodes(self) -> list[JobRecord]:
        """Read the jobs of the workflow in the order of their enqueue, without leaves of maps."""
        return self._run(self._nodes())

    async def anodes(self) -> list[JobRecord]:
        """Like `nodes`."""
        return await self._arun(self._nodes())

    @property
    def progress(self) -> WorkflowProgress:
        """How far it is now."""
        return self._run(self._progress())

    async def aprogress(self) -> WorkflowProgress:
        """Like `progress`."""
        return await self._arun(self._progress())

    @property
    def state(self) -> State:
        """Where it is: `running` while something of it may still run."""
        return self.progress.state

    # -- the result --

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the workflow to end and return what its last node returned.

        Of a group it is the list of what each returned. Inside a job, use
        `context.join([workflow])`.

        Raises:
            ResultTimeout, JobFailed, JobCancelled, JobExpired, ResultGone, WrongUse: as
                `JobHandle.result`; of the node that failed first.
        """
        refuse_inside_a_job()
        wait = Wait(self._place.clock, timeout)
        bell = self._place.engine.watch((self._end,))
        try:
            while not (record := self._run(self._last())).state.is_final and not wait.is_over:
                if in_a_loop():
                    raise WrongUse(
                        f"result() of workflow {self.id} would block the running event loop; "
                        "use `await workflow.aresult()`"
                    )
                wait.heard(bell)
        finally:
            bell.close()
        return cast("R_co", self._run(self._value(record, wait)))

    async def aresult(self, timeout: Duration | None = None) -> R_co:  # noqa: ASYNC109 - as `result`
        """Like `result`."""
        refuse_inside_a_job()
        wait = Wait(self._place.clock, timeout)
        bell = self._place.engine.watch((self._end,))
        try:
            while (
                not (record := await self._arun(self._last())).state.is_final and not wait.is_over
            ):
                await wait.aheard(bell)
        finally:
            bell.close()
        return cast("R_co", await self._arun(self._value(record, wait)))

    # -- acting --

    def cancel(self) -> int:
        """Cancel all that has not ended; return how many jobs that were.

        Those that wait end at once, those that run are asked to stop.
        """
        return self._run(self._cancel())

    async def acancel(self) -> int:
        """Like `cancel`."""
        return await self._arun(self._cancel())

    def retry(self, node: JobHandle[Any] | uuid.UUID | str | None = None) -> int:
        """Run again what did not succeed, and what was skipped because of it.

        Args:
            node: only this one and those that wait for it, directly or not.

        Returns how many nodes were redriven. Whatever succeeded is not run again.

        Raises:
            WrongUse: the given node is none of this workflow, or has succeeded.
        """
        return self._run(self._retry(node))

    async def aretry(self, node: JobHandle[Any] | uuid.UUID | str | None = None) -> int:
        """Like `retry`."""
        return await self._arun(self._retry(node))

    # -- following --

    def follow(self) -> Iterator[WorkflowProgress]:
        """Yield how far it is now, then each change, until it has ended."""
        wait, before = Wait(self._place.clock, None), None
        bell = self._place.engine.watch(self._run(self._watched()))
        try:
            while before is None or not before.state.is_final:
                progress = self.progress
                if progress != before:
                    yield progress
                    before = progress
                    wait.restart()
                elif not progress.state.is_final:
                    wait.heard(bell)
        finally:
            bell.close()

    async def events(self) -> AsyncIterator[WorkflowProgress]:
        """Like `follow`, as an async iterator."""
        wait, before = Wait(self._place.clock, None), None
        bell = self._place.engine.watch(await self._arun(self._watched()))
        try:
            while before is None or not before.state.is_final:
                progress = await self.aprogress()
                if progress != before:
                    yield progress
                    before = progress
                    wait.restart()
                elif not progress.state.is_final:
                    await wait.aheard(bell)
        finally:
            bell.close()

    # -- steps of these: plans, whoever carries them out --

    def _run(self, steps: Steps[T]) -> T:
        engine, answer = self._place.engine, None
        while True:
            try:
                plan = steps.send(answer)
            except StopIteration as done:
                return cast("T", done.value)
            answer = engine.run(plan)

    async def _arun(self, steps: Steps[T]) -> T:
        engine, answer = self._place.engine, None
        while True:
            try:
                plan = steps.send(answer)
            except StopIteration as done:
                return cast("T", done.value)
            answer = await engine.arun(plan)

    def _last(self) -> Steps[JobRecord]:
        page = yield self._place.engine.find(Selection(ids=(self._end,)), limit=1)
        if not page.records:
            raise JobNotFound(
                f"no workflow {self.id} is stored: it was deleted, its history has been pruned, "
                "or it is in another store; check the id and the URL"
            )
        return cast(JobRecord, page.records[0])

    def _nodes(self) -> Steps[list[JobRecord]]:
        found: list[JobRecord] = []
        cursor = None
        while True:
            selection = Selection(workflow=self._end)
            page = yield self._place.engine.find(selection, PAGE, cursor)
            found += page.records
            cursor = page.cursor
            if cursor is None:
                break
        if not found:
            yield from self._last()
        return found[::-1]

    def _watched(self) -> Steps[tuple[bytes, ...]]:
        nodes = yield from self._nodes()
        return (self._end, *(node.id for node in nodes[:WATCHED]))

    def _progress(self) -> Steps[WorkflowProgress]:
        nodes = yield from self._nodes()
        handlers, known = handlers_of(nodes), {node.id for node in nodes}
        done = total = failed = 0
        for node in nodes:
            leaves = leaves_of(node.tags)
            if node.task == SPREAD_TASK and node.token:  # of leaves, or of slices of its own
                ids = yield from self._leaf_ids(node)
                leaves = len(ids) if ids and ids[0] not in known else None
            if leaves is not None:
                total += leaves
                if node.state is State.SUCCEEDED:
                    done += leaves
                elif node.token:
                    ended = yield from self._leaves(node)
                    done += sum(leaf.state.is_final for leaf in ended)
                    failed += sum(is_bad(leaf) for leaf in ended)
            elif node.task not in OWN_TASKS and not is_unused(node, handlers):
                total += 1
                done += node.state.is_final
                failed += is_bad(node)
        return WorkflowProgress(state_of(self._end, nodes, handlers), done, total, failed)

    def _leaves(self, node: JobRecord) -> Steps[list[JobRecord]]:
        """Read the leaves that a slice has appended."""
        ids = yield from self._leaf_ids(node)
        found: list[JobRecord] = []
        for at in range(0, len(ids), PAGE):
            part = tuple(ids[at : at + PAGE])
            page = yield self._place.engine.find(Selection(ids=part), PAGE, brief=True)
            found += page.records
        return found

    def _leaf_ids(self, node: JobRecord) -> Steps[list[bytes]]:
        steps: list[Step] = yield self._place.engine.recall(node.id)
        for step in steps:
            if step.name == BEGAN_STEP:
                return leaf_ids(node.id, *decode_began(step.result))
        return []

    def _cancel(self) -> Steps[int]:
        engine, number, cursor = self._place.engine, 0, None
        yield from self._last()
        while True:
            selection = Selection(workflow=self._end)
            amended = yield engine.amend(selection, Cancel(), cursor)
            number += len(amended.changed) + len(amended.flagged)
            cursor = amended.cursor
            if cursor is None:
                break
        nodes = yield from self._nodes()  # from here on, what still appends sees that it is to stop
        for node in nodes:
            if node.task in (SLICE_TASK, SPREAD_TASK) and node.token:
                ids = yield from self._leaf_ids(node)
                for at in range(0, len(ids), PAGE):
                    part = Selection(ids=tuple(ids[at : at + PAGE]))
                    amended = yield engine.amend(part, Cancel())
                    number += len(amended.changed) + len(amended.flagged)
        return number

    def _retry(self, given: JobHandle[Any] | uuid.UUID | str | None) -> Steps[int]:
        nodes = yield from self._nodes()
        again = [node for node in nodes if is_bad(node)]
        if given is not None:
            root = given.id.bytes if isinstance(given, JobHandle) else parse_id(given)
            if root not in {node.id for node in again}:
                raise WrongUse(
                    f"job {uuid.UUID(bytes=root)} is no node of workflow {self.id} that failed, "
                    "was cancelled or expired; see workflow.nodes()"
                )
            reached = below(root, nodes)
            again = [node for node in again if node.id in reached]
        for node in again:
            if node.state is not State.FAILED:  # one that failed by its leaves redrives them itself
                yield from self._redrive_leaves(node)
        number = 0
        for level in levels(again):
            for at in range(0, len(level), PAGE):
                part = Selection(ids=tuple(level[at : at + PAGE]))
                amended = yield self._place.engine.amend(part, Redrive())
                number += len(amended.changed)
        return number

    def _redrive_leaves(self, node: JobRecord) -> Steps[None]:
        """Let the leaves that were cancelled with a slice be there again when it runs."""
        if node.task not in (SLICE_TASK, SPREAD_TASK) or not node.token:
            return
        ids = yield from self._leaf_ids(node)
        for at in range(0, len(ids), PAGE):
            part = Selection(ids=tuple(ids[at : at + PAGE]))
            yield self._place.engine.amend(part, Redrive())

    def _value(self, record: JobRecord, wait: Wait) -> Steps[Any]:
        if record.state is not State.SUCCEEDED:
            nodes: list[JobRecord] = yield from self._nodes()
            if record.state.is_final:  # only whole records have errors
                bad = [node.id for node in nodes if node.state is State.FAILED][:1]
                page = yield self._place.engine.find(Selection(ids=tuple(bad or [record.id])))
                nodes = [*page.records, *nodes]
            refuse(record, nodes, wait)
        return (yield from Results(self._place.engine, self._decoders).value(record))


def found(record: JobRecord, place: Place, decoders: Mapping[str, Decode]) -> WorkflowHandle[Any]:
    """Return the grip on the workflow that ends with this job.

    Raises:
        BadOption: the job is not the end of one.
    """
    end = record.id
    if record.workflow != end:
        whole = uuid.UUID(bytes=record.workflow) if record.workflow else None
        raise BadOption(
            f"{uuid.UUID(bytes=end)} is a job and no workflow"
            + (f"; it is a part of workflow {whole}" if whole else "; use app.job(id)")
        )
    return WorkflowHandle(end, place, decoders)
