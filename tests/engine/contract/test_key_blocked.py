"""Replace, where the holder waits for other jobs or for a limit."""

from __future__ import annotations

from typing import Any

from tests.engine.contract.desk import SUCCEEDED, Desk

from backlane.model.job import Edge, Job, Key, KeyRule, Receipt, Refusal, State
from backlane.model.limit import Limit, Use

KEY = Key("send", "welcome:7")
REPLACE = KeyRule("started", None, "replace")


def keyed(desk: Desk, rule: KeyRule, **fields: Any) -> Job:
    return desk.job(key=KEY, rule=rule, **fields)


def told(answer: list[Receipt] | Refusal) -> list[tuple[bytes | None, bool]]:
    """Of each receipt who stands for its job, and whether that was replaced."""
    assert isinstance(answer, list), answer
    return [(receipt.first, receipt.replaced) for receipt in answer]


def takes_after(desk: Desk, job: bytes, milliseconds: int) -> None:
    """Assert that a job is scheduled, and given out after exactly so long."""
    assert desk.state(job) is State.SCHEDULED
    assert desk.record(job).due_ms == desk.clock.wall_ms() + milliseconds
    desk.clock.advance(milliseconds=milliseconds - 1)
    assert desk.claimed_ids() == []
    desk.clock.advance(milliseconds=1)
    assert desk.claimed_ids() == [job]


def test_a_job_that_waits_for_others_is_replaced_and_waits_on(desk: Desk) -> None:
    before = desk.add_one()
    holder = desk.add_one(key=KEY, body=b"old", after=(Edge(before),))

    assert told(desk.append(keyed(desk, REPLACE, body=b"newer"))) == [(holder, True)]
    assert (desk.state(holder), desk.record(holder).waits_for) == (State.BLOCKED, 1)
    assert desk.depth().bytes == 7

    desk.settle(desk.lease(ids=(before,)), SUCCEEDED)
    assert desk.lease().body == b"newer"


def test_a_job_that_waits_for_others_takes_the_newest_due_time(desk: Desk) -> None:
    before = desk.add_one()
    holder = desk.add_one(key=KEY, after=(Edge(before),))
    desk.append(keyed(desk, REPLACE, delay_ms=9_000))
    assert desk.state(holder) is State.BLOCKED
    desk.clock.advance(seconds=1)

    desk.settle(desk.lease(ids=(before,)), SUCCEEDED)

    takes_after(desk, holder, 8_000)


def test_a_job_that_waits_for_a_limit_is_replaced_and_keeps_its_place(desk: Desk) -> None:
    desk.limits = {"stripe": Limit(concurrency=1)}
    uses = (Use("stripe"),)
    first = desk.add_one(uses=uses)
    lease = desk.lease()
    holder = desk.add_one(key=KEY, body=b"old", uses=uses)
    rival = desk.add_one(uses=uses)
    desk.clock.advance(seconds=1)

    assert told(desk.append(keyed(desk, REPLACE, body=b"new"))) == [(holder, True)]

    assert desk.blocked_on(holder, rival) == ["stripe", "stripe"]
    assert lease.job == first
    desk.settle(lease, SUCCEEDED)
    taken = desk.lease()
    assert (taken.job, taken.body) == (holder, b"new")


def test_a_job_that_waits_for_a_limit_is_put_off(desk: Desk) -> None:
    desk.limits = {"stripe": Limit(concurrency=1)}
    uses = (Use("stripe"),)
    desk.add(uses=uses)
    lease = desk.lease()
    holder = desk.add_one(key=KEY, uses=uses)
    rival = desk.add_one(uses=uses)

    desk.append(keyed(desk, REPLACE, delay_ms=5_000))

    assert (desk.state(holder), desk.record(holder).blocked_on) == (State.SCHEDULED, None)
    desk.settle(lease, SUCCEEDED)
    desk.settle(desk.lease(ids=()), SUCCEEDED)
    assert desk.state(rival) is State.SUCCEEDED
    takes_after(desk, holder, 5_000)
