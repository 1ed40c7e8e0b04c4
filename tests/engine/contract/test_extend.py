"""extend: leases last while their holder says so, and not after."""

from __future__ import annotations

from tests.engine.contract.desk import RELEASED, SUCCEEDED, Desk

from backlane.engine.protocol import Extended
from backlane.engine.selection import Cancel


def extend(desk: Desk, *leases, seconds: float = 30) -> Extended:
    pairs = [(lease.job, lease.token) for lease in leases]
    return desk.run(desk.engine.extend(pairs, int(seconds * 1000)))


def test_an_extended_lease_ends_that_much_after_now(desk: Desk) -> None:
    desk.add()
    lease = desk.lease(seconds=30)
    desk.clock.advance(seconds=20)

    assert extend(desk, lease, seconds=30) == Extended()

    desk.clock.advance(milliseconds=29_999)
    assert desk.claimed_ids(owner="bob") == []
    desk.clock.advance(milliseconds=1)
    assert len(desk.claimed_ids(owner="bob")) == 1


def test_an_extension_can_shorten_a_lease(desk: Desk) -> None:
    desk.add()
    lease = desk.lease(seconds=30)

    extend(desk, lease, seconds=1)
    desk.clock.advance(seconds=1)

    assert len(desk.claimed_ids(owner="bob")) == 1


def test_a_lapsed_lease_is_lost_even_if_nobody_took_the_job(desk: Desk) -> None:
    desk.add()
    lease = desk.lose()

    assert extend(desk, lease).lost == [lease.job]
    assert len(desk.claimed_ids(owner="bob")) == 1


def test_a_lease_given_to_another_is_lost(desk: Desk) -> None:
    desk.add()
    old = desk.lose()
    desk.lease(owner="bob")

    assert extend(desk, old).lost == [old.job]


def test_a_settled_or_unknown_job_has_no_lease(desk: Desk) -> None:
    desk.add(2)
    done, given_back = desk.claim(2).leases
    desk.settle(done, SUCCEEDED)
    desk.settle(given_back, RELEASED)
    stranger = (desk.job().id, 1)

    extended = desk.run(
        desk.engine.extend(
            [(done.job, done.token), stranger, (given_back.job, given_back.token)], 1_000
        )
    )

    assert extended.lost == [done.job, stranger[0], given_back.job]


def test_one_lost_lease_does_not_keep_others_from_being_extended(desk: Desk) -> None:
    desk.add(2)
    short = desk.lease(seconds=5)
    long = desk.lease(seconds=30)
    desk.clock.advance(seconds=10)

    assert extend(desk, short, long, seconds=60).lost == [short.job]

    desk.clock.advance(seconds=45)
    assert desk.claimed_ids(owner="bob") == [short.job]


def test_a_job_asked_to_stop_is_extended_and_told(desk: Desk) -> None:
    job = desk.add_one()
    lease = desk.lease()
    desk.amend(Cancel(), job)
    desk.clock.advance(seconds=20)

    assert extend(desk, lease) == Extended(cancelled=[job])

    desk.clock.advance(seconds=20)
    assert desk.settle(lease, SUCCEEDED).lost == []


def test_a_lease_its_owner_does_not_know_of_lapses(desk: Desk) -> None:
    """The answer to a claim may be lost; what nobody runs must not be kept alive."""
    desk.add(2)
    known, unknown = desk.claim(2, owner="ann", seconds=30).leases
    desk.clock.advance(seconds=20)

    extend(desk, known, seconds=30)

    desk.clock.advance(seconds=20)
    assert desk.claimed_ids(owner="bob") == [unknown.job]


def test_a_wall_clock_that_jumps_changes_no_lease(desk: Desk) -> None:
    desk.add()
    lease = desk.lease(seconds=30)
    desk.clock.jump(hours=5)

    assert extend(desk, lease).lost == []
    desk.clock.jump(hours=-10)
    assert extend(desk, lease).lost == []


def test_an_extension_of_nothing_is_nothing(desk: Desk) -> None:
    assert desk.run(desk.engine.extend([], 1_000)) == Extended()
