"""Clocks: the fake one passes time only when told, and wakes sleepers in order."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from backlane.model.clock import FakeClock, SystemClock

spans = st.lists(st.integers(0, 10_000), max_size=20)


def test_a_fake_clock_stands_still() -> None:
    clock = FakeClock(datetime(2030, 1, 1, tzinfo=UTC))

    assert clock.wall_ms() == clock.wall_ms() == 1_893_456_000_000
    assert clock.boot_ms() == clock.boot_ms()


@given(spans)
def test_advancing_moves_both_readings_by_the_same(steps: list[int]) -> None:
    clock = FakeClock()
    wall, boot = clock.wall_ms(), clock.boot_ms()

    for step in steps:
        clock.advance(milliseconds=step)

    assert clock.wall_ms() - wall == clock.boot_ms() - boot == sum(steps)


@given(st.integers(-(10**9), 10**9))
def test_a_jump_moves_the_wall_clock_alone(ms: int) -> None:
    clock = FakeClock()
    wall, boot = clock.wall_ms(), clock.boot_ms()

    clock.jump(milliseconds=ms)

    assert (clock.wall_ms() - wall, clock.boot_ms() - boot) == (ms, 0)


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=10))
def test_sleepers_wake_in_the_order_of_their_due_times(sleeps: list[int]) -> None:
    clock, woken = FakeClock(), []

    async def sleep(ms: int) -> None:
        await clock.sleep(ms / 1000)
        woken.append(ms)

    async def story() -> None:
        tasks = [asyncio.create_task(sleep(ms)) for ms in sleeps]
        await asyncio.sleep(0)
        clock.advance(seconds=1)
        await asyncio.gather(*tasks)

    asyncio.run(story())
    assert woken == sorted(sleeps)


def test_a_sleeper_is_not_woken_early() -> None:
    clock = FakeClock()

    async def story() -> tuple[bool, bool]:
        task = asyncio.create_task(clock.sleep(10))
        await asyncio.sleep(0)
        clock.advance(seconds=9.999)
        await asyncio.sleep(0)
        early = task.done()
        clock.advance(milliseconds=1)
        await asyncio.sleep(0)
        return early, task.done()

    assert asyncio.run(story()) == (False, True)


def test_a_clock_says_when_its_first_sleeper_is_due() -> None:
    clock = FakeClock()

    async def story() -> int | None:
        for seconds in (20, 10):
            asyncio.get_running_loop().create_task(clock.sleep(seconds))
        await asyncio.sleep(0)
        due = clock.next_wake_ms()
        clock.advance(seconds=20)
        return due

    assert clock.next_wake_ms() is None
    assert asyncio.run(story()) == clock.boot_ms() - 10_000
    assert clock.next_wake_ms() is None


def test_a_cancelled_sleeper_does_not_stop_time() -> None:
    clock = FakeClock()

    async def story() -> None:
        task = asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        clock.advance(seconds=2)

    asyncio.run(story())
    assert clock.next_wake_ms() is None


def test_a_sleep_of_nothing_lets_others_run() -> None:
    clock, seen = FakeClock(), []

    async def other() -> None:
        seen.append("other")

    async def story() -> None:
        task = asyncio.create_task(other())
        await clock.sleep(0)
        seen.append("sleeper")
        await task

    asyncio.run(story())
    assert seen == ["other", "sleeper"]


def test_the_system_clock_reads_the_machines_clocks() -> None:
    clock = SystemClock()
    boot = clock.boot_ms()

    assert abs(clock.wall_ms() - time.time() * 1000) < 5_000
    assert clock.boot_ms() >= boot


def test_the_system_clock_sleeps() -> None:
    clock = SystemClock()
    before = clock.boot_ms()

    asyncio.run(clock.sleep(0.01))

    assert clock.boot_ms() - before >= 9
