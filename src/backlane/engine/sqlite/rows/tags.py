"""Tags: what jobs are found by, beside what they are."""

from __future__ import annotations

from collections.abc import Sequence

from backlane.engine.plan import Sql
from backlane.engine.sqlite.rows.extra import decode_extra
from backlane.engine.sqlite.store.transaction import SqliteTx, integers

TAG: Sql[tuple[()]] = Sql(
    """
    insert or ignore into backlane_tag (name, seq)
    values (?, ?)
    """
)
UNTAG: Sql[tuple[()]] = Sql(
    """
    delete from backlane_tag
    where name = ?
    and seq = ?
    """
)
PACKED: Sql[tuple[int, bytes]] = Sql(
    """
    select seq, extra
    from carray(?) as given
    cross join backlane_job as job on job.seq = given.value
    where extra is not null
    """
)


async def untag(tx: SqliteTx, seqs: Sequence[int]) -> list[int]:
    """Forget the tags of jobs; return those of them that are not plain."""
    packed = await tx.rows(PACKED, integers(seqs))
    rows = [(tag, seq) for seq, extra in packed for tag in decode_extra(extra).tags]
    if rows:
        await tx.each(UNTAG, rows)
    return [seq for seq, _ in packed]
