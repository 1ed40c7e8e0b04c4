"""Slices: how a worker runs the jobs of our own that make large maps of small jobs.

A slice appends its leaves and gives its slot back until they have ended; then it runs
again and results in the list of their results. Whatever happens in between, it may run any
number of times: the ids of its leaves derive from its own, so nothing is appended twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from backlane.content import leaf_body
from backlane.engine.recalling import Resulted
from backlane.engine.selection import Cancel, Redrive, Selection
from backlane.errors import QueueFull
from backlane.model.codec.envelope import as_list, joined
from backlane.model.job import Job, JobRecord, Lease, Note, State, Step
from backlane.model.outcome import (
    Awaiting,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Settlement,
    Succeeded,
)
from backlane.model.retry import DEFAULT_RETRY
from backlane.model.workflow import (
    BEGAN_STEP,
    GATHER_TASK,
    LEAVES,
    REDRIVE_STEP,
    SLICE_TASK,
    Slice,
    Spread,
    calls_of,
    decode_began,
    decode_slice,
    decode_spread,
    encode,
    leaf,
    leaf_ids,
    leaves_tag,
    own_job,
    sliced,
    windowed,
)
from backlane.options import Terms
from backlane.worker.verdict import judge, parked

if TYPE_CHECKING:
    from backlane.app import Backlane

NULL = b"null"
READ_AT_ONCE = 200
PORTIONS = (LEAVES, 100, 10)  # what is tried to be appended at once in a queue that is full
TERMS = Terms(on_full="refuse", remade=True)

Child = Callable[[int, list[bytes]], Job]  # by its place among the ids of all


def run_own(app: Backlane, lease: Lease, body: bytes) -> Settlement:
    """Run one of our own tasks; its references have been put into `body`."""
    started = time.monotonic()
    try:
        outcome = _outcome(app, lease, body)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is an error of this job
        outcome = judge(error, lease, DEFAULT_RETRY, None)
    return Settlement(lease.job, lease.token, outcome, int((time.monotonic() - started) * 1000))


def _outcome(app: Backlane, lease: Lease, body: bytes) -> Outcome:
    if lease.task == GATHER_TASK:
        return Succeeded(NULL)
    if lease.task == SLICE_TASK:
        return _slice(app, lease, decode_slice(body))
    return _spread(app, lease, decode_spread(body))


def _slice(app: Backlane, lease: Lease, cut: Slice) -> Outcome:
    if cut.template.task not in app.tasks:
        return parked(lease)

    def child(at: int, ids: list[bytes]) -> Job:
        return leaf(cut.template, lease.job, ids[at], bytes(cut.bodies[at]))

    family = _Family(app, lease, partial=cut.partial)
    ended = family.ended(child, len(cut.bodies))
    if not isinstance(ended, list):
        return ended
    return Succeeded(as_list(ended) if cut.gathers else NULL)


def _spread(app: Backlane, lease: Lease, spread: Spread) -> Outcome:
    task = app.tasks.get(spread.template.task or "")
    if task is None:
        return parked(lease)
    items = msgspec.json.decode(spread.items)
    calls = calls_of(items, spread.way, spread.size)
    bodies = [
        msgspec.Raw(leaf_body(task.codec, args, number, keeps=spread.keeps))
        for number, args in enumerate(calls)
    ]
    parts = list(sliced(bodies))
    if len(parts) <= 1:
        whole = Slice(
            template=spread.template,
            bodies=bodies,
            partial=spread.partial,
            gathers=spread.gathers,
        )
        return _slice(app, lease, whole)

    def child(at: int, ids: list[bytes]) -> Job:
        return _child(lease, spread, parts[at], ids, at)

    ended = _Family(app, lease, partial=spread.partial).ended(child, len(parts))
    if not isinstance(ended, list):
        return ended
    return Succeeded(joined(ended) if spread.gathers else NULL)


def _child(lease: Lease, spread: Spread, part: list[msgspec.Raw], ids: list[bytes], at: int) -> Job:
    body = encode(
        Slice(template=spread.template, bodies=part, partial=spread.partial, gathers=spread.gathers)
    )
    made = own_job(ids[at], SLICE_TASK, body, spread.template)
    return msgspec.structs.replace(
        made,
        parent=lease.job,
        workflow=spread.workflow.bytes,
        after=windowed(ids, at),
        tags=(leaves_tag(len(part)),),
    )


class _Family:
    """The children of one slice, as they are in the store."""

    def __init__(self, app: Backlane, lease: Lease, *, partial: bool) -> None:
        self._app, self._lease, self._partial = app, lease, partial
        self._engine = app.engine

    def ended(self, child: Child, number: int) -> list[bytes] | Outcome:
        """Return what all of them resulted in; or what is to become of the slice meanwhile."""
        steps = self._steps()
        began = steps.get(BEGAN_STEP)
        if began is None:
            began = encode((self._app.clock.wall_ms(), number))
            if not self._keep(BEGAN_STEP, began):
                return Awaiting(())  # another has the slice by now: this is not heard
        ids = leaf_ids(self._lease.job, decode_began(began)[0], number)
        known = {} if self._lease.token == 1 else self._results(ids)
        missing = [child(at, ids) for at, job in enumerate(ids) if job not in known]
        waited = [job for job, found in known.items() if found.state is None]
        if missing:
            waited += self._append(missing, is_alone=not waited)
            self._cancel_with_us(waited)
            return Awaiting(tuple(waited))
        if waited:
            return Awaiting(tuple(waited))
        bad = [job for job in ids if known[job].state is not State.SUCCEEDED]
        if bad and not self._partial:
            return self._fail(bad, len(ids), is_again=steps.get(REDRIVE_STEP) == b"true")
        return [known[job].result or NULL for job in ids]

    def _fail(self, bad: list[bytes], number: int, *, is_again: bool) -> Outcome:
        if is_again:  # it was redriven: so are those it failed by
            self._keep(REDRIVE_STEP, b"false")
            self._engine.run(self._engine.amend(Selection(ids=tuple(bad)), Redrive()))
            return Awaiting(tuple(bad))
        self._keep(REDRIVE_STEP, b"true")
        first = self._engine.run(self._engine.find(Selection(ids=(bad[0],)))).records[0]
        last = first.errors[-1].error if first.errors else None
        told = f": {last.kind}: {last.message}" if last else ""
        message = (
            f"{len(bad)} of {number} jobs did not succeed; the first is job "
            f"{uuid.UUID(bytes=first.id)}, which ended as {first.state.value}{told}"
        )
        return Failed(Reason.ERROR, ErrorRecord("backlane.errors.JobFailed", message[:2000]))

    def _append(self, missing: Sequence[Job], *, is_alone: bool) -> list[bytes]:
        """Append what there is room for; what was taken is waited for, then comes the rest.

        Raises:
            QueueFull: there was no room at all, and nothing to be waited for.
        """
        intake, taken, at = self._app.intake, list[bytes](), 0
        for portion in PORTIONS:
            try:
                while at < len(missing):
                    part = missing[at : at + portion]
                    intake.append(part, TERMS)
                    taken += [job.id for job in part]
                    at += len(part)
                return taken
            except QueueFull as full:
                if not full.can_fit and portion == PORTIONS[-1]:
                    raise
                refused = full
        if not taken and is_alone:
            raise refused
        return taken

    def _cancel_with_us(self, ids: list[bytes]) -> None:
        """Cancel children that were appended after who cancelled this job looked for them.

        He asks this job to stop first and looks for children then, so one of both sees them.
        """
        own = self._read([self._lease.job]).get(self._lease.job)
        if own is None or not own.cancelling:
            return
        self._cancel(ids)
        for child in self._read(ids).values():
            if child.task == SLICE_TASK and child.token:
                for step in self._engine.run(self._engine.recall(child.id)):
                    if step.name == BEGAN_STEP:
                        self._cancel(leaf_ids(child.id, *decode_began(step.result)))

    def _cancel(self, ids: list[bytes]) -> None:
        for at in range(0, len(ids), LEAVES):
            part = Selection(ids=tuple(ids[at : at + LEAVES]))
            self._engine.run(self._engine.amend(part, Cancel()))

    # -- the store --

    def _steps(self) -> dict[str, bytes]:
        if self._lease.token == 1:  # nobody ran it before
            return {}
        steps = self._engine.run(self._engine.recall(self._lease.job))
        return {step.name: step.result for step in steps}

    def _keep(self, name: str, result: bytes) -> bool:
        note = Note(self._lease.job, self._lease.token, steps=(Step(name, result),))
        return not self._engine.run(self._engine.note([note]))

    def _read(self, ids: list[bytes]) -> dict[bytes, JobRecord]:
        found: dict[bytes, JobRecord] = {}
        for at in range(0, len(ids), READ_AT_ONCE):
            part = Selection(ids=tuple(ids[at : at + READ_AT_ONCE]))
            page = self._engine.run(self._engine.find(part, READ_AT_ONCE, brief=True))
            found |= {record.id: record for record in page.records}
        return found

    def _results(self, ids: list[bytes]) -> dict[bytes, Resulted]:
        found: dict[bytes, Resulted] = {}
        for at in range(0, len(ids), LEAVES):
            part = self._engine.run(self._engine.results(ids[at : at + LEAVES]))
            found |= {one.job: one for one in part}
        return found
