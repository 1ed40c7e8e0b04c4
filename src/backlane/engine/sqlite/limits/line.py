"""In line: what becomes of jobs that would be ready: ready, or blocked at a gate.

A job that gets in line has a place among the others of its queue, by virtual time if the
queue is a fair one; it takes the turns that it finds free; and where a use of it has no
room, or others wait for that before it, it waits at that gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backlane.engine.plan import Sql
from backlane.engine.sqlite.limits import fair
from backlane.engine.sqlite.limits.gates import Gate, Gates, Order
from backlane.engine.sqlite.rows.counts import Counts
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.rows.held import Held
from backlane.engine.sqlite.store.transaction import SqliteTx, integers
from backlane.model.clock import Clock
from backlane.model.limit import Use

# `due_ms` is null but where the job has a virtual place already.
ASKED: Sql[tuple[int, bytes | None, int | None, str | None]] = Sql(
    """
    select job.seq, extra, due_ms, group_name
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    """
)
SET_DUE: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set due_ms = ?,
        place = ?
    where seq = ?
    """
)
HOLDING: Sql[tuple[str, str, int]] = Sql(
    """
    select name, part, holder
    from backlane_gate
    where name = ?
    and part = ?
    and turn = 1
    and holder = ?
    """
)


class Asking(NamedTuple):
    """A job that would be ready."""

    held: Held
    rank: int
    woken: Use | None = None  # for which there is room now
    is_settled: bool = False  # elsewhere: it is ready, or waits for `woken`

    def order(self, gate: Gate) -> Order:
        """Where it stands among those that wait at a gate."""
        return (0 if gate.use.turn else self.rank, self.held.place, self.held.seq)


class Placed(NamedTuple):
    """Where a job is put: in front of a gate, or (None) into ready."""

    held: Held
    rank: int
    gate: Gate | None = None


async def stand_in_line(
    tx: SqliteTx,
    clock: Clock,
    jobs: Sequence[Asking],
    counts: Mapping[tuple[int, int], Counts],
) -> list[Placed]:
    """Find where each of these jobs is put, in this order, and count it at its gates."""
    found = {
        row[0]: row[1:] for row in await tx.rows(ASKED, integers([it.held.seq for it in jobs]))
    }
    uses = [ordered(found[it.held.seq][0]) if it.held.seq in found else () for it in jobs]
    wanted: dict[Use, set[int]] = {}
    for asking, its in zip(jobs, uses, strict=True):
        for use in its:
            wanted.setdefault(use, set()).add(asking.held.queue)
    gates = Gates(tx, clock)
    if wanted:
        await gates.read(wanted)
    courses = await _courses(tx, jobs, found, counts)
    placed, due = [], []
    for asking, its in zip(jobs, uses, strict=True):
        held = asking.held
        course = courses.get(held.queue)
        _, due_ms, group = found.get(held.seq, (None, None, None))
        if course is not None and due_ms is None:
            place = course.place_ms(group, clock.wall_ms())
            due.append((held.place, place, held.seq))
            asking = asking._replace(held=held._replace(place=place))
        gate = _find_gate(gates, asking, its)
        if gate is None and course is not None:
            course.busy += 1
        placed.append(Placed(asking.held, asking.rank, gate))
    await gates.store()
    if due:
        await tx.each(SET_DUE, due)
    await fair.store(tx, courses)
    return placed


def ordered(extra: bytes | None) -> tuple[Use, ...]:
    """Return the uses of a job as they are looked at: turns first."""
    uses = decode_extra(extra).uses
    return tuple(sorted(uses, key=lambda use: not use.turn)) if len(uses) > 1 else uses


def _find_gate(gates: Gates, asking: Asking, uses: Sequence[Use]) -> Gate | None:
    """Count a job at its gates; return the one at which it has to wait, if there is one."""
    held = asking.held
    if asking.is_settled and asking.woken is not None and asking.woken in uses:
        gate = gates[asking.woken]
        gate.line(held.queue).blocked += 1
        return gate
    for use in () if asking.is_settled else uses:
        gate = gates[use]
        if use.turn and gate.holder == held.seq:
            continue
        line = gate.line(held.queue)
        if use != asking.woken:
            room = gate.room(gates.now_us)
            order = asking.order(gate)
            is_behind = line.blocked > 0 and line.first is not None and line.first < order
            if is_behind or (room is not None and line.ready >= room):
                line.blocked += 1
                line.first = order if line.first is None else min(line.first, order)
                return gate
        if use.turn:
            gate.holder = held.seq
    for use in uses:
        if not use.turn:
            gates[use].line(held.queue).ready += 1
    return None


async def _courses(
    tx: SqliteTx,
    jobs: Sequence[Asking],
    found: Mapping[int, tuple[bytes | None, int | None, str | None]],
    counts: Mapping[tuple[int, int], Counts],
) -> dict[int, fair.Course]:
    """Read the fair queues of these jobs, with what the verb has counted so far."""
    courses = await fair.read_courses(tx, {it.held.queue for it in jobs})
    if courses:
        for (queue, _), counted in counts.items():
            if queue in courses:
                courses[queue].busy += counted.ready + counted.running + counted.started
        of = {(it.held.queue, found[it.held.seq][2]) for it in jobs if it.held.seq in found}
        await fair.read_flows(tx, courses, {it for it in of if it[0] in courses})
    return courses


async def hold_turns(tx: SqliteTx, clock: Clock, turns: Mapping[Use, int]) -> None:
    """Let jobs, by seq, hold the turns that they had elsewhere."""
    gates = Gates(tx, clock)
    await gates.read(dict.fromkeys(turns, ()))
    for use, seq in turns.items():
        gates[use].holder = seq
    await gates.store()


async def turns_of(tx: SqliteTx, extras: Mapping[int, bytes | None]) -> dict[int, tuple[Use, ...]]:
    """Return the turns that these jobs hold, by seq."""
    asked = [
        (use.limit, use.part, seq)
        for seq, extra in extras.items()
        for use in decode_extra(extra).uses
        if use.turn
    ]
    found: dict[int, tuple[Use, ...]] = {}
    for name, part, seq in await tx.each(HOLDING, asked) if asked else ():
        found[seq] = (*found.get(seq, ()), Use(name, part, turn=True))
    return found
