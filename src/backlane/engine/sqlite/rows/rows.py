"""Rows: the statements that put jobs, and what is kept of them, where they go."""

from __future__ import annotations

from backlane.engine.plan import Sql

READY: Sql[tuple[()]] = Sql(
    """
    insert into backlane_ready (queue, lane, rank, place, seq, priority, attempt, token,
        revision, crashes, parked_ms, size)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
SCHEDULED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_scheduled (due_ms, seq, queue, lane, priority, attempt, token,
        revision, crashes, parked_ms, size, is_plain)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
BLOCKED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_blocked (queue, lane, rank, place, seq, priority, attempt, token,
        revision, crashes, parked_ms, size, level, gate, waits_for)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
UNBLOCK: Sql[tuple[()]] = Sql(
    """
    delete from backlane_blocked
    where seq = ?
    """
)
PLACED: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set lane = ?, place = ?, started_ms = ?, owner = ?
    where seq = ?
    """
)
# Its place is a time again, and no virtual one.
UNDUE: Sql[tuple[()]] = Sql(
    """
    update backlane_job
    set due_ms = null
    where seq = ?
    and due_ms is not null
    """
)
FINISHED: Sql[tuple[()]] = Sql(
    """
    insert into backlane_finished (seq, state, reason, queue, attempt, token, revision,
        started_ms, ended_ms, ran_ms, owner, result)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """
)
KEY_FREED: Sql[tuple[()]] = Sql(
    """
    delete from backlane_unique_key
    where (scope, name) = (select key_scope, key_name from backlane_job where seq = ?1)
    and seq = ?1
    and (
        until < 2
        or until = 2
        and exists (select 1 from backlane_finished where seq = ?1 and state <> 2)
    )
    """
)
DEADLINE_FORGOTTEN: Sql[tuple[()]] = Sql(
    """
    delete from backlane_deadline
    where (deadline_ms, seq) = (select deadline_ms, seq from backlane_job where seq = ?)
    """
)
# A sweep forgets the deadlines it finds behind it, also those of running jobs.
DEADLINE_AGAIN: Sql[tuple[()]] = Sql(
    """
    insert or ignore into backlane_deadline (deadline_ms, seq)
    select deadline_ms, seq
    from backlane_job
    where seq = ?
    and deadline_ms is not null
    """
)
ERROR: Sql[tuple[()]] = Sql(
    """
    insert into backlane_attempt_error (seq, token, attempt, at_ms, kind, message, traceback,
        fingerprint)
    values (?, ?, ?, ?, ?, ?, ?, ?)
    """
)
# Served by backlane_attempt_error_of.
ERRORS_DROPPED: Sql[tuple[()]] = Sql(
    """
    delete from backlane_attempt_error
    where seq = ?1
    and rowid <= (
        select rowid
        from backlane_attempt_error
        where seq = ?1
        order by rowid desc
        limit 1
        offset ?2
    )
    """
)
