"""Offered jobs: ready in every respect, and named again when they come back."""

from __future__ import annotations

import pytest
from tests.engine.contract.carrying import DONE, move, seal
from tests.engine.contract.desk import (
    CRASHED,
    FAILED,
    RELEASED,
    Desk,
    retry,
    snooze,
)
from tests.engine.contract.offers import ledger, offer, offered, withdraw

from backlane.engine.memory import MemoryEngine
from backlane.engine.offering import Offer
from backlane.engine.selection import Cancel, Delete, Move, Redrive, Reprioritise
from backlane.model.clock import FakeClock
from backlane.model.job import Key, KeyRule, Lane
from backlane.model.outcome import Outcome

MAIL = ("mail", Lane.SHARED)


@pytest.fixture(autouse=True)
def offering(desk: Desk) -> None:
    """Those that offer nothing yet are not asked."""
    ledger(desk.engine)


# -- nothing else shows it --


def test_nothing_of_a_job_or_its_queue_changes(desk: Desk) -> None:
    jobs = desk.add(3, key=None, group="acme")
    before = [desk.record(job) for job in jobs], desk.queue(), desk.found_ids()
    watch = desk.engine.watch(jobs, starts=True)
    while watch.heard(0):
        pass

    offered(desk, 2)
    withdraw(desk, jobs[0])

    assert ([desk.record(job) for job in jobs], desk.queue(), desk.found_ids()) == before
    assert not watch.heard(0.05)
    watch.close()


def test_a_claim_by_queue_takes_offered_jobs_like_any(desk: Desk) -> None:
    jobs = desk.add(3)
    offered(desk, 2)

    assert desk.claimed_ids(2) == jobs[:2]
    assert offered(desk) == jobs[2:]


@pytest.mark.parametrize("change", [Cancel(), Delete()], ids=["cancel", "delete"])
def test_an_offered_job_can_be_ended(desk: Desk, change: Cancel | Delete) -> None:
    first, second = desk.add(2)
    offered(desk, 1)
    assert offer(desk, Offer("mail", 1)).more == [MAIL]

    desk.amend(change, first)

    assert desk.claimed_ids(9, ids=(first,)) == []
    assert offered(desk, 1) == [second]


def test_a_cancelled_job_that_is_redriven_is_named_again(desk: Desk) -> None:
    job = desk.add_one()
    offered(desk)
    desk.amend(Cancel(), job)

    desk.amend(Redrive(), job)

    assert offered(desk) == [job]


def test_a_new_priority_leaves_an_offer_as_it_is(desk: Desk) -> None:
    first, second = desk.add(2)
    offered(desk)

    desk.amend(Reprioritise(9), second)

    assert offered(desk) == []
    assert desk.claimed_ids(9, ids=(first, second)) == [second, first]
    assert desk.queue().depth.running == 2


def test_ageing_leaves_an_offer_as_it_is(desk: Desk) -> None:
    low = desk.add_one(priority=1)
    offered(desk)
    desk.clock.advance(minutes=40)

    assert desk.sweep().aged == 1
    assert offered(desk) == []
    rival = desk.add_one(priority=5)
    assert offered(desk) == [rival]
    assert desk.claimed_ids(1, ids=(rival, low)) == [low]


def test_a_job_that_is_moved_is_named_where_it_is(desk: Desk) -> None:
    job, other = desk.add_one(), desk.add_one("video")
    offer(desk, Offer("mail", 9), Offer("video", 9))

    desk.amend(Move("video"), job)

    assert offered(desk, queue="mail") == []
    assert offered(desk, 2, "video") == [job]
    assert offered(desk, 9, "video") == []
    assert desk.claimed_ids(9, ids=(job, other)) == [job, other]


def test_replacing_leaves_an_offer_as_it_is(desk: Desk) -> None:
    key = Key("send", "7")
    job = desk.add_one(key=key, body=b"old")
    offered(desk)

    desk.append(desk.job(key=key, rule=KeyRule("started", None, "replace"), body=b"new"))

    assert offered(desk) == []
    (lease,) = desk.claim(9, ids=(job,)).leases
    assert lease.body == b"new"


def test_a_debounced_job_is_named_again_once_it_is_due(desk: Desk) -> None:
    key, rule = Key("send", "7"), KeyRule("started", None, "debounce", 60_000)
    job = desk.add_one(key=key)
    offered(desk)

    desk.append(desk.job(key=key, rule=rule, delay_ms=1_000))

    assert offered(desk) == []
    desk.clock.advance(seconds=1)
    assert offered(desk) == [job]


def test_a_key_held_until_the_start_is_held_while_offered(desk: Desk) -> None:
    key, rule = Key("send", "7"), KeyRule("started", None, "existing")
    job = desk.add_one(key=key, rule=rule)
    offered(desk)

    answer = desk.append(desk.job(key=key, rule=rule))
    assert isinstance(answer, list)
    assert answer[0].first == job
    desk.claim(9, ids=(job,))
    assert desk.add_one(key=key, rule=rule) != job


# -- leaving and coming back --


@pytest.mark.parametrize(
    "outcome", [RELEASED, retry(0), snooze(0), CRASHED], ids=["release", "retry", "snooze", "crash"]
)
def test_what_comes_back_is_named_again(desk: Desk, outcome: Outcome) -> None:
    job = desk.add_one(lane=Lane.EXCLUSIVE)
    offered(desk, lane=Lane.EXCLUSIVE)

    desk.settle(desk.claim(9, ids=(job,), lane=Lane.EXCLUSIVE).leases[0], outcome)

    assert offered(desk, lane=Lane.EXCLUSIVE) == [job]
    assert offered(desk, lane=Lane.EXCLUSIVE) == []


def test_a_job_that_crashed_is_named_in_the_other_lane(desk: Desk) -> None:
    job = desk.add_one()
    offered(desk)

    desk.settle(desk.lease(), CRASHED)

    assert offered(desk) == []
    assert offered(desk, lane=Lane.EXCLUSIVE) == [job]


def test_a_retry_is_named_when_it_is_due(desk: Desk) -> None:
    job = desk.add_one()
    offered(desk)
    desk.settle(desk.lease(), retry(5))

    assert offered(desk) == []
    desk.clock.advance(seconds=5)
    assert offered(desk) == [job]


def test_a_dead_letter_that_is_redriven_is_named_again(desk: Desk) -> None:
    job = desk.add_one()
    offered(desk)
    desk.settle(desk.lease(), FAILED)

    desk.amend(Redrive(), job)

    assert offered(desk) == [job]


# -- withdraw --


def test_what_is_withdrawn_is_named_again_at_its_place(desk: Desk) -> None:
    jobs = desk.add(4)
    offered(desk, 2)

    withdraw(desk, jobs[1], jobs[0])

    assert offered(desk, 3) == jobs[:3]


def test_what_is_not_offered_is_passed_over(desk: Desk) -> None:
    first, second, running = desk.add(3)
    offered(desk, 1)
    desk.claim(1, ids=(running,))

    withdraw(desk)
    withdraw(desk, second, running, desk.job().id)

    assert offered(desk) == [second]
    withdraw(desk, first, first)
    assert offered(desk) == [first]


def test_a_full_window_that_was_withdrawn_from_has_room(desk: Desk) -> None:
    jobs = desk.add(3)
    offered(desk, 2)
    assert offer(desk, Offer("mail", 2)).more == [MAIL]

    withdraw(desk, jobs[0])

    assert offered(desk, 2) == [jobs[0]]


# -- moving --


def test_a_sealed_store_names_none(desk: Desk) -> None:
    desk.add(2)
    seal(desk)

    told = offer(desk, Offer("mail", 1))
    assert (told.jobs, told.more) == ([], [])
    seal(desk, DONE)
    assert offered(desk) == []


def test_a_store_that_is_opened_again_goes_on(desk: Desk) -> None:
    jobs = desk.add(2)
    offered(desk, 1)
    seal(desk)
    seal(desk, None)

    assert offered(desk, 2) == jobs[1:]


@pytest.mark.parametrize("way", ["out", "in"])
def test_a_move_carries_no_offers(desk: Desk, clock: FakeClock, way: str) -> None:
    other = Desk(MemoryEngine(clock), clock, first=1_000)
    source, target = (desk, other) if way == "out" else (other, desk)
    jobs = source.add(3)
    offered(source, 2)

    move((source, target))

    assert offered(target) == jobs
    assert target.claimed_ids(9, ids=tuple(jobs)) == jobs
