"""measure: samples of queues, two of which give the speed of a line."""

from __future__ import annotations

import msgspec
from tests.engine.contract.desk import CRASHED, FAILED, RELEASED, SUCCEEDED, Desk, retry, snooze

from backlane.engine.protocol import Admission, Declare, Presence, Tune
from backlane.engine.selection import Cancel, Move, Reprioritise
from backlane.model.outcome import Outcome, Settlement
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds, Kind, LineSample, QueueSample


def sample(desk: Desk, queue: str = "mail") -> QueueSample:
    (found,) = desk.run(desk.engine.measure([queue])).queues
    return found


def line(desk: Desk, priority: int = 5) -> LineSample:
    return next(it for it in sample(desk).lines if it.priority == priority)


def settle(desk: Desk, outcome: Outcome, ran_ms: int = 0) -> None:
    lease = desk.lease(lane=None)
    desk.run(desk.engine.settle([Settlement(lease.job, lease.token, outcome, ran_ms)]))


def present(desk: Desk, owner: str = "ann", slots: int = 4, **fields) -> None:
    given = {"host": "h", "pid": 1, "queues": ("mail",), "running": 0} | fields
    desk.run(desk.engine.announce(Presence(owner=owner, slots=slots, **given)))


# -- which queues --


def test_only_queues_that_exist_are_measured_by_name(desk: Desk) -> None:
    desk.add(queue="video")
    desk.add(queue="mail")

    measured = desk.run(desk.engine.measure(["video", "nothing", "mail", "mail"]))

    assert [one.name for one in measured.queues] == ["mail", "video"]


def test_nothing_asked_is_nothing_measured(desk: Desk) -> None:
    desk.add()

    assert desk.run(desk.engine.measure([])).queues == []


def test_the_secret_is_the_stores_own_and_stays_the_same(desk: Desk) -> None:
    first = desk.run(desk.engine.measure([])).secret
    desk.add()

    assert len(first) == 32
    assert desk.run(desk.engine.measure(["mail"])).secret == first


# -- lines --


def test_a_sample_tells_each_priority_apart(desk: Desk) -> None:
    desk.add(3, priority=5)
    desk.add(2, priority=9)
    desk.claim(1)

    assert sample(desk).lines == (
        LineSample(5, ready=3, appended=3),
        LineSample(9, ready=1, running=1, appended=2, started=1),
    )


def test_jobs_due_later_are_counted_apart(desk: Desk) -> None:
    desk.add(2, delay_ms=1_000, body=b"12345")

    now = sample(desk)
    assert (now.scheduled, now.bytes) == (2, 10)
    assert now.lines == (LineSample(5, appended=2),)


def test_what_comes_back_for_a_retry_is_an_arrival_again(desk: Desk) -> None:
    desk.add()

    settle(desk, retry(0))

    assert line(desk) == LineSample(5, ready=1, appended=2, started=1)


def test_what_comes_back_otherwise_is_no_arrival(desk: Desk) -> None:
    desk.add()

    for outcome in (RELEASED, snooze(0), CRASHED):
        settle(desk, outcome)

    assert line(desk) == LineSample(5, ready=1, appended=1, started=3)


def test_the_counts_follow_a_job_to_another_priority_and_queue(desk: Desk) -> None:
    job, running = desk.add(2)
    desk.claim(1, ids=(running,))
    desk.amend(Reprioritise(8), job, running)
    desk.amend(Move("video"), job)

    assert sample(desk).lines == (LineSample(5, appended=2, started=1), LineSample(8, running=1))
    assert sample(desk, "video").lines == (LineSample(8, ready=1),)


def test_a_job_that_expires_unrun_is_not_started(desk: Desk) -> None:
    desk.add(expires_ms=10)
    desk.clock.advance(seconds=1)

    assert desk.claim().leases == []
    assert line(desk) == LineSample(5, appended=1)


# -- attempts --


def test_every_attempt_counts_with_what_it_ran(desk: Desk) -> None:
    desk.add(5)

    for ran_ms, outcome in enumerate((SUCCEEDED, FAILED, snooze(9), CRASHED, retry(9)), 10):
        settle(desk, outcome, ran_ms)

    now, queue = sample(desk), desk.queue()
    assert (now.ended, now.ran_ms) == (5, 10 + 11 + 12 + 13 + 14)
    assert (queue.started, queue.ended, queue.ran_ms) == (5, now.ended, now.ran_ms)


def test_what_was_given_back_or_lost_is_no_attempt_whose_time_is_known(desk: Desk) -> None:
    desk.add(2)

    settle(desk, RELEASED, 10)
    desk.lose()
    desk.claim(2)

    now = sample(desk)
    assert (now.ended, now.ran_ms, line(desk).started) == (0, 0, 4)


def test_a_late_outcome_is_not_counted(desk: Desk) -> None:
    desk.add()
    lost = desk.lose()
    desk.lease()

    desk.run(desk.engine.settle([Settlement(lost.job, lost.token, SUCCEEDED, 7)]))

    assert (sample(desk).ended, sample(desk).ran_ms) == (0, 0)


# -- promises --


def foretell(desk: Desk, number: int, **fields) -> list[bytes]:
    """Append one job after the other, each told that it waits for a second a job before it."""
    pace = Pace((1.0,) * 10, slots=0)
    jobs = []
    for _ in range(number):
        job = desk.job(**fields)
        admission = Admission(paces={"mail": pace})
        (receipt,) = desk.run(desk.engine.append([job], admission))
        assert receipt.expected_ms is not None
        jobs.append(job.id)
    return jobs


def promises(desk: Desk) -> tuple[int, int, int]:
    now = sample(desk)
    return now.foretold, now.foretold_ms, now.waited_ms


def test_the_first_start_of_a_job_tells_how_true_its_promise_was(desk: Desk) -> None:
    foretell(desk, 2)  # 1 s and 2 s
    assert promises(desk) == (0, 0, 0)

    desk.clock.advance(seconds=5)
    desk.claim(1)
    desk.clock.advance(seconds=1)
    desk.claim(1)

    assert promises(desk) == (2, 3_000, 5_000 + 6_000)


def test_later_starts_of_a_job_tell_nothing(desk: Desk) -> None:
    foretell(desk, 1)
    desk.clock.advance(seconds=2)
    settle(desk, retry(0))
    desk.clock.advance(seconds=100)

    settle(desk, RELEASED)
    settle(desk, SUCCEEDED)

    assert promises(desk) == (1, 1_000, 2_000)


def test_jobs_that_were_told_nothing_are_no_promises(desk: Desk) -> None:
    desk.add(3)
    desk.claim()

    assert promises(desk) == (0, 0, 0)


def test_a_clock_set_back_makes_no_wait_negative(desk: Desk) -> None:
    foretell(desk, 1)
    desk.clock.jump(hours=-1)
    desk.claim()

    assert promises(desk) == (1, 1_000, 0)


# -- the queue --


def test_bounds_are_those_in_force(desk: Desk) -> None:
    declared = Bounds(max_jobs=7, max_bytes=70, max_wait_ms=5_000, group_share=0.5)
    desk.run(desk.engine.tune("mail", Declare(Kind.TASKS, declared)))
    assert sample(desk).bounds == declared

    desk.run(desk.engine.tune("mail", Tune(max_jobs=9, max_wait_ms=0, group_share=0.25)))

    assert sample(desk).bounds == Bounds(9, 70, None, 0.25)


def test_a_sample_says_whether_the_queue_is_paused(desk: Desk) -> None:
    desk.add()
    assert not sample(desk).is_paused

    desk.pause()

    assert sample(desk).is_paused


def test_a_sample_says_how_long_the_next_in_line_has_been_due(desk: Desk) -> None:
    desk.add(delay_ms=60_000)
    assert sample(desk).oldest_ready_ms is None

    desk.add()
    desk.clock.advance(seconds=3)
    desk.add(lane=1)

    assert sample(desk).oldest_ready_ms == 3_000


# -- slots --


def test_slots_are_not_known_before_a_worker_was_there(desk: Desk) -> None:
    desk.add()
    present(desk, queues=("video",))

    assert sample(desk).slots is None


def test_slots_are_those_of_all_workers_that_serve_the_queue(desk: Desk) -> None:
    desk.add()
    present(desk, "ann", slots=4)
    present(desk, "bob", slots=8, queues=("mail", "video"), most={"mail": 3})
    present(desk, "cid", slots=2, queues=("mail",), most={"mail": 5})
    present(desk, "dee", slots=100, queues=("video",))

    assert sample(desk).slots == 4 + 3 + 2


def test_a_worker_that_fell_silent_has_no_slots(desk: Desk) -> None:
    desk.add()
    present(desk, "ann", slots=4)
    desk.clock.advance(seconds=20)
    present(desk, "bob", slots=1)
    desk.clock.advance(seconds=11)
    assert sample(desk).slots == 1

    desk.clock.advance(seconds=20)

    assert sample(desk).slots == 0


def test_once_the_last_worker_has_left_there_are_no_slots(desk: Desk) -> None:
    desk.add(2)
    present(desk)
    settle(desk, SUCCEEDED)

    present(desk, leaving=True)

    assert sample(desk).slots == 0


def test_who_receives_raw_messages_is_no_worker(desk: Desk) -> None:
    desk.append(desk.job(task=None), kind=Kind.MESSAGES)
    desk.claim(kind=Kind.MESSAGES)

    assert (line(desk).started, sample(desk).slots) == (1, None)


# -- counters --


def test_counters_survive_what_becomes_of_the_jobs(desk: Desk) -> None:
    job = desk.add_one()
    settle(desk, SUCCEEDED, 5)
    desk.amend(Cancel(), desk.add_one())
    desk.clock.advance(days=2)

    desk.sweep()

    now = sample(desk)
    assert not desk.is_known(job)
    assert (now.lines, now.ended, now.ran_ms) == ((LineSample(5, 0, 0, 2, 1),), 1, 5)
    assert msgspec.structs.replace(now, lines=(), ended=0, ran_ms=0, slots=None) == QueueSample(
        name="mail", bounds=Bounds()
    )
