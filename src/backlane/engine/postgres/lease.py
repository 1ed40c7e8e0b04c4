"""Leases: moved on by their holders, and what they note of running jobs."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.postgres.text import stored_or_none
from backlane.engine.postgres.transaction import PostgresTx
from backlane.engine.protocol import Extended
from backlane.model.job import Note

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
    from backlane.note($1::bytea[], $2::bigint[], $3::float8[], $4::text[])
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
    """Keep progress; the last of several for one lease holds, and each is a revision."""
    held: set[tuple[bytes, int]] = set()
    left = list(notes)
    while left:
        first: dict[tuple[bytes, int], Note] = {}
        again = [one for one in left if first.setdefault((one.job, one.token), one) is not one]
        inline = sorted(first)
        rows = await tx.rows(
            NOTE,
            [job for job, _ in inline],
            [token for _, token in inline],
            [first[one].progress.fraction for one in inline],
            [stored_or_none(first[one].progress.message) for one in inline],
        )
        held.update(rows)
        left = again
    tx.rings.jobs += [job for job, _ in held]
    return [one.job for one in notes if (one.job, one.token) not in held]
