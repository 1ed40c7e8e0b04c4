"""turn: what settle and claim do, in one transaction."""

from __future__ import annotations

from tests.engine.contract.desk import FAILED, RELEASED, SUCCEEDED, Desk, retry, settlement

from backlane.engine.protocol import Settled, Wanted
from backlane.model.job import Lane, Policy, State


def want(number: int = 100, lane: Lane = Lane.SHARED, owner: str = "ann") -> Wanted:
    return Wanted(owner=owner, number=number, lease_ms=30_000, queues=("mail",), lane=lane)


def test_a_turn_settles_then_claims(desk: Desk) -> None:
    first, second = desk.add(2)
    lease = desk.lease()

    turn = desk.run(desk.engine.turn([settlement(lease, SUCCEEDED)], [want()]))

    assert turn.settled == Settled()
    assert [given.job for given in turn.claimed[0].leases] == [second]
    assert desk.states([first, second]) == [State.SUCCEEDED, State.RUNNING]


def test_what_a_turn_gives_back_it_may_claim(desk: Desk) -> None:
    desk.add(policy=Policy(attempts=5))
    lease = desk.lease()

    turn = desk.run(desk.engine.turn([settlement(lease, RELEASED)], [want()]))
    (again,) = turn.claimed[0].leases
    turn = desk.run(desk.engine.turn([settlement(again, retry(0))], [want()]))

    assert (again.token, again.attempt) == (2, 0)
    assert [given.attempt for given in turn.claimed[0].leases] == [1]


def test_a_turn_claims_for_each_lane(desk: Desk) -> None:
    shared, alone = desk.add_one(), desk.add_one(lane=Lane.EXCLUSIVE)

    turn = desk.run(desk.engine.turn([], [want(), want(lane=Lane.EXCLUSIVE)]))

    assert [[given.job for given in one.leases] for one in turn.claimed] == [[shared], [alone]]


def test_a_turn_may_only_settle(desk: Desk) -> None:
    job = desk.add_one()

    turn = desk.run(desk.engine.turn([settlement(desk.lease(), FAILED)], []))

    assert (turn.settled.buried, turn.claimed) == ([job], [])


def test_a_turn_says_which_outcomes_came_too_late(desk: Desk) -> None:
    job = desk.add_one()
    late = desk.lose()
    desk.lease(owner="bob")

    turn = desk.run(desk.engine.turn([settlement(late, SUCCEEDED)], [want()]))

    assert turn.settled == Settled(lost=[job])
    assert turn.claimed[0].leases == []


def test_a_turn_of_nothing_answers(desk: Desk) -> None:
    turn = desk.run(desk.engine.turn([], [want(number=0)]))

    assert turn.settled == Settled()
    assert turn.claimed[0].leases == []
