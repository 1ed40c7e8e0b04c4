"""An offer costs what is in its window, however many jobs wait behind it.

What is counted are the steps of SQLite's own machine, which no other load changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.contract.desk import Desk
from tests.engine.contract.offers import offer, offered, withdraw

from backlane.engine.offering import Offer
from backlane.model.job import Lane, State

MAIL = ("mail", Lane.SHARED)


def counted(desk: Desk, act: Callable[[], Any]) -> int:
    """The steps of what is done."""
    desk.depth()  # opens the file
    connection = desk.engine._process.handles().store._connection
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    connection.set_progress_handler(count, 1)
    act()
    connection.set_progress_handler(None)
    return steps


def test_a_pass_costs_the_same_before_any_backlog(desk: Desk):
    desk.add(150)
    offered(desk, 100)
    desk.claim(10)
    few = counted(desk, lambda: offered(desk, 100))

    for _ in range(10):
        desk.add(1_000)
    desk.claim(10)
    many = counted(desk, lambda: offered(desk, 100))

    assert many <= few * 1.1


def test_a_full_window_is_not_looked_through_for_each_new_job(desk: Desk):
    desk.add(1_100)
    assert offer(desk, Offer("mail", 1_000)).more == [MAIL]
    large = []
    for _ in range(3):
        desk.add()
        large.append(counted(desk, lambda: offer(desk, Offer("mail", 1_000))))

    desk.add(20, "video")
    offered(desk, 10, "video")
    small = counted(desk, lambda: offer(desk, Offer("video", 10)))

    assert offer(desk, Offer("mail", 1_000)).more == [MAIL]
    assert max(large) <= small * 1.1


def test_what_is_found_of_a_full_window_is_believed_for_a_second(desk: Desk):
    """A job went and one came in a way that nothing counted tells."""
    first, _ = desk.add(2)
    offered(desk, 1)
    tell = "update backlane_ready set offered_ms = null"
    desk.engine._process.handles().store._connection.execute(tell)

    assert offered(desk, 1) == []
    desk.clock.advance(milliseconds=999)
    assert offered(desk, 1) == []
    desk.clock.advance(milliseconds=1)
    assert offered(desk, 1) == [first]


@pytest.mark.parametrize("number", [1, 100])
def test_a_claim_by_ids_costs_little_more_than_one_of_the_queue(desk: Desk, number: int):
    desk.add(4 * number)
    jobs = tuple(offered(desk, 2 * number))
    by_queue = counted(desk, lambda: desk.claim(number))
    ids = jobs[number:]
    by_ids = counted(desk, lambda: desk.claim(number, ids=ids))

    assert desk.states(ids) == [State.RUNNING] * number
    assert by_ids <= by_queue * 1.8


def test_a_claim_without_offers_pays_nothing_for_them(desk: Desk):
    desk.add(200)
    plain = counted(desk, lambda: desk.claim(100))
    withdraw(desk, *offered(desk))

    assert counted(desk, lambda: desk.claim(100)) <= plain * 1.01
