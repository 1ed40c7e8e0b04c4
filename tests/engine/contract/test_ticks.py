"""tick: what is due becomes jobs, once, whoever else looks at the timetable."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.engine.contract.carrying import DONE, seal
from tests.engine.contract.desk import Desk
from tests.engine.contract.timetables import (
    alter,
    listed,
    names,
    put,
    record,
    tick,
    ticking,
)

from backlane.engine.protocol import Admission
from backlane.engine.scheduling import (
    Pause,
    Put,
    Remove,
    Ticked,
)
from backlane.model.job import Key, KeyRule, State
from backlane.model.limit import Limit
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds

# -- ticks --


def test_a_tick_appends_its_jobs_and_moves_on(desk: Desk) -> None:
    seen = put(desk)
    desk.clock.advance(seconds=5)
    jobs = [desk.job(), desk.job("video"), desk.job(delay_ms=1_000)]
    one = ticking(desk, seen, *jobs)

    assert tick(desk, one) == [Ticked("nightly", is_applied=True)]

    after = record(desk)
    assert (after.last_ms, after.next_ms) == (one.last_ms, one.next_ms)
    assert (after.revision, after.last_job) == (seen.revision + 1, jobs[-1].id)
    assert desk.states([job.id for job in jobs]) == [State.READY, State.READY, State.SCHEDULED]
    assert names(desk, due=True) == []


def test_of_two_that_tick_one_is_first(desk: Desk) -> None:
    seen = put(desk)
    mine, yours = desk.job(), desk.job()

    assert tick(desk, ticking(desk, seen, mine)) == [Ticked("nightly", is_applied=True)]
    assert tick(desk, ticking(desk, seen, yours)) == [Ticked("nightly", is_applied=False)]

    assert desk.found_ids() == [mine.id]
    assert record(desk).last_job == mine.id


def test_no_ticks_change_nothing(desk: Desk) -> None:
    seen = put(desk)

    assert tick(desk) == []

    assert record(desk) == seen


def test_a_tick_twice_in_one_call_counts_once(desk: Desk) -> None:
    seen = put(desk)
    mine, yours = desk.job(), desk.job()

    answer = tick(desk, ticking(desk, seen, mine), ticking(desk, seen, yours))

    assert [it.is_applied for it in answer] == [True, False]
    assert desk.found_ids() == [mine.id]


@pytest.mark.parametrize("change", [Pause(), Put(spec=b"0 4", task="send")])
def test_a_tick_of_a_schedule_that_was_changed_does_not_count(
    desk: Desk, change: Pause | Put
) -> None:
    seen = put(desk)
    alter(desk, "nightly", change)

    assert tick(desk, ticking(desk, seen, desk.job())) == [Ticked("nightly", is_applied=False)]
    assert desk.found_ids() == []


def test_a_tick_of_one_that_was_removed_and_put_anew_does_not_count(desk: Desk) -> None:
    seen = put(desk)
    assert tick(desk, ticking(desk, seen)) == [Ticked("nightly", is_applied=True)]
    seen = record(desk)
    alter(desk, "nightly", Remove())
    assert tick(desk, ticking(desk, seen, desk.job())) == [Ticked("nightly", is_applied=False)]
    desk.clock.advance(seconds=1)
    put(desk)

    assert tick(desk, ticking(desk, seen, desk.job())) == [Ticked("nightly", is_applied=False)]
    assert desk.found_ids() == []


def test_a_tick_without_jobs_moves_on(desk: Desk) -> None:
    job = desk.job()
    tick(desk, ticking(desk, put(desk), job))
    desk.clock.advance(seconds=60)

    assert tick(desk, ticking(desk, record(desk))) == [Ticked("nightly", is_applied=True)]

    after = record(desk)
    assert (after.last_ms, after.last_job) == (desk.clock.wall_ms(), job.id)


def test_a_schedule_that_never_fires_again_is_forgotten(desk: Desk) -> None:
    job = desk.job()

    answer = tick(desk, ticking(desk, put(desk), job, seconds=None))

    assert answer == [Ticked("nightly", is_applied=True)]
    assert listed(desk).schedules == []
    assert desk.state(job.id) is State.READY


def test_a_job_that_is_known_is_not_made_again(desk: Desk) -> None:
    job = desk.job()
    desk.append(job)

    assert tick(desk, ticking(desk, put(desk), job)) == [Ticked("nightly", is_applied=True)]

    assert desk.depth().jobs == 1
    assert record(desk).last_job == job.id


def test_the_holder_of_a_key_is_the_last_job(desk: Desk) -> None:
    key = Key("send", "once")
    holder = desk.add_one(key=key)

    tick(desk, ticking(desk, put(desk), desk.job(key=key)))

    assert record(desk).last_job == holder


# -- ticks that are refused --


def test_a_tick_that_is_refused_changes_nothing_and_the_others_count(desk: Desk) -> None:
    seen = [put(desk, name) for name in ("a", "b", "c")]
    key = Key("send", "once")
    holder = desk.add_one(key=key)
    clash = desk.job(key=key, rule=KeyRule(conflict="raise"))
    jobs = [desk.job(), desk.job()]
    before = record(desk, "b")

    answer = tick(
        desk,
        ticking(desk, seen[0], jobs[0]),
        ticking(desk, seen[1], desk.job(), clash),
        ticking(desk, seen[2], jobs[1]),
    )

    assert [(it.name, it.is_applied) for it in answer] == [("a", True), ("b", False), ("c", True)]
    refusal = answer[1].refusal
    assert refusal is not None
    assert (refusal.limit, refusal.first) == ("key", holder)
    assert record(desk, "b") == before
    assert desk.found_ids() == [jobs[1].id, jobs[0].id, holder]
    assert names(desk, due=True) == ["b"]


def test_a_tick_may_use_headroom_and_no_more(desk: Desk) -> None:
    bounds = Bounds(max_jobs=10)
    desk.add(10)
    seen = put(desk)

    assert tick(desk, ticking(desk, seen, desk.job()), bounds=bounds)[0].is_applied

    desk.add(20, queue="other")
    refused = tick(
        desk, ticking(desk, record(desk), *(desk.job() for _ in range(30))), bounds=bounds
    )
    assert refused[0].refusal is not None
    assert (refused[0].is_applied, refused[0].refusal.limit) == (False, "jobs")
    assert desk.depth().jobs == 11


def test_a_group_has_headroom_for_a_tick_too(desk: Desk) -> None:
    bounds = Bounds(max_jobs=100, group_share=0.1)
    desk.add(10, group="acme")

    answer = tick(desk, ticking(desk, put(desk), desk.job(group="acme")), bounds=bounds)

    assert answer[0].is_applied


def test_a_tick_is_not_refused_for_the_wait(desk: Desk) -> None:
    desk.add(50)
    bounds, pace = Bounds(max_jobs=100, max_wait_ms=1), Pace((1.0,) * 10, slots=1)
    refusal = desk.append(desk.job(), bounds=bounds, pace=pace)
    assert refusal.limit == "wait"  # type: ignore[union-attr]

    answer = tick(desk, ticking(desk, put(desk), desk.job()), bounds=bounds, pace=pace)

    assert answer == [Ticked("nightly", is_applied=True)]


def test_a_tick_is_not_refused_as_stale(desk: Desk) -> None:
    """What is caught up with may have been due before the newest job that was pruned."""
    old = desk.job()
    desk.clock.advance(seconds=1)
    desk.finished()
    desk.clock.advance(days=2)
    desk.sweep()
    assert desk.append(old).limit == "stale"  # type: ignore[union-attr]

    assert tick(desk, ticking(desk, put(desk), old)) == [Ticked("nightly", is_applied=True)]
    assert desk.state(old.id) is State.READY


def test_the_bytes_of_a_tick_are_bounded(desk: Desk) -> None:
    bounds = Bounds(max_bytes=10)

    answer = tick(desk, ticking(desk, put(desk), desk.job(body=b"x" * 11)), bounds=bounds)

    assert answer[0].refusal is not None
    assert answer[0].refusal.limit == "bytes"
    assert desk.found_ids() == []


def test_a_sealed_store_makes_no_jobs_by_ticks(desk: Desk) -> None:
    seen = put(desk)
    seal(desk)

    for _ in range(2):
        answer = tick(desk, ticking(desk, seen, desk.job()))
        assert answer[0].refusal is not None
        assert (answer[0].is_applied, answer[0].refusal.limit) == (False, "moving")
        seal(desk, DONE)
    assert record(desk) == seen


def test_a_tick_declares_limits_if_it_counts_also_without_jobs(desk: Desk) -> None:
    seen = put(desk)
    limits = {"stripe": Limit(concurrency=1)}
    late = replace(ticking(desk, seen), revision=seen.revision - 1)

    desk.run(desk.engine.tick([late], Admission(limits=limits)))
    before = desk.run(desk.engine.list_limits())
    desk.run(desk.engine.tick([ticking(desk, seen)], Admission(limits=limits)))

    assert before == []
    assert desk.limit("stripe").declared == Limit(concurrency=1)


def test_a_tick_behind_a_refused_one_of_its_schedule_is_on_its_own(desk: Desk) -> None:
    seen = put(desk)
    full, fits = (ticking(desk, seen, desk.job(body=b"x" * size)) for size in (20, 5))

    told = tick(desk, full, fits, fits, bounds=Bounds(max_bytes=10))

    assert [(it.is_applied, it.refusal is None) for it in told] == [
        (False, False),
        (True, True),
        (False, True),
    ]
    assert record(desk).last_job == fits.jobs[0].id
    assert desk.depth().jobs == 1
