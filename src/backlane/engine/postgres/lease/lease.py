"""Leases: moved on by their holders, and what they note of running jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane.engine.plan import Sql
from backlane.engine.postgres.store.text import stored, stored_or_none
from backlane.engine.postgres.store.transaction import PostgresTx
from backlane.engine.protocol import Extended
from backlane.model.job import Note, Progress

NONE = Progress()

# In the order of ids, as all that lock leases go. The new term is theirs alone.
EXTEND: Sql[tuple[bytes, int, bool]] = Sql(
    """
    select id, token, cancelling
    from backlane.extend($1::bigint, $2::bytea[], $3::bigint[], $4::bigint)
    """
)
NOTE: Sql[tuple[bytes, int]] = Sql(
    """
    select id, token
    from backlane.note($1::bytea[], $2::bigint[], $3::boolean[], $4::float8[], $5::text[],
        $6::int[], $7::text[], $8::bytea[])
    """
)


async def extend(tx: PostgresTx, leases: Sequence[tuple[bytes, int]], by_ms: int) -> Extended:
    """Move the end of leases; those not current, or lapsed by time, are lost."""
    if not leases:
        return Extended()
    inline = sorted(set(leases))
    rows = await tx.rows(
        EXTEND, tx.boot_ms, [job for job, _ in inline], [token for _, token in inline], by_ms
    )
    living = {(job, token) for job, token, _ in rows}
    return Extended(
        lost=[job for job, token in leases if (job, token) not in living],
        cancelled=[job for job, _, is_cancelling in rows if is_cancelling],
    )


async def note(tx: PostgresTx, notes: Sequence[Note]) -> list[bytes]:
    """Keep progress and steps; of several for one lease the last holds, and each is a
    revision."""
    held: set[tuple[bytes, int]] = set()
    left = list(notes)
    while left:
        first: dict[tuple[bytes, int], Note] = {}
        again = [one for one in left if first.setdefault((one.job, one.token), one) is not one]
        held.update(await tx.rows(NOTE, *_columns([first[one] for one in sorted(first)])))
        left = again
    tx.rings.jobs += [job for job, _ in held]
    return [one.job for one in notes if (one.job, one.token) not in held]


def _columns(inline: Sequence[Note]) -> list[Sequence[Any]]:
    told = [one.progress or NONE for one in inline]
    # By name: the last of one name holds, at the place of the first.
    steps = [
        (at, stored(name), result)
        for at, one in enumerate(inline, 1)
        for name, result in {step.name: step.result for step in one.steps}.items()
    ]
    return [
        [one.job for one in inline],
        [one.token for one in inline],
        [one.progress is not None for one in inline],
        [progress.fraction for progress in told],
        [stored_or_none(progress.message) for progress in told],
        [at for at, _, _ in steps],
        [name for _, name, _ in steps],
        [result for _, _, result in steps],
    ]
