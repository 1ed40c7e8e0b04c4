"""Letting go: jobs leave where their uses count them, and others may come in.

All of it is done for many jobs at once: what is read of a job is its packed uses, and most
have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.sqlite.limits.gates import DROP
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.store.transaction import SqliteTx, integers
from backlane.model.limit import Use

RUNNING, READY, BLOCKED, ENDED = range(4)


class Leaving(NamedTuple):
    """A job that is no more where it was; `ENDED`: its turns are free."""

    seq: int
    queue: int
    was: int
    gate: int | None = None  # it was blocked at


PACKED: Sql[tuple[int, bytes]] = Sql(
    """
    select seq, extra
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    where extra is not null
    """
)
LESS_RUNNING: Sql[tuple[int]] = Sql(
    """
    update backlane_gate
    set running = running - ?
    where name = ?
    and part = ?
    and turn = 0
    returning id
    """
)
LESS_READY: Sql[tuple[int]] = Sql(
    """
    update backlane_gate_queue
    set ready = ready - ?
    where queue = ?
    and gate = (select id from backlane_gate where name = ? and part = ? and turn = 0)
    returning gate
    """
)
LESS_BLOCKED: Sql[tuple[()]] = Sql(
    """
    update backlane_gate_queue
    set blocked = blocked - ?
    where gate = ?
    and queue = ?
    """
)
FREE_TURN: Sql[tuple[int]] = Sql(
    """
    update backlane_gate
    set holder = null
    where name = ?
    and part = ?
    and turn = 1
    and holder = ?
    returning id
    """
)
OPEN: Sql[tuple[str]] = Sql(
    """
    update backlane_gate_queue
    set open_ms = 0
    where gate = ?
    and blocked > 0
    returning (select name from backlane_queue where id = queue)
    """
)
DROP_LINES: Sql[tuple[()]] = Sql(
    """
    delete from backlane_gate_queue
    where gate = ?
    and ready <= 0
    and blocked <= 0
    """
)


async def let_go(tx: SqliteTx, leaving: Sequence[Leaving], now_us: int) -> None:
    """Count jobs no more where they were, and open the gates they leave."""
    stored = dict(await tx.rows(PACKED, integers([one.seq for one in leaving])))
    running, ready = Counter[Use](), Counter[tuple[int, Use]]()
    blocked = Counter[tuple[int, int]]()
    turns = []
    for one in leaving:
        if one.gate is not None:
            blocked[one.gate, one.queue] += 1
        for use in decode_extra(stored.get(one.seq)).uses:
            if use.turn:
                if one.was == ENDED:
                    turns.append((use.limit, use.part, one.seq))
            elif one.was == RUNNING:
                running[use] += 1
            elif one.was == READY:
                ready[one.queue, use] += 1
    opened: set[int] = {gate for gate, _ in blocked}
    if running:
        rows = [(number, use.limit, use.part) for use, number in running.items()]
        opened |= {gate for (gate,) in await tx.each(LESS_RUNNING, rows)}
    if ready:
        lines = [(number, it[0], it[1].limit, it[1].part) for it, number in ready.items()]
        opened |= {gate for (gate,) in await tx.each(LESS_READY, lines)}
    if blocked:
        await tx.each(LESS_BLOCKED, [(number, *line) for line, number in blocked.items()])
    if turns:
        opened |= {gate for (gate,) in await tx.each(FREE_TURN, turns)}
    await open_gates(tx, opened, now_us)


async def open_gates(tx: SqliteTx, gates: set[int], now_us: int) -> None:
    """Let the next claim look at these gates; those that nobody needs go."""
    if gates:
        rows = [(gate,) for gate in gates]
        tx.rings.queues |= {name for (name,) in await tx.each(OPEN, rows)}
        await tx.each(DROP_LINES, rows)
        await tx.each(DROP, [(gate, now_us) for gate in gates])
