"""Wake: what a claim does about limits before it takes jobs, and while it does.

It looks at gates that may have room, and at no others: those are found by one step into
an index for each queue, however many jobs wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.protocol import Wanted
from backlane.engine.sqlite.limits.gates import Gate, Gates, decode_limit
from backlane.engine.sqlite.record.moves import Moves
from backlane.engine.sqlite.rows.head import OPEN
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.rows.rows import UNBLOCK
from backlane.engine.sqlite.store.transaction import SqliteTx, array, integers
from backlane.model.clock import Clock
from backlane.model.limit import Use

MOVES = 1_000  # jobs a claim wakes at most, and as many that it finds without room

OPEN_OF: Sql[tuple[int, str]] = Sql(
    """
    select distinct queue.id, queue.name
    from carray(?) as given
    cross join backlane_job as job on job.id = given.value
    cross join backlane_queue as queue on queue.id = job.queue
    where kind = ?
    and paused = 0
    """
)
# Those of the queues that have a limit of their own, and what runs and waits in them.
OWN: Sql[tuple[int, str, bytes, int, int, int, int]] = Sql(
    """
    select queue.id, queue.name, coalesce(tuned, declared), coalesce(spent_us, 0),
        (
            select count(*)
            from backlane_acquired as acquired
            where acquired.gate = gate.id
            and until_ms > ?2
        ),
        (
            select coalesce(sum(running), 0)
            from backlane_counter as counter
            where counter.queue = queue.id
        ),
        (
            select coalesce(sum(ready + blocked), 0)
            from backlane_counter as counter
            where counter.queue = queue.id
        )
    from carray(?1) as given
    cross join backlane_queue as queue on queue.id = given.value
    cross join backlane_limit as bound on bound.name = 'queue:' || queue.name
    left join backlane_gate as gate
    on gate.name = bound.name
    and gate.part = ''
    and gate.turn = 0
    """
)
OPENED: Sql[tuple[str, str, int]] = Sql(
    """
    select gate.name, part, turn
    from backlane_gate_queue as line
    cross join backlane_gate as gate on gate.id = line.gate
    where line.queue = ?
    and open_ms <= ?
    order by open_ms
    limit ?
    """
)
# In the order of backlane_blocked_gate.
WAITING: Sql[tuple[Any, ...]] = Sql(
    """
    select gate, level, rank, id, token, blocked.seq, blocked.queue, blocked.priority, attempt,
        revision + 1, blocked.size, started_ms, owner, 0, 0, blocked.lane, blocked.place,
        crashes, parked_ms
    from backlane_blocked as blocked
    cross join backlane_job as job on job.seq = blocked.seq
    where gate = ?
    and blocked.queue = ?
    order by level, blocked.place, blocked.seq
    limit ?
    """
)
NEXT_OPEN: Sql[tuple[int, int, int | None]] = Sql(
    """
    select queue, open_ms, open_wall_ms
    from backlane_gate_queue
    where queue = ?
    and open_ms > ?
    order by open_ms
    limit 1
    """
)
# Looked at, and open still: others took the tokens since, or their queue is full itself.
STILL_OPEN: Sql[tuple[int, bytes]] = Sql(
    """
    select spent_us, coalesce(tuned, declared)
    from backlane_gate_queue as line
    cross join backlane_gate as gate on gate.id = line.gate
    cross join backlane_limit as bound on bound.name = gate.name
    where line.queue = ?
    and open_ms <= ?
    and blocked > 0
    and turn = 0
    and spent_us > ?
    limit ?
    """
)
# The wall clock was set, by which tokens are counted.
OPEN_ALL: Sql[tuple[()]] = Sql(
    """
    update backlane_gate_queue
    set open_ms = 0
    where queue = ?
    and open_ms > ?
    """
)
JUMP_MS = 20  # of the wall clock, beside the other one: less is how both are read


class Waking:
    """What one claim wakes, and lets wait."""

    def __init__(
        self, tx: SqliteTx, clock: Clock, moves: Moves, *, has_open: bool, has_own: bool
    ) -> None:
        self.has_open = has_open  # gates that may have room, now or at a known time
        self._has_own = has_own  # limits of queues
        self.stopped = 0  # ready jobs that were found without room
        self.ready = 0  # that were made so
        self._woken = 0
        self._tx = tx
        self._clock = clock
        self._now_us = clock.wall_ms() * 1000
        self._moves = moves
        self._opened: list[tuple[int, str]] = []  # that are wanted, and not paused
        self._own: dict[int, Gate] = {}  # by queue: its own limit
        self._waiting: dict[int, int] = {}  # by queue that has one: jobs that waited before
        self._given: dict[int, int] = {}  # by queue: leases

    async def wake(self, wanted: Wanted) -> None:
        """Make blocked jobs ready, as many as there is room for."""
        opened: list[tuple[int, str]] = []
        if wanted.ids:
            opened = await self._tx.rows(OPEN_OF, array(wanted.ids), wanted.kind)
        elif wanted.queues:
            opened = await self._tx.rows(OPEN, array(wanted.queues), wanted.kind)
        await self.wake_in(opened)

    async def wake_in(self, queues: list[tuple[int, str]]) -> None:
        """Like `wake`, of these queues."""
        self._opened = queues
        if not queues:
            return
        if self._has_own:
            await self._read_own()
        if self.has_open:
            await self._wake()

    async def _wake(self) -> None:
        queues = [queue for queue, _ in self.giving]
        await self._look_at_clocks(queues)
        asked = [(queue, self._clock.boot_ms(), MOVES) for queue in queues]
        rows = await self._tx.each(OPENED, asked) if asked else []
        uses = sorted({(name, part, bool(turn)) for name, part, turn in rows})
        for _, parts in groupby(uses, key=lambda use: use[0]):
            await self._wake_parts([Use(*use) for use in parts], queues)

    async def _look_at_clocks(self, queues: Sequence[int]) -> None:
        """Open gates at once that were to open at a time that has another name now."""
        boot, wall = self._clock.boot_ms(), self._clock.wall_ms()
        asked = [(queue, boot) for queue in queues]
        for queue, open_ms, open_wall_ms in await self._tx.each(NEXT_OPEN, asked):
            if open_wall_ms is None or abs(open_wall_ms - wall - (open_ms - boot)) > JUMP_MS:
                await self._tx.rows(OPEN_ALL, queue, boot)

    async def _read_own(self) -> None:
        """Read the limits that these queues have themselves."""
        numbers = integers([queue for queue, _ in self._opened])
        for row in await self._tx.rows(OWN, numbers, self._clock.boot_ms()):
            queue, name, stored, spent_us, acquired, running, waiting = row
            limit = decode_limit(stored)
            if limit is None or limit.per_group:
                continue
            gate = Gate(0, Use(f"queue:{name}"), limit, running, None, spent_us, acquired)
            for (of, _), counted in self._moves.counts.items():
                if of == queue:  # not stored yet
                    gate.running += counted.running + counted.started
            self._own[queue] = gate
            self._waiting[queue] = waiting

    @property
    def giving(self) -> list[tuple[int, str]]:
        """The queues that leases may come from now."""
        return [(queue, name) for queue, name in self._opened if self.left(queue) != 0]

    @property
    def is_at_its_end(self) -> bool:
        return self.stopped >= MOVES

    def left(self, queue: int) -> int | None:
        """How many more leases the queue's own limit allows; None: any number."""
        own = self._own.get(queue)
        return own.room(self._now_us) if own else None

    def lease(self, queue: int) -> None:
        """Note that a lease was given."""
        own = self._own.get(queue)
        if own:
            own.take(self._now_us)
            self._given[queue] = self._given.get(queue, 0) + 1

    async def store(self) -> None:
        """Take the tokens of the queues' own limits."""
        given = [(queue, number) for queue, number in self._given.items() if self._has_rate(queue)]
        if given:
            gates = Gates(self._tx, self._clock)
            await gates.read({self._own[queue].use: () for queue, _ in given})
            for queue, number in given:
                gates[self._own[queue].use].spend(number, self._now_us)
            await gates.store()

    def _has_rate(self, queue: int) -> bool:
        limit = self._own[queue].limit
        return limit is not None and limit.rate is not None

    # -- waking --

    async def _wake_parts(self, uses: Sequence[Use], queues: Sequence[int]) -> None:
        """Wake who waits for the parts of one limit, until none of them has room."""
        while True:
            gates = Gates(self._tx, self._clock)
            await gates.read(dict.fromkeys(uses, queues))
            chosen = await self._choose(gates, uses, queues)
            await gates.store()
            if not chosen:
                return
            await self._tx.each(UNBLOCK, [(held.seq,) for held, _, _ in chosen])
            for held, rank, use in chosen:
                self._moves.at(held.queue, held.priority).blocked -= 1
                self._moves.wake(held, rank, use)
                self._tx.rings.jobs.append(held.id)
            self._woken += len(chosen)
            ready = await self._moves.line_up(self._tx)
            self.ready += ready
            await self._moves.store_rows(self._tx)
            if ready == len(chosen):
                return

    async def _choose(
        self, gates: Gates, uses: Sequence[Use], queues: Sequence[int]
    ) -> list[tuple[Held, int, Use]]:
        """Take who comes next out of those that wait at gates with room."""
        budget = MOVES - self._woken
        chosen = []
        for use in uses:
            gate = gates[use]
            room = gate.room(self._now_us)
            left = budget if room is None else room - sum(gate.line(it).ready for it in queues)
            left = min(left, budget)
            if left <= 0:
                continue
            asked = [(gate.id, queue, left) for queue in queues if gate.line(queue).blocked > 0]
            rows = await self._tx.each(WAITING, asked) if asked else []
            rows.sort(key=lambda row: (row[1], row[16], row[5]))
            for row in rows[:left]:
                held = Held(*row[3:])
                gate.line(held.queue).blocked -= 1
                chosen.append((held, row[2], use))
            budget -= len(rows[:left])
        return chosen

    async def next_token_ms(self) -> int | None:
        """Until what waits for a token may have it; 0: there is more to be moved."""
        if MOVES in (self._woken, self.stopped):
            return 0
        if not self._opened:
            return None
        now = self._clock.boot_ms()
        asked = [(queue, now) for queue, _ in self._opened]
        rows = await self._tx.each(NEXT_OPEN, asked) if self.has_open else []
        waits = [open_ms - now for _, open_ms, _ in rows]
        spent = [(queue, now, self._now_us, MOVES) for queue, _ in self._opened]
        for spent_us, stored in await self._tx.each(STILL_OPEN, spent) if self.has_open else ():
            gate = Gate(0, Use(""), decode_limit(stored), spent_us=spent_us)
            if wait_ms := gate.token_in_ms(self._now_us):
                waits.append(wait_ms)
        for queue, own in self._own.items():
            waiting = self._waiting[queue]
            for (of, _), counted in self._moves.counts.items():
                waiting += counted.ready + counted.blocked if of == queue else 0
            wait_ms = own.token_in_ms(self._now_us)
            if waiting > 0 and wait_ms:
                waits.append(wait_ms)
        return min(waits, default=None)
