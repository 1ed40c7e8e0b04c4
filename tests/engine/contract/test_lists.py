"""list_queues and list_workers; announce, which fills the second."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import (
    CRASHED,
    FAILED,
    REACHABLE,
    RELEASED,
    STOPPED,
    SUCCEEDED,
    Desk,
    retry,
    snooze,
)

from backlane.engine.protocol import Presence
from backlane.engine.selection import Cancel, Delete, Move, Redrive
from backlane.model.job import WAITING, State
from backlane.model.queue import Depth, Kind


def recount(desk: Desk, queue: str) -> Depth:
    """The depth of a queue, from its rows."""
    records, cursor = [], None
    while True:
        page = desk.find(limit=1_000, cursor=cursor, queue=queue)
        records += page.records
        cursor = page.cursor
        if cursor is None:
            break
    held = {state: sum(one.state is state for one in records) for state in WAITING}
    return Depth(
        scheduled=held[State.SCHEDULED],
        ready=held[State.READY],
        running=held[State.RUNNING],
        blocked=held[State.BLOCKED],
        bytes=sum(one.size for one in records if one.state in WAITING),
    )


# -- queues --


def test_queues_are_listed_by_name(desk: Desk) -> None:
    for name in ("video", "mail", "a.b-c:d_e"):
        desk.add(1, name)

    assert [one.name for one in desk.run(desk.engine.list_queues())] == [
        "a.b-c:d_e",
        "mail",
        "video",
    ]


def test_counters_equal_a_recount_in_every_state(desk: Desk) -> None:
    for i, state in enumerate(REACHABLE):
        desk.in_state(state, body=b"x" * (i + 1), headers=b"h")

    assert desk.depth() == recount(desk, "mail")
    assert desk.depth().jobs == 3


@pytest.mark.parametrize(
    "outcome", [SUCCEEDED, FAILED, STOPPED, RELEASED, CRASHED, retry(0), retry(9), snooze(9)]
)
def test_counters_equal_a_recount_after_each_outcome(desk: Desk, outcome) -> None:
    desk.add(3, body=b"12345")
    desk.settle(desk.lease(), outcome)

    assert desk.depth() == recount(desk, "mail")


def test_counters_equal_a_recount_after_each_change(desk: Desk) -> None:
    for change in (Cancel(), Redrive(), Move("slow"), Redrive(), Delete()):
        for state in REACHABLE:
            desk.in_state(state, body=b"12345")
        desk.amend(change, queue="mail")

        for queue in ("mail", "slow"):
            if queue in {one.name for one in desk.run(desk.engine.list_queues())}:
                assert desk.depth(queue) == recount(desk, queue)


def test_totals_only_grow(desk: Desk) -> None:
    for outcome in (SUCCEEDED, FAILED, STOPPED):
        desk.finished(outcome)
    desk.in_state(State.EXPIRED)
    before = desk.queue()
    desk.amend(Delete(), queue="mail")

    after = desk.queue()
    assert (after.appended, after.succeeded, after.failed) == (4, 1, 1)
    assert (after.cancelled, after.expired) == (1, 1)
    assert after == before


def test_a_queue_says_how_long_the_next_in_line_has_been_due(desk: Desk) -> None:
    desk.add_one(delay_ms=5_000)
    assert desk.queue().oldest_ready_ms is None

    desk.add_one()
    desk.clock.advance(seconds=3)
    desk.add_one()

    assert desk.queue().oldest_ready_ms == 3_000
    desk.claim()
    assert desk.queue().oldest_ready_ms is None


def test_a_queue_of_messages_is_listed_as_such(desk: Desk) -> None:
    desk.append(desk.job("orders", task=None), kind=Kind.MESSAGES)

    assert desk.queue("orders").kind is Kind.MESSAGES


def test_an_emptied_queue_is_still_known(desk: Desk) -> None:
    desk.amend(Delete(), desk.add_one())

    assert desk.queue().depth == Depth()


# -- workers --


def presence(owner: str = "ann", **fields: object) -> Presence:
    fields = {
        "host": "box",
        "pid": 42,
        "queues": ("mail", "video"),
        "slots": 50,
        "running": 3,
    } | fields
    return Presence(owner=owner, **fields)  # type: ignore[arg-type]


def test_an_announced_worker_is_listed(desk: Desk) -> None:
    started = desk.clock.wall_ms()
    desk.run(desk.engine.announce(presence()))
    desk.clock.advance(seconds=2)

    (worker,) = desk.run(desk.engine.list_workers())
    assert (worker.owner, worker.host, worker.pid) == ("ann", "box", 42)
    assert (worker.queues, worker.slots, worker.running) == (("mail", "video"), 50, 3)
    assert (worker.started_ms, worker.beat_age_ms) == (started, 2_000)


def test_a_beat_brings_a_worker_up_to_date(desk: Desk) -> None:
    started = desk.clock.wall_ms()
    desk.run(desk.engine.announce(presence()))
    desk.clock.advance(seconds=10)
    desk.run(desk.engine.announce(presence(running=7, queues=("mail",))))

    (worker,) = desk.run(desk.engine.list_workers())
    assert (worker.running, worker.queues) == (7, ("mail",))
    assert (worker.started_ms, worker.beat_age_ms) == (started, 0)


def test_a_worker_that_leaves_is_forgotten(desk: Desk) -> None:
    for owner in ("ann", "bob"):
        desk.run(desk.engine.announce(presence(owner)))

    desk.run(desk.engine.announce(presence("ann", leaving=True)))

    assert [one.owner for one in desk.run(desk.engine.list_workers())] == ["bob"]


def test_a_stranger_that_leaves_is_nobody(desk: Desk) -> None:
    desk.run(desk.engine.announce(presence(leaving=True)))

    assert desk.run(desk.engine.list_workers()) == []


def test_a_worker_that_is_long_silent_is_forgotten_by_a_sweep(desk: Desk) -> None:
    desk.run(desk.engine.announce(presence("ann")))
    desk.clock.advance(minutes=10)
    desk.run(desk.engine.announce(presence("bob")))

    desk.sweep()

    assert [one.owner for one in desk.run(desk.engine.list_workers())] == ["bob"]


def test_a_wall_clock_that_jumps_makes_no_worker_silent(desk: Desk) -> None:
    desk.run(desk.engine.announce(presence()))
    desk.clock.jump(hours=5)
    desk.sweep()

    assert len(desk.run(desk.engine.list_workers())) == 1
