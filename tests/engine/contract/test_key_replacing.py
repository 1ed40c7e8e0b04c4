"""Replace and debounce: a job that waits takes the arguments of a newer one."""

from __future__ import annotations

from typing import Any

from tests.engine.contract.desk import SUCCEEDED, Desk, retry

from backlane.engine.selection import Cancel
from backlane.model.job import Job, Key, KeyRule, Receipt, Refusal, State
from backlane.model.queue import Bounds

KEY = Key("send", "welcome:7")
EXISTING, RAISE, REPLACE = (
    KeyRule("started", None, conflict) for conflict in ("existing", "raise", "replace")
)
DEBOUNCE = KeyRule("started", None, "debounce", 60_000)


def keyed(desk: Desk, rule: KeyRule = EXISTING, **fields: Any) -> Job:
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


# -- replace --


def test_a_ready_job_takes_the_newest_arguments_and_keeps_its_place(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, body=b"old", headers=b"old", priority=5)
    desk.clock.advance(seconds=1)
    rival = desk.add_one()
    before = desk.record(holder)
    newcomer = keyed(desk, REPLACE, body=b"newer", headers=b"new", priority=9, group="acme")

    assert told(desk.append(newcomer)) == [(holder, True)]

    after = desk.record(holder)
    assert (after.body, after.headers, after.size) == (b"newer", b"new", 8)
    assert (after.id, after.enqueued_ms, after.due_ms) == (
        holder,
        before.enqueued_ms,
        before.due_ms,
    )
    assert (after.priority, after.group, after.rule) == (5, None, before.rule)
    assert after.revision == before.revision + 1
    assert desk.depth().bytes == 8 + 2
    lease = desk.lease()
    assert (lease.job, lease.body, lease.headers) == (holder, b"newer", b"new")
    assert desk.lease().job == rival


def test_headers_are_replaced_by_none(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, headers=b"old")

    desk.append(keyed(desk, REPLACE, body=b"new"))

    assert (desk.record(holder).headers, desk.depth().bytes) == (None, 3)


def test_a_scheduled_job_takes_the_newest_due_time(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, delay_ms=5_000, body=b"old")
    desk.clock.advance(seconds=1)

    assert told(desk.append(keyed(desk, REPLACE, delay_ms=9_000, body=b"new"))) == [(holder, True)]

    takes_after(desk, holder, 9_000)


def test_a_scheduled_job_may_become_due_sooner(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, delay_ms=50_000)

    desk.append(keyed(desk, REPLACE, delay_ms=1_000))

    takes_after(desk, holder, 1_000)


def test_a_scheduled_job_is_ready_when_its_newcomer_is_due_now(desk: Desk) -> None:
    rival = desk.add_one(delay_ms=1_000)
    holder = desk.add_one(key=KEY, delay_ms=50_000)
    desk.clock.advance(seconds=2)

    desk.append(keyed(desk, REPLACE))

    assert desk.state(holder) is State.READY
    assert desk.record(holder).due_ms == desk.clock.wall_ms()
    assert desk.claimed_ids() == [rival, holder]


def test_a_ready_job_is_put_off_by_a_newcomer_that_is_due_later(desk: Desk) -> None:
    holder = desk.add_one(key=KEY)

    desk.append(keyed(desk, REPLACE, delay_ms=4_000))

    assert (desk.depth().ready, desk.depth().scheduled) == (0, 1)
    takes_after(desk, holder, 4_000)


def test_a_replaced_job_frees_its_key_when_it_starts(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, rule=REPLACE)
    desk.append(keyed(desk, REPLACE, body=b"new"))
    assert desk.claimed_ids() == [holder]
    newcomer = keyed(desk, REPLACE)

    assert told(desk.append(newcomer)) == [(None, False)]


def test_a_job_that_started_is_not_replaced(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, body=b"old")  # held until finished
    lease = desk.lease()
    desk.settle(lease, retry(30))

    assert told(desk.append(keyed(desk, REPLACE, body=b"new"))) == [(holder, False)]
    assert told(desk.append(keyed(desk, DEBOUNCE, body=b"new"))) == [(holder, False)]

    assert (desk.record(holder).body, desk.state(holder)) == (b"old", State.SCHEDULED)


def test_a_job_that_ended_unrun_is_not_replaced(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, rule=KeyRule(window_ms=60_000), body=b"old")
    desk.amend(Cancel(), holder)

    assert told(desk.append(keyed(desk, REPLACE, body=b"new"))) == [(holder, False)]

    assert (desk.record(holder).body, desk.state(holder)) == (b"old", State.CANCELLED)


def test_the_holder_is_replaced_in_its_own_queue(desk: Desk) -> None:
    holder = desk.add_one("video", key=KEY, body=b"old")

    assert told(desk.append(keyed(desk, REPLACE, body=b"newer"))) == [(holder, True)]

    assert desk.record(holder).queue == "video"
    assert desk.depth("video").bytes == 5
    assert desk.run(desk.engine.list_queues())[0].name == "video"


def test_a_replacement_wakes_who_waits_for_the_job(desk: Desk) -> None:
    holder = desk.add_one(key=KEY)
    watch = desk.engine.watch([holder])
    try:
        watch.heard(0)
        desk.append(keyed(desk, REPLACE, body=b"new"))

        assert watch.heard(5)
    finally:
        watch.close()


# -- replace within one append --


def test_the_last_of_an_append_wins(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, body=b"old")
    jobs = [keyed(desk, REPLACE, body=body) for body in (b"one", b"two", b"three")]

    assert told(desk.append(*jobs)) == [(holder, True)] * 3

    assert desk.record(holder).body == b"three"
    assert desk.depth().bytes == 5


def test_a_new_job_of_the_same_append_is_replaced(desk: Desk) -> None:
    first = keyed(desk, REPLACE, body=b"one")
    second = keyed(desk, REPLACE, body=b"two", headers=b"h", delay_ms=7_000)

    answer = desk.append(first, desk.job(), second)

    assert told(answer) == [(None, False), (None, False), (first.id, True)]
    assert isinstance(answer, list)
    assert answer[0].due_ms == desk.clock.wall_ms() + 7_000
    record = desk.record(first.id)
    assert (record.body, record.headers, record.state) == (b"two", b"h", State.SCHEDULED)
    assert not desk.is_known(second.id)
    assert desk.depth().jobs == 2


def test_existing_after_replace_keeps_what_replaced(desk: Desk) -> None:
    jobs = [
        keyed(desk, EXISTING, body=b"one"),
        keyed(desk, REPLACE, body=b"two"),
        keyed(desk, EXISTING, body=b"three"),
    ]

    answer = desk.append(*jobs)

    assert told(answer) == [(None, False), (jobs[0].id, True), (jobs[0].id, False)]
    assert desk.record(jobs[0].id).body == b"two"


# -- bounds --


def test_a_replacement_needs_no_place(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, body=b"old")

    answer = desk.append(keyed(desk, REPLACE, body=b"new"), bounds=Bounds(max_jobs=1))

    assert told(answer) == [(holder, True)]


def test_the_growth_of_a_replacement_is_judged(desk: Desk) -> None:
    bounds = Bounds(max_bytes=10)
    holder = desk.add_one(key=KEY, body=b"1234")
    other = desk.add_one(body=b"12345")
    before = desk.record(holder)

    refusal = desk.append(keyed(desk, REPLACE, body=b"123456"), bounds=bounds)

    assert isinstance(refusal, Refusal)
    assert (refusal.queue, refusal.limit, refusal.depth) == ("mail", "bytes", 9)
    assert (refusal.bound, refusal.added, refusal.can_fit) == (10, 2, True)
    assert desk.record(holder) == before
    assert told(desk.append(keyed(desk, REPLACE, body=b"12345"), bounds=bounds)) == [(holder, True)]
    assert desk.is_known(other)


def test_growth_is_judged_net_over_the_whole_append(desk: Desk) -> None:
    bounds = Bounds(max_bytes=10)
    holders = [desk.add_one(key=Key("send", name), body=b"12345") for name in "ab"]
    jobs = [
        desk.job(key=Key("send", "a"), rule=REPLACE, body=b"123456789"),
        desk.job(key=Key("send", "a"), rule=REPLACE, body=b"1234567"),
        desk.job(key=Key("send", "b"), rule=REPLACE, body=b"12"),
        desk.job(body=b"1"),
    ]

    assert told(desk.append(*jobs, bounds=bounds)) == [
        (holders[0], True),
        (holders[0], True),
        (holders[1], True),
        (None, False),
    ]
    assert desk.depth().bytes == 10


def test_a_replacement_that_does_not_grow_is_taken_in_a_queue_beyond_its_bound(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, body=b"12345")
    bounds = Bounds(max_jobs=1, max_bytes=2)
    desk.add(3)

    assert told(desk.append(keyed(desk, REPLACE, body=b"54321"), bounds=bounds)) == [(holder, True)]


def test_growth_is_judged_where_the_holder_is(desk: Desk) -> None:
    holder = desk.add_one("video", key=KEY, body=b"1")
    desk.add_one("mail")
    newcomer = keyed(desk, REPLACE, body=b"123")

    refusal = desk.append(newcomer, declared={"video": Bounds(max_bytes=2)})

    assert isinstance(refusal, Refusal)
    assert (refusal.queue, refusal.limit) == ("video", "bytes")
    assert told(desk.append(newcomer, declared={"mail": Bounds(max_bytes=2)})) == [(holder, True)]


# -- debounce --


def test_debounce_puts_a_job_off_again_and_again(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, rule=DEBOUNCE, delay_ms=10_000, body=b"0")

    for number in (1, 2, 3):
        desk.clock.advance(seconds=9)
        newcomer = keyed(desk, DEBOUNCE, delay_ms=10_000, body=str(number).encode())
        assert told(desk.append(newcomer)) == [(holder, True)]

    assert desk.record(holder).body == b"3"
    takes_after(desk, holder, 10_000)


def test_debounce_is_due_no_later_than_its_cap_after_the_first_append(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, rule=DEBOUNCE, delay_ms=10_000)
    for _ in range(5):
        desk.clock.advance(seconds=9)
        desk.append(keyed(desk, DEBOUNCE, delay_ms=10_000))
    assert desk.record(holder).due_ms == desk.clock.wall_ms() + 10_000

    desk.clock.advance(seconds=9)  # 54 s after the append
    desk.append(keyed(desk, DEBOUNCE, delay_ms=10_000, body=b"last"))

    takes_after(desk, holder, 6_000)
    assert desk.record(holder).body == b"last"


def test_debounce_past_its_cap_makes_a_job_due_now(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, rule=DEBOUNCE, delay_ms=90_000)  # put so by hand
    desk.clock.advance(seconds=61)

    desk.append(keyed(desk, DEBOUNCE, delay_ms=10_000))

    assert desk.record(holder).due_ms == desk.clock.wall_ms()
    assert desk.claimed_ids() == [holder]


def test_debounce_past_its_cap_keeps_the_place_of_a_job_that_is_due(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, rule=DEBOUNCE)
    before = desk.record(holder)
    desk.clock.advance(seconds=60)

    desk.append(keyed(desk, DEBOUNCE, delay_ms=10_000, body=b"new"))

    after = desk.record(holder)
    assert (after.state, after.due_ms, after.body) == (State.READY, before.due_ms, b"new")


def test_debounce_without_a_cap_is_put_off_for_ever(desk: Desk) -> None:
    rule = KeyRule("started", None, "debounce")
    holder = desk.add_one(key=KEY, rule=rule, delay_ms=1_000)
    desk.clock.advance(days=30)

    desk.append(keyed(desk, rule, delay_ms=1_000))

    takes_after(desk, holder, 1_000)


def test_debounce_within_one_append_is_capped_too(desk: Desk) -> None:
    first, second = (keyed(desk, DEBOUNCE, delay_ms=90_000) for _ in range(2))

    answer = desk.append(first, second)

    assert told(answer) == [(None, False), (first.id, True)]
    takes_after(desk, first.id, 60_000)


def test_debounce_begins_anew_once_the_job_has_started(desk: Desk) -> None:
    desk.add_one(key=KEY, rule=DEBOUNCE)
    lease = desk.lease()
    newcomer = keyed(desk, DEBOUNCE, delay_ms=10_000)

    assert told(desk.append(newcomer)) == [(None, False)]

    desk.settle(lease, SUCCEEDED)
    takes_after(desk, newcomer.id, 10_000)
