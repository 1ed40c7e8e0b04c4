"""claim by ids: the best of very jobs, as workers behind a transport take them."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import Desk
from tests.engine.contract.offers import ledger, offered

from backlane.engine.protocol import Open
from backlane.model.job import Lane, State
from backlane.model.limit import Limit, Use
from backlane.model.queue import Kind

ONE = Limit(concurrency=1)
STRIPE = (Use("stripe"),)


@pytest.fixture(autouse=True)
def offering(desk: Desk) -> None:
    """Those that offer nothing yet are not asked."""
    ledger(desk.engine)


def test_a_claim_by_ids_takes_the_best_and_leaves_the_rest_offered(desk: Desk) -> None:
    low, jobs = desk.add_one(priority=1), desk.add(4)
    urgent = desk.add_one(priority=9)
    offered(desk)

    assert desk.claimed_ids(3, ids=(low, *reversed(jobs), urgent)) == [urgent, *jobs[:2]]

    assert desk.states([low, *jobs[2:]]) == [State.READY] * 3
    assert offered(desk) == []
    assert desk.claimed_ids(9, ids=(low, *jobs)) == [*jobs[2:], low]


def test_a_claim_by_ids_passes_over_what_it_may_not_give(desk: Desk) -> None:
    jobs = desk.add(2)
    gone = [desk.in_state(state) for state in State if state not in (State.READY, State.BLOCKED)]
    exclusive, paused = desk.add_one(lane=Lane.EXCLUSIVE), desk.add_one("video")
    desk.append(message := desk.job("orders", task=None), kind=Kind.MESSAGES)
    desk.pause("video")
    ids = (message.id, paused, exclusive, *gone, desk.job().id, *jobs, *jobs)

    assert desk.claimed_ids(2, ids=ids) == jobs
    assert desk.states([exclusive, paused, message.id]) == [State.READY] * 3


def test_a_claim_by_ids_of_offered_and_other_jobs_is_in_order(desk: Desk) -> None:
    first = desk.add_one()
    offered(desk)
    urgent, last = desk.add_one(priority=6), desk.add_one()

    assert desk.claimed_ids(9, ids=(last, first, urgent)) == [urgent, first, last]


def test_a_claim_by_ids_of_several_queues_is_in_order(desk: Desk) -> None:
    mail, video = desk.add_one(), desk.add_one("video")
    urgent = desk.add_one("video", priority=9)

    assert desk.claimed_ids(9, ids=(mail, video, urgent)) == [urgent, mail, video]


def test_expired_jobs_hide_no_good_one_from_a_claim_by_ids(desk: Desk) -> None:
    late, good = desk.add(5, expires_ms=1_000), desk.add(2)
    desk.clock.advance(seconds=1)

    assert desk.claimed_ids(2, ids=(*late, *good)) == good
    assert desk.queue().expired == 5


def test_a_claim_by_ids_obeys_the_limits_of_queues(desk: Desk) -> None:
    desk.limits["queue:mail"] = ONE
    mail, video = desk.add(3, priority=9), desk.add(3, "video")

    assert desk.claimed_ids(2, ids=(*mail, *video)) == [mail[0], video[0]]
    assert desk.claimed_ids(9, ids=(*mail, *video)) == video[1:]
    assert desk.states(mail[1:]) == [State.READY] * 2


def test_a_claim_by_ids_obeys_the_limits_of_jobs(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=3)
    limited, plain = desk.add(3, uses=STRIPE), desk.add(3)
    desk.tune_limit("stripe", ONE)

    assert desk.claimed_ids(2, ids=(*limited, *plain)) == [limited[0], plain[0]]
    assert desk.blocked_on(*limited) == [None, "stripe", "stripe"]
    assert desk.claimed_ids(9, ids=(*limited, *plain)) == plain[1:]


def test_a_claim_by_ids_passes_resources_by_that_are_down(desk: Desk) -> None:
    down, plain = desk.add(3, resource="stripe", priority=9), desk.add(3)
    fine = desk.add_one(resource="mailgun")
    desk.run(desk.engine.steer("stripe", Open()))

    assert desk.claimed_ids(2, ids=(*down, *plain, fine)) == plain[:2]
    assert desk.claimed_ids(9, ids=(*down, *plain, fine)) == [plain[2], fine]
    assert desk.states(down) == [State.READY] * 3


def test_a_turn_settles_and_claims_by_ids(desk: Desk) -> None:
    first, second, third = desk.add(3)
    offered(desk)
    desk.claim(1, ids=(first,))

    assert desk.end(first).lost == []
    assert desk.claimed_ids(1, ids=(first, third, second)) == [second]
