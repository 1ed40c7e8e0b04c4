"""Gates: what each use of a limit holds, and who waits in front of it.

A gate is read once for the jobs of a verb, changed here, and written back. Whatever frees
room opens it for the next claim; a claim that finds no room closes it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from backlane.engine.plan import Sql
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.clock import Clock
from backlane.model.limit import Limit, Use, spend, token_in_us, tokens

Order = tuple[int, int, int]  # level, place, seq

FOUND: Sql[
    tuple[int | None, str, str, int, int | None, int | None, int | None, bytes | None, int]
] = Sql(
    """
    select gate.id, given.name, given.part, given.turn, running, holder, spent_us,
        coalesce(tuned, declared),
        (
            select count(*)
            from backlane_acquired as acquired
            where acquired.gate = gate.id
            and until_ms > ?4
        )
    from (select ?1 as name, ?2 as part, ?3 as turn) as given
    left join backlane_gate as gate
    on gate.name = given.name
    and gate.part = given.part
    and gate.turn = given.turn
    left join backlane_limit as bound on bound.name = given.name
    """
)
MAKE: Sql[tuple[int]] = Sql(
    """
    insert into backlane_gate (name, part, turn)
    values (?, ?, ?)
    returning id
    """
)
KEEP: Sql[tuple[()]] = Sql(
    """
    update backlane_gate
    set running = ?, holder = ?, spent_us = ?
    where id = ?
    """
)
# Where the first that waits stands is one step into backlane_blocked_gate.
LINES: Sql[tuple[int, int, int, int, int | None, int | None, int | None, int | None]] = Sql(
    """
    select line.gate, line.queue, ready, blocked, open_ms, level, place, seq
    from backlane_gate_queue as line
    left join backlane_blocked as first on first.seq = (
        select seq
        from backlane_blocked as waiting
        where waiting.gate = line.gate
        and waiting.queue = line.queue
        order by level, place, seq
        limit 1
    )
    where line.gate = ?
    and line.queue = ?
    """
)
KEEP_LINE: Sql[tuple[()]] = Sql(
    """
    insert or replace into backlane_gate_queue (gate, queue, ready, blocked, open_ms,
        open_wall_ms)
    values (?, ?, ?, ?, ?, ?)
    """
)
DROP_LINE: Sql[tuple[()]] = Sql(
    """
    delete from backlane_gate_queue
    where gate = ?
    and queue = ?
    """
)
DROP: Sql[tuple[()]] = Sql(
    """
    delete from backlane_gate
    where id = ?
    and running = 0
    and holder is null
    and spent_us <= ?
    and not exists (select 1 from backlane_gate_queue where gate = backlane_gate.id)
    and not exists (select 1 from backlane_acquired where gate = backlane_gate.id)
    """
)


@dataclass(slots=True)
class Line:
    """The jobs of one queue at a gate."""

    ready: int = 0
    blocked: int = 0
    open_ms: int | None = None  # boot clock: when there may be room for who waits
    first: Order | None = None  # who waits


@dataclass(slots=True)
class Gate:
    """A use, as a verb has it."""

    id: int
    use: Use
    limit: Limit | None
    running: int = 0
    holder: int | None = None  # seq of the job that has the turn
    spent_us: int = 0
    acquired: int = 0
    lines: dict[int, Line] = field(default_factory=dict)  # by queue: those that were read

    def line(self, queue: int) -> Line:
        return self.lines.setdefault(queue, Line())

    def room(self, now_us: int) -> int | None:
        """How many more it allows; None: any number."""
        if self.use.turn:
            return int(self.holder is None and not self.acquired)
        limit = self.limit
        if limit is None:
            return None
        rooms = []
        if limit.concurrency is not None:
            rooms.append(max(0, limit.concurrency - self.running - self.acquired))
        if limit.rate is not None:
            rooms.append(tokens(self.spent_us, limit.rate, now_us))
        return min(rooms, default=None)

    def is_full(self, seq: int, now_us: int) -> bool:
        """Whether this job could not begin now."""
        return not (self.use.turn and self.holder == seq) and self.room(now_us) == 0

    def take(self, now_us: int) -> None:
        """A lease is given: its place, and its token."""
        if not self.use.turn:
            self.running += 1
            self.spend(1, now_us)

    def spend(self, number: int, now_us: int) -> None:
        """Take tokens, if there is a rate."""
        if self.limit is not None and self.limit.rate is not None:
            self.spent_us = spend(self.spent_us, self.limit.rate, number, now_us)

    def token_in_ms(self, now_us: int) -> int:
        """How long until the next token; 0: there is one, or none is needed."""
        rate = self.limit.rate if self.limit and not self.use.turn else None
        return 0 if rate is None else -(-token_in_us(self.spent_us, rate, now_us) // 1000)

    def opens_in_ms(self, ready: int, now_us: int) -> int | None:
        """When there may be room beyond those ready; None: once something was freed."""
        room = self.room(now_us)
        if room is None or room > ready:
            return 0
        rate = self.limit.rate if self.limit and not self.use.turn else None
        if rate is None:
            return None
        left = tokens(self.spent_us, rate, now_us)
        if left > ready:
            return None
        # With a token left, what is ready takes it: the one behind that is what counts.
        spent_us = spend(self.spent_us, rate, ready, now_us) if left else self.spent_us
        return -(-token_in_us(spent_us, rate, now_us) // 1000)


class Gates:
    """The gates that a verb has to do with."""

    def __init__(self, tx: SqliteTx, clock: Clock) -> None:
        self.now_us = clock.wall_ms() * 1000
        self._boot_ms = clock.boot_ms()
        self._tx = tx
        self._gates: dict[Use, Gate] = {}

    def __getitem__(self, use: Use) -> Gate:
        return self._gates[use]

    async def read(self, uses: Mapping[Use, Collection[int]]) -> None:
        """Read the gates of these uses, made if they are new, and their lines of queues."""
        missing = [use for use in uses if use not in self._gates]
        if missing:
            keys = [(use.limit, use.part, int(use.turn), self._boot_ms) for use in missing]
            rows = await self._tx.each(FOUND, keys)
            for use, (number, *_, running, holder, spent_us, limit, acquired) in zip(
                missing, rows, strict=True
            ):
                gate = Gate(number or 0, use, decode_limit(limit))
                if number is not None:
                    gate.running, gate.holder = running or 0, holder
                    gate.spent_us, gate.acquired = spent_us or 0, acquired
                self._gates[use] = gate
            await self._make([self._gates[use] for use in missing if not self._gates[use].id])
        await self._read_lines(uses)

    async def _make(self, new: Sequence[Gate]) -> None:
        if new:
            rows = [(gate.use.limit, gate.use.part, int(gate.use.turn)) for gate in new]
            for gate, (number,) in zip(new, await self._tx.each(MAKE, rows), strict=True):
                gate.id = number

    async def _read_lines(self, uses: Mapping[Use, Collection[int]]) -> None:
        by_id = {self._gates[use].id: self._gates[use] for use in uses}
        missing = [
            (self._gates[use].id, queue)
            for use, queues in uses.items()
            for queue in queues
            if queue not in self._gates[use].lines
        ]
        for gate, queue in missing:
            by_id[gate].lines[queue] = Line()
        for row in await self._tx.each(LINES, missing) if missing else ():
            gate, queue, ready, blocked, open_ms, level, place, seq = row
            first = None if seq is None else (level or 0, place or 0, seq)
            by_id[gate].lines[queue] = Line(ready, blocked, open_ms, first)

    def full(self, uses: Iterable[Use], seq: int) -> Gate | None:
        """The first gate at which a ready job has to wait, if there is one."""
        for use in uses:
            gate = self._gates[use]
            if gate.is_full(seq, self.now_us):
                return gate
        return None

    async def store(self) -> None:
        """Write what became of them, and when to look at those again that have who waits."""
        gates = list(self._gates.values())
        self._gates = {}
        if not gates:
            return
        kept, gone = [], []
        for gate in gates:
            for queue, line in gate.lines.items():
                if line.ready <= 0 and line.blocked <= 0:
                    gone.append((gate.id, queue))
                    continue
                wait_ms = gate.opens_in_ms(line.ready, self.now_us) if line.blocked else None
                opens: tuple[int | None, int | None] = (None, None)
                if wait_ms is not None:
                    opens = (self._boot_ms + wait_ms, self.now_us // 1000 + wait_ms)
                kept.append((gate.id, queue, line.ready, line.blocked, *opens))
        tx = self._tx
        await tx.each(KEEP, [(it.running, it.holder, it.spent_us, it.id) for it in gates])
        if kept:
            await tx.each(KEEP_LINE, kept)
        if gone:
            await tx.each(DROP_LINE, gone)
        await tx.each(DROP, [(gate.id, self.now_us) for gate in gates])


@lru_cache(maxsize=1024)
def decode_limit(stored: bytes | None) -> Limit | None:
    """Return a limit from its stored form; a damaged one bounds nothing."""
    if stored is None:
        return None
    try:
        return msgspec.msgpack.decode(stored, type=Limit)
    except msgspec.MsgspecError:
        return None


def encode_limit(limit: Limit) -> bytes:
    """Return a limit as it is stored."""
    return msgspec.msgpack.encode(limit)
