"""Turn: settle what ended and claim what fits, as a rule in one round trip.

Where jobs depend on resources, their breakers are told in between what ended and what is
tried; then a turn is a transaction of a few statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backlane.engine.plan import Plan, Sql
from backlane.engine.postgres.append.enter import decode_policy
from backlane.engine.postgres.lease.floor import FROM_BEGINNING, Start
from backlane.engine.postgres.lease.memory import Memory
from backlane.engine.postgres.lease.outcomes import columns
from backlane.engine.postgres.limits import resource
from backlane.engine.postgres.limits.resource import Rooms
from backlane.engine.postgres.record.record import records_of
from backlane.engine.postgres.store.plans import QuickPlan, StepPlan
from backlane.engine.postgres.store.text import loaded_or_none
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.protocol import Claimed, Settled, Turn, Wanted
from backlane.model.breaker import ResourceRecord
from backlane.model.job import DEFAULT_POLICY, Lane, Lease, Policy
from backlane.model.outcome import Crashed, Outcome, Released, Settlement

KINDS = (Lane.SHARED, Lane.EXCLUSIVE)

Row = tuple[Any, ...]

SETTLE: Sql[tuple[Any, ...]] = Sql(
    """
    select settled, buried, rung, resourced, lanes, changed, came
    from backlane.settle(coalesce($1::bigint, backlane.now_ms()), $2::bytea[], $3::bigint[],
        $4::bigint[], $5::bytea[], $6::smallint[], $7::bigint[], $8::boolean[], $9::text[],
        $10::text[], $11::text[], $12::text[], $13::text[])
    """
)
CLAIM: Sql[Row] = Sql(
    """
    select *
    from backlane.claim(1, $1::bigint, $2::bigint, $3::text, $4::int, $5::bigint, $6::text,
        $7::int, $8::text[], $9::bytea[], $10::text[], $11::bigint, $12::int[], $13::int[],
        $14::bigint[], $15::bigint[], $16::int[], $17::int[], $18::boolean)
    """
)
TURN: Sql[Row] = Sql(
    """
    select *
    from backlane.turn($1::bigint, $2::bigint, $3::bytea[], $4::bigint[], $5::bigint[],
        $6::bytea[], $7::smallint[], $8::bigint[], $9::boolean[], $10::text[], $11::text[],
        $12::text[], $13::text[], $14::text[], $15::text[], $16::int[], $17::bigint[],
        $18::text[], $19::int[], $20::int[], $21::text[], $22::int[], $23::bytea[], $24::text[],
        $25::bigint, $26::int[], $27::int[], $28::bigint[], $29::bigint[], $30::boolean)
    """
)
QUEUE_NAMES: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane.queue
    """
)
RESOURCE_NAMES: Sql[tuple[int, str]] = Sql(
    """
    select id, name
    from backlane.resource
    where id = any ($1::int[])
    """
)


def turn_plan(
    memory: Memory, settlements: Sequence[Settlement], wanted: Sequence[Wanted]
) -> Plan[Turn]:
    """Return the plan of a turn: the quick way while there are no resources."""
    quick: StepPlan[Turn | None] = StepPlan(
        lambda tx: turn_quickly(tx, memory, settlements, wanted)
    )
    return QuickPlan(
        lambda tx: turn(tx, memory, settlements, wanted), None if memory.has_resources else quick
    )


def claim_plan(memory: Memory, wanted: Wanted) -> Plan[Claimed]:
    """Return the plan of a claim."""
    quick: StepPlan[Claimed | None] = StepPlan(lambda tx: _claim_quickly(tx, memory, wanted))
    return QuickPlan(lambda tx: claim(tx, memory, wanted), None if memory.has_resources else quick)


async def _claim_quickly(tx: PostgresTx, memory: Memory, wanted: Wanted) -> Claimed | None:
    turned = await turn_quickly(tx, memory, (), (wanted,))
    return turned.claimed[0] if turned else None


async def settle(tx: PostgresTx, memory: Memory, settlements: Sequence[Settlement]) -> Settled:
    """Carry outcomes out; a lease that is not the current one changes nothing."""
    if not settlements:
        return Settled()
    given = columns(settlements)
    row = (await tx.rows(SETTLE, tx.wall_ms, *given))[0]
    settled, buried, rung, resourced, lanes, changed, came = row
    tx.rings.jobs += changed or ()
    if came:
        memory.forget()  # these wait no more, at the places they had
    answer = await _settled(tx, memory, settlements, (settled, buried, rung))
    if not resourced:
        return answer
    memory.has_resources = True
    lane_of = dict(zip(resourced, lanes, strict=True))
    ended: dict[int, list[tuple[bytes, Outcome]]] = {}
    for one in settlements:
        lane = lane_of.pop(one.job, None)
        if lane is not None:
            ended.setdefault(lane >> 1, []).append((one.job, one.outcome))
    return msgspec.structs.replace(answer, turned=await resource.feed(tx, ended))


async def claim(tx: PostgresTx, memory: Memory, wanted: Wanted) -> Claimed:
    """Give leases, as many as resources that are down or tried allow."""
    rooms = await resource.rooms(tx)
    start = _start(tx, memory, [wanted])
    rows = await tx.rows(
        CLAIM,
        tx.wall_ms,
        tx.boot_ms,
        wanted.owner,
        wanted.number,
        wanted.lease_ms,
        str(wanted.kind),
        wanted.lane,
        [] if wanted.ids else list(wanted.queues),
        list(wanted.ids),
        list(wanted.departed),
        start.since_ms,
        *start[:4],
        list(rooms.left),
        list(rooms.left.values()),
        start.may_look,
    )
    reading = Reading(tx, memory, [wanted])
    lanes = {row[9] >> 1 for row in rows if row[1] is not None}
    await _name_resources(tx, memory, lanes)
    await reading.read(rows)
    claimed = reading.claimed[0]
    for row in rows:
        if row[1] is not None and row[19] is None:
            rooms.give(row[9] >> 1, row[1])
    turned = await rooms.store(tx)
    return await _with_resources(tx, rooms, claimed, turned)


async def turn(
    tx: PostgresTx,
    memory: Memory,
    settlements: Sequence[Settlement],
    wanted: Sequence[Wanted],
) -> Turn:
    """Settle, then claim, with breakers told in between."""
    settled = await settle(tx, memory, settlements)
    return Turn(settled, [await claim(tx, memory, one) for one in wanted])


async def turn_quickly(
    tx: PostgresTx,
    memory: Memory,
    settlements: Sequence[Settlement],
    wanted: Sequence[Wanted],
) -> Turn | None:
    """Settle and claim by one call; None: there are resources, so nothing was done."""
    if not settlements and not wanted:
        return Turn(Settled(), [])
    given = columns(settlements)
    start = _start(tx, memory, wanted)
    names = [(i, name) for i, one in enumerate(wanted, 1) if not one.ids for name in one.queues]
    jobs = [job for one in wanted for job in one.ids]
    rows = await tx.rows(
        TURN,
        tx.wall_ms,
        tx.boot_ms,
        *given,
        [one.owner for one in wanted],
        [one.number for one in wanted],
        [one.lease_ms for one in wanted],
        [str(one.kind) for one in wanted],
        [one.lane for one in wanted],
        [i for i, _ in names],
        [name for _, name in names],
        [i for i, one in enumerate(wanted, 1) for _ in one.ids],
        jobs,
        list({owner for one in wanted for owner in one.departed}),
        start.since_ms,
        *start[:4],
        start.may_look,
    )
    if not rows:
        memory.has_resources = True
        return None
    settled = Settled()
    if settlements:
        first = rows.pop(0)
        number, came = first[21]
        if came:
            memory.forget()  # these wait no more, at the places they had
        ended = first[20] or []
        tx.rings.jobs += ended[number:]
        said = (first[19], ended[:number], first[22])
        settled = await _settled(tx, memory, settlements, said)
    reading = Reading(tx, memory, wanted)
    await reading.read(rows)
    return Turn(settled, reading.claimed)


def _start(tx: PostgresTx, memory: Memory, wanted: Sequence[Wanted]) -> Start:
    if tx.wall_ms is not None:
        return FROM_BEGINNING  # places are of a clock that may go anywhere
    names = {name for one in wanted if not one.ids for name in one.queues}
    if not names:
        return FROM_BEGINNING._replace(since_ms=memory.floors.since())
    return memory.floors.start(names)


async def _settled(
    tx: PostgresTx,
    memory: Memory,
    settlements: Sequence[Settlement],
    said: tuple[list[bytes] | None, list[bytes] | None, list[int] | None],
) -> Settled:
    settled, buried, rung = said[0] or [], said[1] or [], said[2] or []
    tx.rings.jobs += settled
    if rung:
        if any(type(it.outcome) in (Released, Crashed) for it in settlements):
            memory.forget()  # these went back to their places
        await ring(tx, memory, rung)
    lost = _lost(settlements, settled) if len(settled) < len(settlements) else []
    return Settled(lost, buried)


def _lost(settlements: Sequence[Settlement], settled: Sequence[bytes]) -> list[bytes]:
    """Return whose outcome changed nothing: of a job's many it is all but one.

    That one is the first with the newest token, for only the newest is ever current.
    """
    newest: dict[bytes, int] = {}
    for it in settlements:
        newest[it.job] = max(it.token, newest.get(it.job, 0))
    left = set(settled)
    lost = []
    for it in settlements:
        if it.job in left and it.token == newest[it.job]:
            left.discard(it.job)
        else:
            lost.append(it.job)
    return lost


async def ring(tx: PostgresTx, memory: Memory, queues: Sequence[int]) -> None:
    """Note that these queues may have something to claim."""
    if not memory.queues.keys() >= set(queues):
        memory.queues |= dict(await tx.rows(QUEUE_NAMES))
    tx.rings.queues |= {memory.queues[queue] for queue in queues if queue in memory.queues}


async def _name_resources(tx: PostgresTx, memory: Memory, numbers: set[int]) -> None:
    """Know what these resources are called."""
    missing = [number for number in numbers if number and number not in memory.resources]
    if missing:
        memory.resources |= dict(await tx.rows(RESOURCE_NAMES, missing))


async def _with_resources(
    tx: PostgresTx, rooms: Rooms, claimed: Claimed, turned: list[ResourceRecord]
) -> Claimed:
    if not rooms.left:
        return claimed
    waits = [await resource.next_trial_ms(tx), claimed.next_due_ms]
    next_due_ms = min((wait for wait in waits if wait is not None), default=None)
    return msgspec.structs.replace(claimed, turned=turned, next_due_ms=next_due_ms)


class Reading:
    """The rows of claims, read one by one."""

    def __init__(self, tx: PostgresTx, memory: Memory, wanted: Sequence[Wanted]) -> None:
        self.claimed: list[Claimed] = []
        self._wanted = wanted
        self._tx = tx
        self._memory = memory

    async def read(self, rows: Sequence[Row]) -> None:
        """Make leases of the rows; the last one of each claim says what else there is."""
        begin = 0
        for i, row in enumerate(rows):
            if row[1] is None:
                self.claimed.append(await self._claimed(rows[begin:i], row))
                begin = i + 1

    async def _claimed(self, rows: Sequence[Row], said: Row) -> Claimed:
        tx, memory = self._tx, self._memory
        stopping, moved, numbers, queues, names = said[19:24]
        next_due_ms, looked_us, wall, buried, lies_before = numbers
        rung: list[int] = []
        if queues is not None:
            rung = queues[len(names or ()) + 1 :]
            queues = queues[: len(names or ())]
            memory.queues.update(zip(queues, names or (), strict=True))
            memory.floors.keep_queues(queues, names or ())
        if rung:
            await ring(tx, memory, rung)
        if not memory.queues.keys() >= {row[4] for row in rows}:
            memory.queues |= dict(await tx.rows(QUEUE_NAMES))  # claimed by its id
        leases, expired = self._leases(rows, is_front=not self._wanted[len(self.claimed)].ids)
        if lies_before:
            memory.floors.forget()  # some were passed by, or came back to their places
        if looked_us is not None:
            memory.floors.looked(looked_us)
        if next_due_ms != 0:
            memory.floors.keep_since(wall)
        tx.rings.jobs += [*(moved or ())[buried:], *expired]
        tx.rings.starts += [lease.job for lease in leases]
        return Claimed(
            leases,
            stopping or [],
            next_due_ms,
            await records_of(tx, moved[:buried]) if buried else [],
        )

    def _leases(self, rows: Sequence[Row], *, is_front: bool) -> tuple[list[Lease], list[bytes]]:
        """Read leases; if they are the front of their lines, remember where those go on."""
        memory = self._memory
        names, resources = memory.queues, memory.resources
        keep = memory.floors.keep if is_front else _keep_nothing
        leases: list[Lease] = []
        ordinals: list[tuple[int, int, int]] = []
        expired: list[bytes] = []
        before: tuple[int, int, int] | None = None
        last = (0, 0)
        for row in rows:
            (
                _, job, token, attempt, queue, task, body, headers, priority, lane, policy, group,
                enqueued_ms, deadline_ms, parked_ms, crashes, rank, place, seq, late,
            ) = row[:20]  # fmt: skip
            line = (queue, lane, rank)
            if line != before and before is not None:
                keep((before[0], before[1]), before[2], *last)
            before, last = line, (place, seq)
            if late is not None:
                expired.append(job)
                continue
            ordinals.append((rank, place, seq))
            leases.append(
                Lease(
                    job,
                    token,
                    attempt,
                    names.get(queue, ""),
                    task,
                    body,
                    headers,
                    priority,
                    KINDS[lane & 1],
                    DEFAULT_POLICY if policy is None else _policy(policy),
                    None if group is None else loaded_or_none(group),
                    enqueued_ms,
                    deadline_ms,
                    parked_ms,
                    crashes,
                    resource=resources.get(lane >> 1) if lane > 1 else None,
                )
            )
        if before is not None:
            keep((before[0], before[1]), before[2], *last)
        # A claim that looked again, as in place of one that had expired, found those in between.
        in_line = sorted(range(len(leases)), key=ordinals.__getitem__)
        return [leases[i] for i in in_line], expired


def _keep_nothing(line: tuple[int, int], rank: int, place: int, seq: int) -> None:
    """What was claimed by its id may have others before it."""


def _policy(stored: bytes) -> Policy:
    """A damaged policy reads as the default: its job must not stop the jobs behind it."""
    try:
        return decode_policy(stored)
    except msgspec.MsgspecError:
        return DEFAULT_POLICY
