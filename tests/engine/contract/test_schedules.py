"""Schedules: the timetable, what people do to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.engine.contract.desk import Desk
from tests.engine.contract.timetables import (
    ANN,
    alter,
    listed,
    names,
    put,
    record,
    tick,
    ticking,
)

from backlane.engine.memory import MemoryEngine
from backlane.engine.scheduling import (
    Pause,
    Remove,
    Resume,
    ScheduleRecord,
    Timetable,
)
from backlane.model.clock import FakeClock
from backlane.model.job import State

# -- put --


def test_a_new_schedule_begins_now_and_is_to_be_looked_at(desk: Desk) -> None:
    now = desk.clock.wall_ms()

    made = put(desk)

    assert made == ScheduleRecord(
        name="nightly", spec=b"0 3", task="send", revision=made.revision, last_ms=now
    )
    assert listed(desk) == Timetable(now, [made])
    assert listed(desk, due=True) == Timetable(now, [made])


def test_putting_it_again_changes_nothing(desk: Desk) -> None:
    tick(desk, ticking(desk, put(desk)))
    before = record(desk)
    desk.clock.advance(seconds=5)

    assert put(desk) == before
    assert record(desk) == before


@pytest.mark.parametrize("change", [{"spec": b"0 4"}, {"task": "resize"}])
def test_another_rule_begins_anew(desk: Desk, change: dict[str, Any]) -> None:
    job = desk.job()
    tick(desk, ticking(desk, put(desk), job))
    before = record(desk)
    desk.clock.advance(seconds=5)

    after = put(desk, **change)

    assert (after.last_ms, after.next_ms) == (desk.clock.wall_ms(), None)
    assert (after.revision, after.last_job) == (before.revision + 1, job.id)
    assert {"spec": after.spec, "task": after.task} == {"spec": b"0 3", "task": "send"} | change
    assert names(desk, due=True) == ["nightly"]


def test_a_paused_schedule_stays_paused_when_its_rule_changes(desk: Desk) -> None:
    put(desk)
    alter(desk, "nightly", Pause())

    assert put(desk, spec=b"0 4").paused
    assert names(desk, due=True) == []


def test_specs_of_any_bytes_are_kept(desk: Desk) -> None:
    spec = bytes(range(256)) * 40

    put(desk, "Über:1.a-b_c", spec)

    assert record(desk, "Über:1.a-b_c").spec == spec


def alive(desk: Desk, **duration: float) -> None:
    """Let time pass while a worker gives signs of life."""
    left = timedelta(**duration)
    while left:
        desk.run(desk.engine.announce(ANN))
        passed = min(left, timedelta(seconds=50))
        desk.clock.advance(seconds=passed.total_seconds())
        left -= passed
    desk.run(desk.engine.announce(ANN))


# -- declared by code, and put at run time --


def test_code_leaves_what_was_put_at_run_time_as_it_is(desk: Desk) -> None:
    before = put(desk, spec=b"by hand")
    desk.clock.advance(seconds=5)

    assert put(desk, spec=b"by code", by="code") == before
    assert record(desk) == before


def test_what_is_put_at_run_time_goes_before_code(desk: Desk) -> None:
    before = put(desk, by="code")
    assert before.is_declared
    desk.clock.advance(seconds=5)

    after = put(desk, spec=b"by hand")

    assert (after.is_declared, after.spec) == (False, b"by hand")
    assert (after.revision, after.last_ms) == (before.revision + 1, desk.clock.wall_ms())


def test_the_same_put_at_run_time_takes_over_without_beginning_anew(desk: Desk) -> None:
    tick(desk, ticking(desk, put(desk, by="code")))
    before = record(desk)
    desk.clock.advance(seconds=5)

    after = put(desk)

    assert (after.is_declared, after.revision) == (False, before.revision + 1)
    assert (after.last_ms, after.next_ms) == (before.last_ms, before.next_ms)


def test_a_schedule_that_no_code_declares_goes_after_15_minutes(desk: Desk) -> None:
    put(desk, "old", by="code")
    put(desk, "kept", by="code")
    put(desk, "by hand")
    alive(desk, minutes=14)
    put(desk, "kept", by="code")
    alive(desk, seconds=59)
    desk.sweep()
    assert names(desk) == ["by hand", "kept", "old"]

    desk.clock.advance(seconds=1)
    desk.sweep()

    assert names(desk) == ["by hand", "kept"]


def test_schedules_stay_while_no_worker_is_alive(desk: Desk) -> None:
    desk.run(desk.engine.announce(ANN))
    put(desk, by="code")
    desk.clock.advance(days=3)

    desk.sweep()
    assert names(desk) == ["nightly"]

    desk.run(desk.engine.announce(ANN))
    desk.sweep()
    assert names(desk) == ["nightly"], "it has not had the time to declare it"
    alive(desk, minutes=14, seconds=59)
    desk.sweep()
    assert names(desk) == ["nightly"]
    alive(desk, seconds=1)
    desk.sweep()
    assert names(desk) == []


def test_silence_begins_anew_for_one_that_ticked_too(desk: Desk) -> None:
    tick(desk, ticking(desk, put(desk, by="code")))
    desk.clock.advance(days=3)
    desk.run(desk.engine.announce(ANN))
    tick(desk, ticking(desk, record(desk)))

    alive(desk, minutes=14)
    desk.sweep()

    assert names(desk) == ["nightly"]


def test_a_wall_clock_that_jumps_takes_no_schedule_away(desk: Desk) -> None:
    put(desk, by="code")
    desk.run(desk.engine.announce(ANN))
    desk.clock.jump(hours=2)

    desk.sweep()

    assert names(desk) == ["nightly"]


def test_a_paused_schedule_that_code_declares_stays_paused(desk: Desk) -> None:
    put(desk, by="code")
    paused = alter(desk, "nightly", Pause())
    desk.clock.advance(minutes=10)

    assert put(desk, by="code") == paused
    desk.clock.advance(minutes=10)
    desk.run(desk.engine.announce(ANN))
    desk.sweep()
    assert names(desk) == ["nightly"]


# -- pause, resume, remove --


def test_a_paused_schedule_is_not_looked_at(desk: Desk) -> None:
    before = put(desk)

    paused = alter(desk, "nightly", Pause())

    assert paused is not None
    assert (paused.paused, paused.revision) == (True, before.revision + 1)
    assert names(desk) == ["nightly"]
    assert listed(desk, due=True) == Timetable(desk.clock.wall_ms())


def test_a_paused_schedule_is_not_waited_for(desk: Desk) -> None:
    tick(desk, ticking(desk, put(desk)))
    assert listed(desk, due=True).next_ms == desk.clock.wall_ms() + 60_000

    alter(desk, "nightly", Pause())

    assert listed(desk, due=True).next_ms is None


def test_a_resumed_schedule_goes_on_from_now(desk: Desk) -> None:
    tick(desk, ticking(desk, put(desk)))
    alter(desk, "nightly", Pause())
    before = record(desk)
    desk.clock.advance(hours=5)

    resumed = alter(desk, "nightly", Resume())

    assert resumed is not None
    assert (resumed.paused, resumed.revision) == (False, before.revision + 1)
    assert (resumed.last_ms, resumed.next_ms) == (desk.clock.wall_ms(), None)
    assert names(desk, due=True) == ["nightly"]


@pytest.mark.parametrize("changes", [[Pause(), Pause()], [Resume()], [Pause(), Resume(), Resume()]])
def test_what_is_so_already_is_left(desk: Desk, changes: list[Pause | Resume]) -> None:
    put(desk)
    for change in changes[:-1]:
        alter(desk, "nightly", change)
    before = record(desk)
    desk.clock.advance(seconds=5)

    assert alter(desk, "nightly", changes[-1]) == before
    assert record(desk) == before


def test_a_removed_schedule_is_forgotten_and_its_jobs_stay(desk: Desk) -> None:
    job = desk.job()
    tick(desk, ticking(desk, put(desk), job))

    assert alter(desk, "nightly", Remove()) is None

    assert listed(desk) == Timetable(desk.clock.wall_ms())
    assert desk.state(job.id) is State.READY


@pytest.mark.parametrize("change", [Pause(), Resume(), Remove()])
def test_there_is_none_of_that_name(desk: Desk, change: Pause | Resume | Remove) -> None:
    assert alter(desk, "nightly", change) is None


# -- lists --


def test_schedules_are_listed_by_name(desk: Desk) -> None:
    for name in ("b", "a", "c", "B"):
        put(desk, name)

    assert names(desk) == ["B", "a", "b", "c"]


def test_due_ones_are_listed_the_earliest_first(desk: Desk) -> None:
    for name, seconds in (("b", 5), ("a", 3), ("late", 100), ("c", 4), ("d", 4)):
        tick(desk, ticking(desk, put(desk, name), seconds=seconds))
    put(desk, "new")
    desk.clock.advance(seconds=4)
    later_ms = desk.clock.wall_ms() + 1_000

    assert names(desk, due=True) == ["new", "a", "c", "d"]
    assert listed(desk, due=True).next_ms == listed(desk).next_ms == later_ms
    desk.clock.advance(seconds=1)
    assert names(desk, due=True) == ["new", "a", "c", "d", "b"]


def test_what_is_due_is_judged_by_the_wall_clock(desk: Desk) -> None:
    tick(desk, ticking(desk, put(desk), seconds=3_600))

    desk.clock.jump(hours=1)
    assert names(desk, due=True) == ["nightly"]
    desk.clock.jump(hours=-2)
    assert names(desk, due=True) == []


def test_at_most_1000_due_ones_are_listed(desk: Desk) -> None:
    for number in range(1_003):
        put(desk, f"s{number:04}")
    due = listed(desk, due=True)
    assert [it.name for it in due.schedules] == [f"s{number:04}" for number in range(1_000)]

    tick(desk, *(ticking(desk, it) for it in due.schedules))

    assert names(desk, due=True) == ["s1000", "s1001", "s1002"]
    assert len(names(desk)) == 1_003


# -- moving --


@pytest.fixture
def other(clock: FakeClock) -> Desk:
    return Desk(MemoryEngine(clock), clock, first=1_000)


@pytest.fixture(params=["out", "in"])
def pair(request: pytest.FixtureRequest, desk: Desk, other: Desk) -> tuple[Desk, Desk]:
    return (desk, other) if request.param == "out" else (other, desk)


def test_schedules_go_on_from_where_they_were(pair: tuple[Desk, Desk]) -> None:
    source, target = pair
    put(source, "declared", by="code")
    put(source, "paused")
    alter(source, "paused", Pause())
    tick(source, ticking(source, put(source, "nightly"), source.job()))
    put(target, "nightly", b"another")
    put(target, "theirs")
    before = listed(source).schedules
    source.clock.advance(minutes=10)

    target.run(target.engine.restore_settings(source.run(source.engine.dump_settings())))

    assert [it for it in listed(target).schedules if it.name != "theirs"] == before
    assert names(target) == ["declared", "nightly", "paused", "theirs"]
    target.run(target.engine.announce(ANN))
    target.sweep()
    assert "declared" in names(target)
