"""When two engines have answered alike, where order or precision are not promised."""

from __future__ import annotations

from typing import Any

import msgspec

from backlane.engine.offering import Offered
from backlane.engine.protocol import (
    Claimed,
    Extended,
    Measured,
    Settled,
    Turn,
    WorkerRecord,
)
from backlane.engine.retention import Swept
from backlane.model.job import JobRecord
from backlane.model.outcome import Reason


def is_like(right: Any, answer: Any) -> bool:
    """Whether an answer says the same, where order or precision are not promised."""
    match right:
        case Turn():
            return is_like(right.settled, answer.settled) and all(
                map(is_like, right.claimed, answer.claimed)
            )
        case Claimed():
            return (
                right.leases == answer.leases
                and sorted(right.cancelled) == sorted(answer.cancelled)
                and by_id(right.buried) == by_id(answer.buried)
                and is_soon_enough(right.next_due_ms, answer.next_due_ms)
                and right.turned == answer.turned
            )
        case Offered():
            return (
                (right.jobs, right.now_ms) == (answer.jobs, answer.now_ms)
                and (right.more, right.doubtful) == (answer.more, answer.doubtful)
                and is_soon_enough(right.next_due_ms, answer.next_due_ms)
                and by_id(right.buried) == by_id(answer.buried)
            )
        case Extended():  # a lease may be given twice
            return right.lost == answer.lost and set(right.cancelled) == set(answer.cancelled)
        case Measured():  # each store has a secret of its own
            return right.queues == answer.queues
        case Swept() | Settled():
            return unordered(right) == unordered(answer)
        case [WorkerRecord(), *_]:  # those that started together come in any order
            return by_owner(right) == by_owner(answer)
        case _:
            return bool(right == answer)


def by_id(records: list[JobRecord]) -> list[tuple[bytes, Reason | None]]:
    return sorted((record.id, record.reason) for record in records)


def by_owner(workers: list[WorkerRecord]) -> list[WorkerRecord]:
    return sorted(workers, key=lambda worker: worker.owner)


def is_soon_enough(right: int | None, answer: int | None) -> bool:
    """An engine may say that it looks again earlier than it must, never later."""
    return right is None or (answer is not None and answer <= right)


def unordered(answer: Swept | Settled) -> Swept | Settled:
    return msgspec.structs.replace(answer, buried=sorted(answer.buried))
