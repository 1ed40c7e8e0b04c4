"""Outcomes, as `backlane.settle` takes them: a column for each thing they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backlane.engine.postgres.store.text import stored
from backlane.model.outcome import (
    Awaiting,
    Cancelled,
    Crashed,
    ErrorRecord,
    Failed,
    Outcome,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)

_SUCCEEDED, _FAILED, _CANCELLED, _RETRY, _CRASHED, _SNOOZED, _RELEASED = range(1, 8)
_AWAITING = 9

_COLUMNS = 7  # behind outcomes: what some of them say

Columns = list[Sequence[Any] | None]


def columns(settlements: Sequence[Settlement]) -> Columns:
    """Return the columns; a second outcome for one lease is late, and is left out."""
    if len({it.job for it in settlements}) < len(settlements):
        settlements = _first_ones(settlements)
    # In one order in all that settle, so that no two wait for each other in a circle.
    inline = sorted(settlements, key=_job)
    outcomes = [it.outcome for it in inline]
    results = [_result(it) for it in outcomes]
    found: Columns = [
        [it.job for it in inline],
        [it.token for it in inline],
        [it.ran_ms for it in inline],
        results if results.count(None) < len(results) else None,
    ]
    if all(type(it) is Succeeded for it in outcomes):
        return [*found, *[None] * (_COLUMNS + 1)]
    found.append([_code(it) for it in outcomes])
    said = [_said(it) for it in outcomes]
    return [*found, *(list(column) for column in zip(*said, strict=True))]


def _job(settlement: Settlement) -> bytes:
    return settlement.job


def _first_ones(settlements: Sequence[Settlement]) -> list[Settlement]:
    first: dict[tuple[bytes, int], Settlement] = {}
    for it in settlements:
        first.setdefault((it.job, it.token), it)
    return list(first.values())


def _result(outcome: Outcome) -> bytes | None:
    if type(outcome) is Succeeded:
        return outcome.result
    return b"".join(outcome.jobs) if type(outcome) is Awaiting else None


def _code(outcome: Outcome) -> int:
    match outcome:
        case Succeeded():
            return _SUCCEEDED
        case Failed():
            return _FAILED
        case Cancelled():
            return _CANCELLED
        case RetryAfter():
            return _RETRY
        case Crashed():
            return _CRASHED
        case Snoozed():
            return _SNOOZED
        case Released():
            return _RELEASED
        case Awaiting():
            return _AWAITING


def _said(outcome: Outcome) -> tuple[int, bool, str | None, *tuple[str | None, ...]]:
    """Delay, flag (parked, or alone), reason, and the error's four texts."""
    match outcome:
        case Failed(reason=reason, error=error):
            return (0, False, str(reason), *_texts(error))
        case Cancelled(error=error):
            return (0, False, None, *_texts(error))
        case RetryAfter(delay_ms=delay_ms, error=error):
            return (delay_ms, False, None, *_texts(error))
        case Crashed(alone=alone, error=error):
            return (0, alone, None, *_texts(error))
        case Snoozed(delay_ms=delay_ms, parked=parked):
            return (delay_ms, parked, None, *_texts(None))
        case _:
            return (0, False, None, *_texts(None))


def _texts(error: ErrorRecord | None) -> tuple[str | None, ...]:
    if error is None:
        return (None, None, None, None)
    return tuple(map(stored, (error.kind, error.message, error.traceback, error.fingerprint)))
