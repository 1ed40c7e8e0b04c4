"""offer and withdraw: which ready jobs a transport carries, and that nothing else shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.engine.contract.desk import (
    SUCCEEDED,
    Desk,
)
from tests.engine.contract.offers import FOR_MS, ledger, offer, offered

from backlane.engine.offering import Carried, Offer
from backlane.engine.protocol import Admission, Close, Open
from backlane.model.job import Job, Lane, Policy, State
from backlane.model.limit import Limit, Rate, Use
from backlane.model.queue import Kind

MAIL, VIDEO = ("mail", Lane.SHARED), ("video", Lane.SHARED)
ONE = Limit(concurrency=1)
STRIPE = (Use("stripe"),)


@pytest.fixture(autouse=True)
def offering(desk: Desk) -> None:
    """Those that offer nothing yet are not asked."""
    ledger(desk.engine)


# -- which, and in which order --


def test_ready_jobs_are_named_once(desk: Desk) -> None:
    jobs = desk.add(3)

    assert offered(desk) == jobs
    assert offered(desk) == []
    later = desk.add_one()
    assert offered(desk) == [later]


def test_what_is_named_says_where_it_goes(desk: Desk) -> None:
    job = desk.add_one("video", group="acme", lane=Lane.EXCLUSIVE, body=b"[1]")
    plain = desk.add_one("video")

    told = offer(desk, Offer("video", 9, Lane.EXCLUSIVE), Offer("video", 9))

    assert told.jobs == [
        Carried(job, "video", Lane.EXCLUSIVE, "acme"),
        Carried(plain, "video", Lane.SHARED, None),
    ]
    assert told.now_ms == desk.clock.wall_ms()


def test_they_are_named_in_the_order_of_a_claim(desk: Desk) -> None:
    low, high, middle = (desk.add_one(priority=p) for p in (0, 9, 5))
    due = desk.add_one(delay_ms=1_000)
    desk.clock.advance(seconds=2)
    last = desk.add_one()

    assert offered(desk) == [high, middle, due, last, low]


def test_an_urgent_one_goes_before_all_that_are_not_named_yet(desk: Desk) -> None:
    first, second = desk.add(2)
    assert offered(desk, 1) == [first]
    urgent = desk.add_one(priority=9)

    assert offered(desk, 3) == [urgent, second]


def test_a_fair_queue_names_by_virtual_time(desk: Desk) -> None:
    desk.fair.add("mail")
    mass = desk.add(3, group="mass")
    late = desk.add_one(group="late")

    assert offered(desk, 2) == [mass[0], late]
    assert offered(desk, 9) == mass[1:]


def test_of_a_group_in_order_one_is_named_at_a_time(desk: Desk) -> None:
    first, second = desk.add(2, uses=(Use("mail", "acme", turn=True),), group="acme")
    other = desk.add_one(uses=(Use("mail", "other", turn=True),), group="other")

    assert offered(desk) == [first, other]
    desk.settle(desk.claim(9, ids=(first,)).leases[0], SUCCEEDED)

    assert offered(desk) == [second]


def test_messages_are_named_like_tasks(desk: Desk) -> None:
    message = desk.job("orders", task=None)
    desk.append(message, kind=Kind.MESSAGES)

    assert offered(desk, queue="orders") == [message.id]


def test_an_unknown_queue_has_nothing_to_name(desk: Desk) -> None:
    told = offer(desk, Offer("nowhere", 9))

    assert (told.jobs, told.more, told.doubtful) == ([], [], [])


@pytest.mark.parametrize("state", [s for s in State if s not in (State.READY, State.BLOCKED)])
def test_only_ready_jobs_are_named(desk: Desk, state: State) -> None:
    desk.in_state(state)

    assert offered(desk) == []


# -- windows --


def test_a_window_holds_so_many_and_no_more(desk: Desk) -> None:
    jobs = desk.add(5)

    assert offered(desk, 2) == jobs[:2]
    assert offered(desk, 2) == []
    assert offered(desk, 3) == [jobs[2]]
    assert offered(desk, 1) == []


def test_a_window_that_is_full_says_so_while_jobs_wait_behind_it(desk: Desk) -> None:
    desk.add(3)

    assert offer(desk, Offer("mail", 4)).more == []
    assert offer(desk, Offer("mail", 3)).more == []
    desk.add_one()
    assert offer(desk, Offer("mail", 3)).more == [MAIL]
    assert offer(desk, Offer("mail", 3)).more == [MAIL]
    assert offer(desk, Offer("mail", 4)).more == []


def test_a_window_that_becomes_full_says_so_at_once(desk: Desk) -> None:
    desk.add(3)

    assert offer(desk, Offer("mail", 2)).more == [MAIL]


def test_what_is_claimed_gives_its_room_to_the_next(desk: Desk) -> None:
    jobs = desk.add(4)
    offered(desk, 2)

    assert offer(desk, Offer("mail", 2)).more == [MAIL]
    assert desk.claimed_ids(9, ids=(jobs[0],)) == [jobs[0]]
    assert offered(desk, 2) == [jobs[2]]
    assert offered(desk, 2) == []
    assert desk.claimed_ids(1) == [jobs[1]]
    assert offered(desk, 2) == [jobs[3]]


def test_each_lane_has_a_window_of_its_own(desk: Desk) -> None:
    shared, exclusive = desk.add(2), desk.add(2, lane=Lane.EXCLUSIVE)

    assert offered(desk, 1) == shared[:1]
    assert offered(desk, 1, lane=Lane.EXCLUSIVE) == exclusive[:1]
    told = offer(desk, Offer("mail", 1), Offer("mail", 1, Lane.EXCLUSIVE))
    assert told.more == [MAIL, ("mail", Lane.EXCLUSIVE)]


def test_several_queues_are_asked_at_once(desk: Desk) -> None:
    mail, video = desk.add(3), desk.add(1, "video")

    told = offer(desk, Offer("mail", 2), Offer("video", 2))

    assert [one.job for one in told.jobs] == [*mail[:2], *video]
    assert told.more == [MAIL]
    assert offered(desk, 9) == mail[2:]


def test_other_queues_are_left_alone(desk: Desk) -> None:
    video = desk.add(2, "video")

    assert offered(desk) == []
    assert offered(desk, queue="video") == video


def test_a_window_of_none_names_none(desk: Desk) -> None:
    desk.add()

    told = offer(desk, Offer("mail", 0))

    assert (told.jobs, told.more) == ([], [MAIL])


# -- offers that count no more --


def test_an_old_offer_that_is_void_is_made_again(desk: Desk) -> None:
    jobs = desk.add(2)
    offered(desk)
    desk.clock.advance(milliseconds=FOR_MS + 1)
    now = desk.clock.wall_ms()

    assert offered(desk, void_ms=now - FOR_MS - 1) == []
    assert offered(desk, void_ms=now - FOR_MS) == jobs
    assert offered(desk, void_ms=now) == []


def test_a_young_offer_is_never_void(desk: Desk) -> None:
    desk.add()
    offered(desk)
    desk.clock.advance(milliseconds=FOR_MS)

    assert offered(desk, void_ms=desk.clock.wall_ms() + 1) == []


def test_only_offers_from_before_are_void(desk: Desk) -> None:
    lost = desk.add_one()
    offered(desk)
    desk.clock.advance(seconds=10)
    arriving = desk.add_one()
    since = offer(desk, Offer("mail", 9)).now_ms
    desk.clock.advance(minutes=5)

    assert offered(desk, void_ms=since) == [lost]
    assert offered(desk, void_ms=since + 1) == [arriving]


def test_what_was_void_is_forgotten(desk: Desk) -> None:
    first, second = desk.add(2)
    offered(desk)
    desk.clock.advance(minutes=5)

    assert offered(desk, 1, void_ms=desk.clock.wall_ms()) == [first]
    assert offered(desk, 2) == [second]


def test_offers_of_another_queue_or_lane_stay(desk: Desk) -> None:
    desk.add(1, "video")
    desk.add(1, lane=Lane.EXCLUSIVE)
    windows = [Offer("video", 9), Offer("mail", 9, Lane.EXCLUSIVE)]
    offer(desk, *windows)
    desk.clock.advance(minutes=5)

    assert offered(desk, void_ms=desk.clock.wall_ms()) == []
    assert offer(desk, *windows).jobs == []


def test_old_offers_are_doubtful(desk: Desk) -> None:
    desk.add()
    offered(desk)
    desk.clock.advance(milliseconds=FOR_MS)

    assert offer(desk, Offer("mail", 9), Offer("video", 9)).doubtful == []
    desk.clock.advance(milliseconds=1)
    assert offer(desk, Offer("mail", 9), Offer("video", 9)).doubtful == [MAIL]
    assert offer(desk, Offer("mail", 9), for_ms=FOR_MS + 2).doubtful == []
    assert offer(desk, Offer("mail", 9, void_ms=desk.clock.wall_ms())).doubtful == []


def test_a_full_window_is_doubtful_too(desk: Desk) -> None:
    desk.add(3)
    offered(desk, 2)
    assert offer(desk, Offer("mail", 2)).doubtful == []
    desk.clock.advance(milliseconds=FOR_MS + 1)

    told = offer(desk, Offer("mail", 2))

    assert (told.more, told.doubtful) == ([MAIL], [MAIL])
    desk.claim(2)
    assert offer(desk, Offer("mail", 2)).doubtful == []


def test_offers_of_a_clock_that_was_set_back_are_as_old_as_any(desk: Desk) -> None:
    job = desk.add_one()
    offered(desk)
    desk.clock.jump(hours=-1)

    assert offer(desk, Offer("mail", 9)).doubtful == [MAIL]
    assert offered(desk, void_ms=desk.clock.wall_ms() - 10_000) == [job]


# -- who may not be named --


def test_a_paused_queue_names_none_until_it_is_resumed(desk: Desk) -> None:
    job = desk.add_one()
    desk.pause()

    told = offer(desk, Offer("mail", 1))
    assert (told.jobs, told.more) == ([], [])
    desk.resume()
    assert offered(desk) == [job]


def test_the_room_of_a_queues_own_limit_is_the_most(desk: Desk) -> None:
    desk.limits["queue:mail"] = Limit(concurrency=2)
    jobs = desk.add(4)

    assert offered(desk) == jobs[:2]
    told = offer(desk, Offer("mail", 9))
    assert (told.jobs, told.more) == ([], [])
    desk.claim(1, ids=(jobs[0],))
    assert offered(desk) == []
    desk.end(jobs[0])
    assert offered(desk) == [jobs[2]]


def test_both_lanes_are_under_the_limit_of_their_queue(desk: Desk) -> None:
    desk.limits["queue:mail"] = Limit(concurrency=2)
    shared, exclusive = desk.add(2), desk.add(2, lane=Lane.EXCLUSIVE)

    assert offered(desk, 1) == shared[:1]
    assert offered(desk, lane=Lane.EXCLUSIVE) == exclusive[:1]


def test_no_more_are_named_than_there_are_tokens(desk: Desk) -> None:
    desk.limits["queue:mail"] = Limit(rate=Rate(2, 60_000, burst=2))
    jobs = desk.add(4)

    assert offered(desk) == jobs[:2]
    assert len(desk.claimed_ids(9, ids=tuple(jobs), seconds=600)) == 2
    assert offered(desk) == []
    desk.clock.advance(seconds=60)
    assert offered(desk) == jobs[2:]


def test_a_resource_that_is_down_is_passed_by(desk: Desk) -> None:
    waits = desk.add_one(resource="stripe")
    other, plain = desk.add_one(resource="mailgun"), desk.add_one()
    desk.run(desk.engine.steer("stripe", Open()))

    told = offer(desk, Offer("mail", 2))
    assert ([one.job for one in told.jobs], told.more) == ([other, plain], [])
    desk.run(desk.engine.steer("stripe", Close()))
    assert offered(desk) == [waits]


def test_jobs_of_several_resources_are_one_line(desk: Desk) -> None:
    jobs = [desk.add_one(resource=name) for name in ("stripe", "mailgun", None, "stripe")]

    assert offered(desk, 3) == jobs[:3]
    assert offered(desk, 9) == jobs[3:]


# -- limits of single jobs --


def test_a_job_without_room_is_blocked_by_its_claim_and_named_once_woken(desk: Desk) -> None:
    desk.limits["stripe"] = Limit(concurrency=2)
    first, second = desk.add(2, uses=STRIPE)
    desk.tune_limit("stripe", ONE)

    assert offered(desk) == [first, second]
    assert desk.claimed_ids(9, ids=(first, second)) == [first]
    assert desk.blocked_on(second) == ["stripe"]
    assert offered(desk) == []
    desk.end(first)
    assert offered(desk) == [second]


def test_blocked_jobs_are_woken_and_named(desk: Desk) -> None:
    desk.limits["stripe"] = ONE
    first, second = desk.add(2, uses=STRIPE)

    assert offered(desk) == [first]
    desk.settle(desk.lease(), SUCCEEDED)
    assert desk.state(second) is State.BLOCKED
    assert offered(desk) == [second]
    assert desk.state(second) is State.READY


# -- brought in --


def test_due_jobs_are_brought_in_and_named(desk: Desk) -> None:
    job = desk.add_one(delay_ms=5_000)

    told = offer(desk, Offer("mail", 9))
    assert (told.jobs, told.next_due_ms) == ([], 5_000)
    desk.clock.advance(seconds=5)
    told = offer(desk, Offer("mail", 9))
    assert ([one.job for one in told.jobs], told.next_due_ms) == ([job], None)
    assert desk.state(job) is State.READY


def test_lapsed_jobs_are_brought_in_and_named(desk: Desk) -> None:
    job = desk.add_one()
    desk.lose()

    assert offered(desk) == [job]
    assert desk.record(job).attempt == 1


def test_a_lapse_out_of_attempts_is_told(desk: Desk) -> None:
    job = desk.add_one(policy=Policy(attempts=1))
    desk.lose()

    told = offer(desk, Offer("mail", 9))

    assert (told.jobs, [record.id for record in told.buried]) == ([], [job])


def test_a_departed_owners_jobs_are_named_once_a_claim_has_told_of_it(desk: Desk) -> None:
    job = desk.add_one()
    offered(desk)
    desk.lease(owner="bob")
    assert offered(desk) == []

    assert desk.claim(0, departed=("bob",)).leases == []

    assert offered(desk) == [job]


def test_an_expired_job_ends_by_its_claim(desk: Desk) -> None:
    late, good = desk.add_one(expires_ms=1_000), desk.add_one()
    desk.clock.advance(seconds=1)

    named = offered(desk)
    assert good in named
    assert desk.claimed_ids(9, ids=(late, good)) == [good]
    assert desk.state(late) is State.EXPIRED


# -- two at a time --


def at_once(acts: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_offers_at_once_never_name_the_same(desk: Desk) -> None:
    jobs = desk.add(400)
    engine, named = ledger(desk.engine), list[list[bytes]]()

    def act() -> None:
        for window in range(40, 401, 40):
            told = engine.run(engine.offer([Offer("mail", window)], FOR_MS))
            named.append([one.job for one in told.jobs])

    at_once([act] * 4)

    assert sorted(job for some in named for job in some) == jobs


def test_offers_appends_and_claims_at_once_lose_and_double_nothing(desk: Desk) -> None:
    engine, named, leased = ledger(desk.engine), list[bytes](), list[bytes]()
    batches: list[list[Job]] = [[desk.job() for _ in range(20)] for _ in range(10)]

    def append() -> None:
        for batch in batches:
            engine.run(engine.append(batch, Admission()))

    def relay() -> None:
        for _ in range(10):
            named.extend(offered(desk, 50))

    def work() -> None:
        for _ in range(10):
            leased.extend(desk.claimed_ids(20, ids=(bytes(16), *named[-40:])))

    at_once([append, relay, relay, work])
    leased += desk.claimed_ids(400, ids=(bytes(16), *named))
    while more := offered(desk, 50):
        named += more
        leased += desk.claimed_ids(400, ids=tuple(named))
    leased += desk.claimed_ids(400, ids=tuple(named))

    assert len(named) == len(set(named)) == 200
    assert sorted(leased) == sorted(job.id for batch in batches for job in batch)
