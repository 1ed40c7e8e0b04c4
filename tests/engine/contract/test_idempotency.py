"""append: a request that comes again is answered with the first one's job."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, STOPPED, SUCCEEDED, Desk, firsts

from backlane.engine.selection import Delete
from backlane.model.job import Idempotency, Key, Refusal
from backlane.model.queue import Bounds

ASKED = Idempotency("ann:send", "order-7", b"print of order 7")
OTHER = Idempotency("ann:send", "order-7", b"print of order 8")
SHORT = Idempotency("ann:send", "order-7", b"print of order 7", window_ms=60_000)


def test_a_request_that_comes_again_is_answered_with_its_first_job(desk: Desk) -> None:
    first, again = desk.job(idempotency=ASKED), desk.job(idempotency=ASKED)
    desk.append(first)

    assert firsts(desk.append(again)) == [(again.id, first.id)]
    assert desk.depth().jobs == 1
    assert not desk.is_known(again.id)


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED])
def test_a_request_is_remembered_whatever_became_of_its_job(desk: Desk, outcome) -> None:
    first = desk.finished(outcome, idempotency=ASKED)
    again = desk.job(idempotency=ASKED)

    assert firsts(desk.append(again)) == [(again.id, first)]


def test_a_request_is_remembered_when_its_job_was_deleted(desk: Desk) -> None:
    first = desk.add_one(idempotency=ASKED)
    desk.amend(Delete(), first)
    again = desk.job(idempotency=ASKED)

    assert firsts(desk.append(again)) == [(again.id, first)]


def test_a_request_is_remembered_when_its_job_was_pruned(desk: Desk) -> None:
    first = desk.finished(idempotency=ASKED)
    desk.clock.advance(hours=2)
    assert desk.sweep(done_ms=0).pruned == 1
    again = desk.job(idempotency=ASKED)

    assert firsts(desk.append(again)) == [(again.id, first)]


def test_another_request_under_the_same_key_is_refused(desk: Desk) -> None:
    desk.append(desk.job(idempotency=ASKED))
    other = desk.job(idempotency=OTHER)

    refusal = desk.append(other)

    assert refusal == Refusal("mail", "reused", 1, bound=0, jobs=1, can_fit=False, job=other.id)
    assert not desk.is_known(other.id)


def test_a_key_that_is_reused_refuses_all_that_came_along(desk: Desk) -> None:
    desk.append(desk.job(idempotency=ASKED))
    innocent = desk.job()

    assert isinstance(desk.append(innocent, desk.job(idempotency=OTHER)), Refusal)
    assert not desk.is_known(innocent.id)


def test_within_one_batch_a_request_is_one_job(desk: Desk) -> None:
    first, again = desk.job(idempotency=ASKED), desk.job(idempotency=ASKED)

    assert firsts(desk.append(first, again)) == [(first.id, None), (again.id, first.id)]


def test_within_one_batch_two_requests_may_not_share_a_key(desk: Desk) -> None:
    first, other = desk.job(idempotency=ASKED), desk.job(idempotency=OTHER)

    refusal = desk.append(first, other)

    assert refusal == Refusal("mail", "reused", 0, bound=0, can_fit=False, job=other.id)
    assert not desk.is_known(first.id)


def test_a_refused_request_is_not_remembered(desk: Desk) -> None:
    full = Bounds(max_jobs=1)
    desk.append(desk.job(), bounds=full)
    assert isinstance(desk.append(desk.job(idempotency=ASKED), bounds=full), Refusal)

    again = desk.job(idempotency=OTHER)

    assert firsts(desk.append(again, bounds=Bounds())) == [(again.id, None)]


def test_equal_keys_of_two_scopes_are_two_requests(desk: Desk) -> None:
    desk.add_one(idempotency=ASKED)
    desk.add_one(idempotency=Idempotency("bob:send", ASKED.name, b"another print"))

    assert desk.depth().jobs == 2


def test_the_same_request_with_another_queue_or_key_is_the_same(desk: Desk) -> None:
    """What was asked for is in the print alone."""
    first = desk.add_one("mail", idempotency=ASKED)
    again = desk.job("video", idempotency=ASKED, key=Key("send", "a"))

    assert firsts(desk.append(again)) == [(again.id, first)]


def test_a_request_that_met_a_taken_key_goes_on_to_mean_that_job(desk: Desk) -> None:
    """Its first answer named the holder, so its second does, also when the key is free."""
    holder = desk.add_one(key=Key("send", "a"))
    asked = desk.job(key=Key("send", "a"), idempotency=ASKED)
    assert firsts(desk.append(asked)) == [(asked.id, holder)]
    desk.settle(desk.lease(), SUCCEEDED)

    again = desk.job(key=Key("send", "a"), idempotency=ASKED)

    assert firsts(desk.append(again)) == [(again.id, holder)]


def test_a_request_sent_again_with_its_id_is_the_same_job(desk: Desk) -> None:
    job = desk.job(idempotency=ASKED)
    desk.append(job)

    assert firsts(desk.append(job)) == [(job.id, job.id)]


def test_a_known_id_does_not_hide_that_its_key_was_reused(desk: Desk) -> None:
    job = desk.job(idempotency=ASKED)
    desk.append(job)

    refusal = desk.append(desk.job(id=job.id, idempotency=OTHER))

    assert isinstance(refusal, Refusal)
    assert refusal.limit == "reused"


def test_repeated_requests_need_no_room(desk: Desk) -> None:
    full = Bounds(max_jobs=1)
    first = desk.job(idempotency=ASKED)
    desk.append(first, bounds=full)

    again = desk.job(idempotency=ASKED)

    assert firsts(desk.append(again, bounds=full)) == [(again.id, first.id)]


def test_work_born_inside_a_job_is_remembered_too(desk: Desk) -> None:
    bounds = Bounds(max_jobs=1)
    desk.append(desk.job(), bounds=bounds)
    first = desk.job(idempotency=ASKED, parent=b"p" * 16)
    again = desk.job(idempotency=ASKED, parent=b"p" * 16)

    assert firsts(desk.append(first, bounds=bounds)) == [(first.id, None)]
    assert firsts(desk.append(again, bounds=bounds)) == [(again.id, first.id)]


# -- the window --


def test_a_key_is_good_for_something_else_once_its_window_is_over(desk: Desk) -> None:
    desk.append(desk.job(idempotency=SHORT))
    desk.clock.advance(seconds=60)
    other, again = desk.job(idempotency=OTHER), desk.job(idempotency=OTHER)

    assert firsts(desk.append(other)) == [(other.id, None)]
    assert firsts(desk.append(again)) == [(again.id, other.id)]


def test_a_key_is_held_until_the_end_of_its_window(desk: Desk) -> None:
    desk.append(desk.job(idempotency=SHORT))
    desk.clock.advance(milliseconds=59_999)

    assert isinstance(desk.append(desk.job(idempotency=OTHER)), Refusal)


def test_a_repeated_request_does_not_prolong_its_window(desk: Desk) -> None:
    desk.append(desk.job(idempotency=SHORT))
    desk.clock.advance(seconds=30)
    desk.append(desk.job(idempotency=SHORT))
    desk.clock.advance(seconds=30)

    late = desk.job(idempotency=SHORT)

    assert firsts(desk.append(late)) == [(late.id, None)]


def test_a_sweep_forgets_keys_whose_window_is_over_in_bounded_steps(desk: Desk) -> None:
    for name in "abcde":
        desk.append(desk.job(idempotency=Idempotency("ann", name, b"x", window_ms=1_000)))
    desk.append(desk.job(idempotency=ASKED))
    desk.clock.advance(seconds=1)

    rounds = [desk.sweep(2).more, desk.sweep(2).more, desk.sweep(2).more]

    assert rounds == [True, True, False]
    assert isinstance(desk.append(desk.job(idempotency=OTHER)), Refusal)
