"""Clocks: leases end by the boot clock, due times come by the wall clock."""

from __future__ import annotations

from pathlib import Path

import apsw
from tests.engine.contract.desk import Desk

from backlane.engine.sqlite import SqliteEngine
from backlane.model.clock import FakeClock


def test_setting_the_wall_clock_lapses_no_lease(desk: Desk, clock: FakeClock):
    desk.add()
    desk.lease(seconds=30)

    clock.jump(days=365)

    assert desk.claimed_ids() == []


def test_after_a_restart_of_the_machine_all_leases_have_lapsed(path: Path):
    clock = FakeClock()
    before = SqliteEngine(path, clock=clock, boot_id=lambda: "monday")
    desk = Desk(before, clock)
    desk.add(2)
    desk.claim(2, seconds=3_600)
    before.close()

    after = Desk(SqliteEngine(path, clock=FakeClock(), boot_id=lambda: "tuesday"), clock)
    leases = after.claim().leases

    assert [lease.attempt for lease in leases] == [1, 1]
    after.engine.close()


def test_within_one_boot_leases_outlive_the_process(path: Path):
    clock = FakeClock()
    before = SqliteEngine(path, clock=clock, boot_id=lambda: "monday")
    Desk(before, clock).add()
    Desk(before, clock).lease(seconds=3_600)
    before.close()

    after = Desk(SqliteEngine(path, clock=clock, boot_id=lambda: "monday"), clock)

    assert after.claimed_ids() == []
    after.engine.close()


def lower_bound(path: Path) -> int | None:
    connection = apsw.Connection(str(path))
    return connection.execute("select value from backlane_meta where name = 'lapse_ms'").get


def test_the_lower_bound_of_lapses_is_never_above_one(desk: Desk, path: Path):
    desk.add(3)
    long = desk.lease(seconds=100)
    first = lower_bound(path)
    desk.lease(seconds=10)
    second = lower_bound(path)
    desk.engine.run(desk.engine.extend([(long.job, long.token)], 1_000))
    third = lower_bound(path)

    now = desk.clock.boot_ms()
    assert (first, second, third) == (now + 100_000, now + 10_000, now + 1_000)


def test_a_lapse_makes_the_bound_exact_again(desk: Desk, path: Path):
    desk.add(2)
    desk.lease(seconds=100)
    desk.lease(seconds=10)
    desk.clock.advance(seconds=11)

    desk.claim(0)

    assert lower_bound(path) == desk.clock.boot_ms() + 89_000


def test_pruning_when_a_clock_was_ahead_makes_no_id_stale(desk: Desk, clock: FakeClock):
    clock.jump(days=400)
    desk.finished()
    clock.jump(days=-400)
    clock.advance(days=500)
    desk.sweep()

    assert desk.add(1)
