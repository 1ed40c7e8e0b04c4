"""Conflicts of keys: what becomes of a job that finds its key held, and of the holder."""

from __future__ import annotations

from typing import Any

from tests.engine.contract.carrying import DONE, SEAL, seal
from tests.engine.contract.desk import Desk

from backlane.model.job import Idempotency, Job, Key, KeyRule, Receipt, Refusal, State
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


# -- existing --


def test_existing_is_per_job_of_an_append(desk: Desk) -> None:
    holder = desk.add_one(key=KEY)
    jobs = [desk.job(), keyed(desk), desk.job(key=Key("send", "8"))]

    answer = desk.append(*jobs)

    assert told(answer) == [(None, False), (holder, False), (None, False)]
    assert desk.depth().ready == 3


def test_an_id_that_is_known_comes_before_any_conflict(desk: Desk) -> None:
    """An append whose answer was lost is sent again; it must not meet its own key."""
    for rule in (EXISTING, RAISE, REPLACE, DEBOUNCE):
        job = desk.job(key=Key("send", rule.conflict), rule=rule)
        desk.append(job)

        assert told(desk.append(job)) == [(job.id, False)]


def test_a_request_that_comes_again_comes_before_any_conflict(desk: Desk) -> None:
    asked = Idempotency("ann:send", "order-7", b"print")
    first = keyed(desk, RAISE, idempotency=asked)
    desk.append(first)

    assert told(desk.append(keyed(desk, RAISE, idempotency=asked))) == [(first.id, False)]
    assert told(desk.append(keyed(desk, REPLACE, idempotency=asked))) == [(first.id, False)]


def test_a_request_that_met_a_holder_is_answered_with_it_again(desk: Desk) -> None:
    holder = desk.add_one(key=KEY, body=b"old")
    asked = Idempotency("ann:send", "order-7", b"print")
    desk.append(keyed(desk, REPLACE, idempotency=asked, body=b"new"))
    desk.append(keyed(desk, REPLACE, body=b"newest"))

    again = desk.append(keyed(desk, REPLACE, idempotency=asked, body=b"new"))

    assert told(again) == [(holder, False)]
    assert desk.record(holder).body == b"newest"


# -- raise --


def test_raise_names_the_holder(desk: Desk) -> None:
    holder = desk.add_one(key=KEY)
    newcomer = keyed(desk, RAISE)

    assert desk.append(newcomer) == Refusal(
        "mail", "key", 1, bound=0, jobs=1, can_fit=False, job=newcomer.id, first=holder
    )


def test_raise_in_an_append_of_many_inserts_none_and_replaces_none(desk: Desk) -> None:
    held = desk.add_one(key=KEY)
    other = desk.add_one(key=Key("send", "8"), body=b"old")
    before = desk.record(other)
    clash = keyed(desk, RAISE)
    jobs = [
        desk.job(),
        desk.job(key=Key("send", "8"), rule=REPLACE, body=b"new"),
        clash,
        desk.job("video"),
    ]

    answer = desk.append(*jobs)

    assert isinstance(answer, Refusal)
    assert (answer.limit, answer.job, answer.first) == ("key", clash.id, held)
    assert desk.found_ids() == [other, held]
    assert desk.record(other) == before


def test_the_first_that_clashes_is_named(desk: Desk) -> None:
    holders = [desk.add_one(key=Key("send", name)) for name in "ab"]
    clashes = [desk.job(key=Key("send", name), rule=RAISE) for name in "ba"]

    answer = desk.append(*clashes)

    assert isinstance(answer, Refusal)
    assert (answer.job, answer.first) == (clashes[0].id, holders[1])


def test_raise_within_one_append_names_the_job_before(desk: Desk) -> None:
    first, second = keyed(desk, EXISTING), keyed(desk, RAISE)

    answer = desk.append(first, second)

    assert isinstance(answer, Refusal)
    assert (answer.limit, answer.job, answer.first) == ("key", second.id, first.id)
    assert not desk.is_known(first.id)


def test_raise_of_a_full_queue_tells_of_the_key(desk: Desk) -> None:
    holder = desk.add_one(key=KEY)

    answer = desk.append(keyed(desk, RAISE), desk.job(), bounds=Bounds(max_jobs=1))

    assert isinstance(answer, Refusal)
    assert (answer.limit, answer.first) == ("key", holder)


# -- a store that is being moved --


def test_a_sealed_store_replaces_nothing(desk: Desk) -> None:
    """What replaced a job there may not be seen any more by the mover."""
    holder = desk.add_one(key=KEY, body=b"old")
    seal(desk)

    refusal = desk.append(keyed(desk, REPLACE, body=b"new"))

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.to) == ("moving", SEAL.to)
    assert told(desk.append(keyed(desk, EXISTING))) == [(holder, False)]
    clash = desk.append(keyed(desk, RAISE))
    assert isinstance(clash, Refusal)
    assert (clash.limit, clash.first) == ("key", holder)
    assert desk.record(holder).body == b"old"
    seal(desk, DONE)
    assert isinstance(desk.append(keyed(desk, REPLACE, parent=holder)), Refusal)
