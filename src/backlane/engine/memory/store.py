"""The rows of the memory engine, and the few moves a row can make.

Every move goes through `_enter`, which keeps the counters of the queue equal to the
rows and notes whose bells must ring once the verb is done.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Collection

from msgspec.structs import replace

from backlane.engine.memory.edges import Edges, by_job, is_met
from backlane.engine.memory.keys import Keys
from backlane.engine.memory.limits import Limits
from backlane.engine.memory.line import Line
from backlane.engine.memory.row import Order, Repeat, Row
from backlane.engine.memory.scheduled import Scheduled
from backlane.engine.memory.windows import Windows
from backlane.engine.moving import Seal
from backlane.engine.protocol import Presence
from backlane.engine.recalling import Latest
from backlane.model.breaker import CLOSED, Breaker, Standing
from backlane.model.clock import Clock
from backlane.model.ids import id_ms
from backlane.model.job import (
    FINAL,
    Job,
    Lane,
    Lease,
    State,
)
from backlane.model.limit import Use
from backlane.model.outcome import Reason
from backlane.model.queue import DEFAULT_BOUNDS, Bounds, Kind

Source = tuple[Lane, str | None]  # kind, resource: of where in a queue leases come from


class Store:
    """Everything kept: what a transaction of this engine is open on."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[bytes, Row] = {}  # in order of append
        self._by_state: dict[State, dict[bytes, Row]] = {state: {} for state in State}
        self._ready: dict[str, dict[Source, list[tuple[Order, bytes]]]] = {}  # each in order
        self.breakers: dict[str, Breaker] = {}  # by resource
        self.lines: dict[str, Line] = {}
        self.limits = Limits(clock)
        self.windows = Windows()
        self.keys = Keys(clock)
        self.edges = Edges()
        self.schedules: dict[str, Scheduled] = {}
        self.latest: dict[str, Latest] = {}  # by task
        self.repeats: dict[tuple[str, str], Repeat] = {}  # by scope and name
        self.steps: dict[bytes, dict[str, bytes]] = {}  # by job and name, in order of first note
        self.workers: dict[str, tuple[Presence, int, int]] = {}  # since (wall), beat (boot)
        self.forgotten_ms = -1  # the newest id that was pruned: older ones may have run
        self.rung_queues: set[object] = set()
        self.rung_jobs: set[object] = set()
        self.secret = os.urandom(32)  # what tickets are signed with
        self.seal: Seal | None = None
        self.arrived: dict[bytes, frozenset[bytes]] = {}  # the latest part of each move
        self._seq = 0

    # -- reading --

    def in_state(self, *states: State) -> list[Row]:
        return [row for state in states for row in self._by_state[state].values()]

    def heads(self, queues: Collection[str], lane: int | None = None) -> list[Row]:
        """The ready job next in line, of each lane of these queues."""
        return [
            self.rows[line[0][1]]
            for queue in queues
            for (its_lane, _), line in self._ready.get(queue, {}).items()
            if line and lane in (None, its_lane)
        ]

    def ready(self, queue: str, lane: Lane) -> list[list[tuple[Order, bytes]]]:
        """The ready jobs of a lane, by resource, each in order."""
        return [line for (its, _), line in self._ready.get(queue, {}).items() if its is lane]

    def held(self, job: bytes, token: int) -> Row | None:
        """The running row whose current lease this is."""
        row = self.rows.get(job)
        current = row is not None and row.state is State.RUNNING and row.token == token
        return row if current else None

    def has_lapsed(self, row: Row) -> bool:
        return row.state is State.RUNNING and row.lease_end_ms <= self.clock.boot_ms()

    def has_expired(self, row: Row) -> bool:
        return row.deadline_ms is not None and row.deadline_ms <= self.clock.wall_ms()

    @property
    def are_some_down(self) -> bool:
        """Whether some resource is not closed: only then jobs wait for one."""
        return any(it.state is not Standing.CLOSED for it in self.breakers.values())

    def is_withheld(self, row: Row) -> bool:
        """Whether a ready job waits for its resource, and not for a worker."""
        breaker = self.breakers.get(row.job.resource or "", CLOSED)
        return breaker.state is not Standing.CLOSED

    def line(self, name: str, kind: Kind, declared: Bounds | None = None) -> Line:
        """The queue, made if it is new."""
        if name not in self.lines:
            self.lines[name] = Line(name, kind, declared or DEFAULT_BOUNDS)
        return self.lines[name]

    # -- the moves of a row --

    def insert(self, job: Job) -> Row:
        now = self.clock.wall_ms()
        self._seq += 1
        row = Row(
            job=job,
            seq=self._seq,
            enqueued_ms=now,
            queue=job.queue,
            lane=job.lane,
            priority=job.priority,
            rank=job.priority,
            place_ms=now,
            deadline_ms=None if job.expires_ms is None else now + job.expires_ms,
        )
        self.rows[job.id] = row
        self.keys.take(job, row.state, row.token, row.enqueued_ms)
        if job.resource:
            self.breakers.setdefault(job.resource, CLOSED)
        row.place_ms += max(0, job.delay_ms)
        if job.after:
            self._tie(row, is_new=True)
        self._line_up(row, is_due=job.delay_ms <= 0)
        self._count(row, +1)
        self.lines[job.queue].tally(row.priority).appended += 1
        self.rung_queues.add(row.queue)
        self.change(row)
        return row

    def take_in(self, row: Row) -> None:
        """A row that another store had, last among its equals; its revision stays."""
        self._seq += 1
        row.seq = self._seq
        self.rows[row.job.id] = row
        self.keys.take(row.job, row.state, row.token, row.enqueued_ms)
        self.limits.take_in(row)
        if row.state is State.READY or row.blocked_on:
            self._place(row)
        self._count(row, +1)
        self.rung_jobs.add(row.job.id)

    def put_off(self, row: Row, delay_ms: int) -> None:
        """Due after a delay, at a new place."""
        due_ms = self.clock.wall_ms() + max(0, delay_ms)
        self.get_in_line(row, is_due=delay_ms <= 0, due_ms=due_ms)

    def put_back(self, row: Row) -> None:
        """In line, at the place it had."""
        self.get_in_line(row)

    def get_in_line(self, row: Row, *, is_due: bool = True, due_ms: int | None = None) -> None:
        """Let a row wait as it may: for other jobs, for its time, for a limit, or ready.

        At the place it had, or at a new one (`due_ms`); what ageing gave it is gone.
        The one way for a row that exists to become ready; of a new one, `insert` is.
        """
        if row.state is State.RUNNING:
            self._free(row)
        self._count(row, -1)
        row.rank = row.priority
        if due_ms is not None:
            row.place_ms, row.virtual_ms = due_ms, None
        self._line_up(row, is_due=is_due)
        self._count(row, +1)
        self._entered(row)

    def _line_up(self, row: Row, *, is_due: bool, woken: Use | None = None) -> None:
        """Decide how a row waits that counts nowhere just now."""
        row.blocked_on = None
        if row.waits_for:
            row.state = State.BLOCKED
        elif not is_due:
            row.state = State.SCHEDULED
        else:
            self._place(row)
            row.blocked_on = self.limits.line_up(row, woken) if row.job.uses else None
            row.state = State.BLOCKED if row.blocked_on else State.READY

    def _place(self, row: Row) -> None:
        """Give a row that is in line its place, if its queue is a fair one."""
        line = self.lines[row.queue]
        if line.is_fair and row.virtual_ms is None:
            is_idle = not (line.held[State.READY] or line.held[State.RUNNING])
            now = self.clock.wall_ms()
            row.virtual_ms = line.fairness.place_ms(row.job.group, now, is_idle=is_idle)

    def wake(self, row: Row) -> None:
        """There is room in what a row is blocked on: it is ready, or blocked on another use."""
        use = row.blocked_on
        self._count(row, -1)
        self._line_up(row, is_due=True, woken=use)
        self._count(row, +1)
        self._entered(row)

    def block(self, row: Row, use: Use) -> None:
        """Let a ready row wait for a use."""
        self._count(row, -1)
        row.state, row.blocked_on = State.BLOCKED, use
        self._count(row, +1)
        self._entered(row)

    def _tie(self, row: Row, *, is_new: bool = False) -> None:
        """Let a job wait for those of its edges that are open.

        Of a new one these are also edges to jobs that are still to be inserted, and
        those that failed already: they are followed once all of its append is there.
        """
        for job, when in by_job(row.job.after).items():
            other = self.rows.get(job)
            if other is None:
                is_open = is_new
            else:
                is_open = not other.state.is_final or not is_met(when, other.state)
            if is_open:
                self.edges.open(row.job.id, job, when)
            elif other is not None:
                self.edges.remember(row.job.id, job)
        row.waits_for = self.edges.left(row.job.id)

    def lease(self, row: Row, owner: str, lease_ms: int) -> Lease:
        now = self.clock.wall_ms()
        row.token += 1
        row.owner, row.started_ms, row.progress = owner, now, None
        row.lease_end_ms = self.clock.boot_ms() + lease_ms
        self._enter(row, State.RUNNING)
        self.limits.spend(row)
        if row.virtual_ms is not None and self.lines[row.queue].is_fair:
            self.lines[row.queue].fairness.take(row.virtual_ms)
        self.keys.free(row.job, row.state, row.token)
        self.lines[row.queue].tally(row.priority).start(
            row.predicted_ms if row.token == 1 else None, now - row.place_ms
        )
        since = row.parked_since_ms
        return Lease(
            job=row.job.id,
            token=row.token,
            attempt=row.attempt,
            queue=row.queue,
            task=row.job.task,
            body=row.job.body,
            headers=row.job.headers,
            priority=row.priority,
            lane=row.lane,
            policy=row.job.policy,
            group=row.job.group,
            enqueued_ms=row.enqueued_ms,
            deadline_ms=row.deadline_ms,
            parked_ms=None if since is None else max(0, now - since),
            crashes=row.crashes,
            resource=row.job.resource,
        )

    def flag(self, row: Row) -> None:
        """Ask a running job to stop."""
        if not row.cancelling:
            row.cancelling = True
            self._enter(row, State.RUNNING)
            self.rung_queues.add(row.queue)

    def end(
        self, row: Row, state: State, *, reason: Reason | None = None, result: bytes | None = None
    ) -> None:
        """Final; `finish` also follows the edges of those who waited for it."""
        row.reason, row.result, row.ended_ms = reason, result, self.clock.wall_ms()
        row.waits_for = 0
        self.edges.drop(row.job.id)
        self._free(row)
        self._enter(row, state)
        self.limits.let_go(row)
        self.lines[row.queue].finished[state] += 1
        self.keys.free(row.job, state, row.token)

    def renew(self, row: Row) -> None:
        """A finished job is as new: ready, its executions counted from zero."""
        row.attempt = row.crashes = 0
        row.reason = row.result = row.ended_ms = row.deadline_ms = row.parked_since_ms = None
        row.progress, row.ran_ms = None, 0
        if row.job.after:
            self._tie(row)
        self.put_off(row, 0)
        self.keys.take(row.job, row.state, row.token, row.enqueued_ms)

    def move(self, row: Row, queue: str) -> None:
        """To another queue, in line there; the priority that ageing gave stays behind."""
        is_due = row.state is not State.SCHEDULED
        self._free(row)
        self._count(row, -1)
        self.windows.drop(row)
        row.queue, row.rank, row.virtual_ms = queue, row.priority, None
        self._line_up(row, is_due=is_due)
        self._count(row, +1)
        self._entered(row)

    def rewrite(self, row: Row, body: bytes, headers: bytes | None) -> None:
        """Give a row other arguments, where it is."""
        self._count(row, -1)
        row.job = replace(row.job, body=body, headers=headers)
        self._count(row, +1)

    def reprioritise(self, row: Row, priority: int) -> None:
        self._count(row, -1)
        row.priority = row.rank = priority
        self._count(row, +1)
        self._entered(row)

    def age(self, row: Row, rank: int) -> None:
        """Let a row wait at another rank; not a change that its job's watchers see."""
        self._count(row, -1)
        row.rank = rank
        self._count(row, +1)

    def forget(self, row: Row, *, pruned: bool = False) -> None:
        self._free(row)
        self._count(row, -1)
        self.windows.drop(row)
        self.limits.let_go(row)
        self.keys.forget(row.job, pruned=pruned)
        self.edges.drop(row.job.id)
        del self.rows[row.job.id]
        self.steps.pop(row.job.id, None)
        self.rung_jobs.add(row.job.id)
        if pruned:
            # An id is older than its job's end, unless its maker's clock was ahead: then
            # its own time would make everybody's ids stale.
            made_ms = min(id_ms(row.job.id), row.ended_ms or 0)
            self.forgotten_ms = max(self.forgotten_ms, made_ms)

    def change(self, row: Row) -> None:
        """The row changed where it is."""
        row.revision += 1
        self.rung_jobs.add(row.job.id)

    def _enter(self, row: Row, state: State) -> None:
        self._count(row, -1)
        row.state, row.blocked_on = state, None
        self._count(row, +1)
        self._entered(row)

    def _entered(self, row: Row) -> None:
        """Note whom it concerns that a row came to where it is."""
        if row.state is not State.RUNNING:
            row.cancelling = False
        if row.state is not State.READY:
            self.windows.drop(row)
        if row.state not in (State.RUNNING, *FINAL):
            self.rung_queues.add(row.queue)
        self.change(row)

    def _free(self, row: Row) -> None:
        """Tell those who wait for what a row holds, or would soon: it is about to leave."""
        if row.job.uses:
            self.rung_queues |= self.limits.waiting_queues(row.job.uses)
        if row.state is State.RUNNING and self.limits.of_queue(row.queue):
            self.rung_queues.add(row.queue)

    def _count(self, row: Row, by: int) -> None:
        """Put a row where its state and order say (by +1), or take it from there (by -1)."""
        if by > 0:
            self._by_state[row.state][row.job.id] = row
        else:
            del self._by_state[row.state][row.job.id]
        if row.state is State.READY:
            sources = self._ready.setdefault(row.queue, {})
            ready = sources.setdefault((row.lane, row.job.resource), [])
            place = (row.order, row.job.id)
            if by < 0:
                del ready[bisect.bisect_left(ready, place)]
            elif not ready or ready[-1] < place:  # new ones nearly always
                ready.append(place)
            else:
                bisect.insort_left(ready, place)
        if row.job.uses:
            self.limits.count(row, by)
        line = self.lines[row.queue]
        line.count(row.state, row.priority, row.job.size, by)
        if row.state not in FINAL and row.job.group is not None:
            line.gather(row.job.group, by)
