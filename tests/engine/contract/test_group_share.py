"""append: no group of jobs fills more than its share of a queue."""

from __future__ import annotations

import pytest
from tests.engine.contract.desk import FAILED, STOPPED, SUCCEEDED, Desk, firsts, retry, snooze

from backlane.engine.protocol import Tune
from backlane.engine.selection import Cancel, Delete, Move, Redrive
from backlane.model.job import Key, Refusal, State
from backlane.model.queue import Bounds, headroom

FIFTH = Bounds(max_jobs=10, group_share=0.2)  # two of ten
PARENT = b"p" * 16


def fill(desk: Desk, group: str = "acme") -> list[bytes]:
    """All the places of a group, taken."""
    jobs = [desk.job(group=group) for _ in range(2)]
    firsts(desk.append(*jobs, bounds=FIFTH))
    return [job.id for job in jobs]


def has_room(desk: Desk, group: str = "acme") -> bool:
    return isinstance(desk.append(desk.job(group=group), bounds=FIFTH), list)


def test_a_group_may_fill_its_share_and_no_more(desk: Desk) -> None:
    fill(desk)

    refusal = desk.append(desk.job(group="acme"), bounds=FIFTH)

    assert refusal == Refusal("mail", "group", 2, bound=2, added=1, jobs=2, group="acme")
    assert desk.depth().jobs == 2


def test_other_groups_and_jobs_without_one_have_their_own_room(desk: Desk) -> None:
    fill(desk)

    firsts(desk.append(desk.job(group="zenith"), desk.job(), bounds=FIFTH))


def test_a_share_is_of_one_queue(desk: Desk) -> None:
    fill(desk)

    firsts(desk.append(desk.job("video", group="acme"), declared={"video": FIFTH}))


def test_a_group_that_exceeds_its_share_within_one_batch_is_refused(desk: Desk) -> None:
    jobs = [desk.job(), *(desk.job(group="acme") for _ in range(3))]

    refusal = desk.append(*jobs, bounds=FIFTH)

    assert refusal == Refusal(
        "mail", "group", 0, bound=2, added=3, jobs=0, group="acme", can_fit=False
    )
    assert desk.run(desk.engine.list_queues()) == []


def test_every_group_has_at_least_one_place(desk: Desk) -> None:
    bounds = Bounds(max_jobs=10, group_share=0.01)
    firsts(desk.append(desk.job(group="acme"), bounds=bounds))

    refusal = desk.append(desk.job(group="acme"), bounds=bounds)

    assert isinstance(refusal, Refusal)
    assert (refusal.depth, refusal.bound) == (1, 1)


def test_a_share_is_rounded_down_but_not_for_want_of_precision(desk: Desk) -> None:
    """0.29 of 100 is a hair less than 29 in binary."""
    bounds = Bounds(max_jobs=100, group_share=0.29)

    refusal = desk.append(*(desk.job(group="acme") for _ in range(30)), bounds=bounds)

    assert isinstance(refusal, Refusal)
    assert refusal.bound == 29


def test_jobs_are_counted_also_before_a_share_is_declared(desk: Desk) -> None:
    desk.add(2, group="acme")

    assert not has_room(desk)


def test_a_tuned_share_goes_before_the_declared_one(desk: Desk) -> None:
    desk.add(3, group="acme")
    desk.run(desk.engine.tune("mail", Tune(group_share=0.3)))

    refusal = desk.append(desk.job(group="acme"), bounds=Bounds(max_jobs=10, group_share=0.9))

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.bound) == ("group", 3)


def test_duplicates_need_no_room_in_their_group(desk: Desk) -> None:
    known = desk.job(group="acme")
    desk.append(known, desk.job(group="acme", key=Key("send", "a")), bounds=FIFTH)

    again = desk.append(known, desk.job(group="acme", key=Key("send", "a")), bounds=FIFTH)

    assert [first is not None for _, first in firsts(again)] == [True, True]


def test_work_born_inside_a_job_may_use_headroom_above_the_share(desk: Desk) -> None:
    fill(desk)
    room = headroom(2)
    bounds = Bounds(max_jobs=1_000, group_share=0.002)

    children = [desk.job(group="acme", parent=PARENT) for _ in range(room)]
    firsts(desk.append(*children, bounds=bounds))
    refusal = desk.append(desk.job(group="acme", parent=PARENT), bounds=bounds)

    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.bound) == ("group", 2 + room)


# -- what gives room again, and what does not --


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, STOPPED])
def test_a_job_that_ended_gives_its_place_back(desk: Desk, outcome) -> None:
    fill(desk)
    desk.settle(desk.lease(), outcome)

    assert has_room(desk)
    assert not has_room(desk)


@pytest.mark.parametrize("outcome", [retry(0), retry(60), snooze(60)])
def test_a_job_that_is_to_run_again_keeps_its_place(desk: Desk, outcome) -> None:
    fill(desk)
    desk.settle(desk.lease(), outcome)

    assert not has_room(desk)


def test_a_running_job_keeps_its_place(desk: Desk) -> None:
    fill(desk)
    desk.claim(2)

    assert not has_room(desk)


def test_a_cancelled_job_gives_its_place_back(desk: Desk) -> None:
    job, _ = fill(desk)
    desk.amend(Cancel(), job)

    assert has_room(desk)
    assert not has_room(desk)


def test_a_deleted_job_gives_its_place_back(desk: Desk) -> None:
    job, _ = fill(desk)
    desk.amend(Delete(), job)

    assert has_room(desk)
    assert not has_room(desk)


def test_a_finished_job_that_is_deleted_gives_no_second_place(desk: Desk) -> None:
    job, _ = fill(desk)
    desk.settle(desk.lease(), SUCCEEDED)
    desk.amend(Delete(), job)

    assert has_room(desk)
    assert not has_room(desk)


def test_a_finished_job_that_is_pruned_gives_no_second_place(desk: Desk) -> None:
    fill(desk)
    desk.settle(desk.lease(), SUCCEEDED)
    desk.clock.advance(hours=25)
    assert desk.sweep().pruned == 1

    assert has_room(desk)
    assert not has_room(desk)


@pytest.mark.parametrize("is_swept", [True, False])
def test_an_expired_job_gives_its_place_back(desk: Desk, *, is_swept: bool) -> None:
    for _ in range(2):
        desk.append(desk.job(group="acme", expires_ms=5), bounds=FIFTH)
    desk.clock.advance(milliseconds=5)
    if is_swept:
        assert desk.sweep().expired == 2
    else:
        assert desk.claimed_ids() == []

    assert has_room(desk)


def test_a_job_that_lapsed_for_the_last_time_gives_its_place_back(desk: Desk) -> None:
    fill(desk)
    for _ in range(10):
        desk.lose()
    assert desk.sweep().buried

    assert has_room(desk)


def test_a_job_that_is_moved_takes_its_place_along(desk: Desk) -> None:
    job, _ = fill(desk)
    desk.amend(Move("video"), job)

    assert has_room(desk)
    in_video = [desk.job("video", group="acme") for _ in range(2)]
    assert isinstance(desk.append(*in_video, declared={"video": FIFTH}), Refusal)
    assert isinstance(desk.append(in_video[0], declared={"video": FIFTH}), list)


def test_a_redriven_job_takes_a_place_again(desk: Desk) -> None:
    job = desk.finished(FAILED, group="acme")
    assert desk.amend(Redrive(), job).changed == [job]

    assert has_room(desk)
    assert not has_room(desk)


def test_a_job_whose_group_has_no_room_is_not_redriven(desk: Desk) -> None:
    job = desk.finished(FAILED, group="acme")
    desk.add(2, group="acme")
    desk.run(desk.engine.tune("mail", Tune(max_jobs=10, group_share=0.2)))

    amended = desk.amend(Redrive(), job)

    assert [skipped.job for skipped in amended.skipped] == [job]
    assert "group 'acme' fills its share" in amended.skipped[0].why
    assert desk.state(job) is State.FAILED
