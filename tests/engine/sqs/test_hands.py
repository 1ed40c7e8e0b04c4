"""Threads that wait for answers, and the pace of calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from backlane.engine.transports.sqs.hands import Hands
from backlane.engine.transports.sqs.pace import MOST_SECONDS, Pace, backoff


def test_no_more_threads_work_than_there_may_be():
    hands = Hands("hands", 3)
    gate = threading.Event()

    async def work() -> set[int]:
        futures = [hands.start(lambda: gate.wait(5) and threading.get_ident()) for _ in range(20)]
        await asyncio.sleep(0.05)
        gate.set()
        return set(await asyncio.gather(*futures))

    assert len(asyncio.run(work())) == 3
    hands.close()


def test_one_thread_is_enough_for_one_call_at_a_time():
    hands = Hands("hands", 8)

    async def work() -> set[int]:
        found = set()
        for _ in range(10):
            found.add(await hands.start(threading.get_ident))
            await asyncio.sleep(0.01)  # as long as a thread takes to be free again
        return found

    assert len(asyncio.run(work())) <= 2
    hands.close()


NARROW = """
import asyncio, resource, threading, time
from backlane.engine.transports.sqs.hands import Hands

threading.stack_size(64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
hands = Hands("hands", 100)

async def work():
    futures = [hands.start(lambda: time.sleep(0.02) or threading.get_ident()) for _ in range(60)]
    return set(await asyncio.gather(*futures))

print(len(asyncio.run(work())))
"""


def test_where_the_machine_allows_no_more_threads_those_there_are_do_it_all():
    ran = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    assert 1 <= int(ran.stdout) < 20


def test_what_a_call_raises_is_the_callers():
    hands = Hands("hands", 1)

    async def work() -> None:
        with pytest.raises(ZeroDivisionError):
            await hands.start(lambda: 1 // 0)
        assert await hands.start(lambda: 1) == 1

    asyncio.run(work())
    hands.close()


def test_who_does_not_wait_any_more_keeps_nobody_from_work():
    hands = Hands("hands", 1)

    async def work() -> int:
        slow = hands.start(lambda: time.sleep(0.05))
        never = hands.start(lambda: pytest.fail("it was called off"))
        slow.cancel()
        never.cancel()
        return await hands.start(lambda: 2)

    assert asyncio.run(work()) == 2
    hands.close()


def test_closed_hands_take_nothing():
    hands = Hands("hands", 1)
    hands.close()

    async def work() -> None:
        hands.start(lambda: 1)

    with pytest.raises(RuntimeError, match="hands is closed"):
        asyncio.run(work())


def test_threads_keep_no_process_from_ending():
    hands = Hands("hands", 1)

    async def work() -> bool:
        return await hands.start(lambda: threading.current_thread().daemon)

    assert asyncio.run(work())
    hands.close()


def test_calls_that_were_throttled_together_slow_down_once():
    pace = Pace()

    for _ in range(10):
        pace.throttled()

    assert pace.level <= 2


def test_a_pace_recovers_by_calls_that_get_through():
    pace = Pace()
    pace.level = 3

    for _ in range(3):
        pace.went_well()

    assert pace.level == 0
    assert asyncio.run(pace.turn(time.monotonic() + 1))
    assert not asyncio.run(pace.turn(time.monotonic() - 1))


def test_pauses_are_bounded():
    pace = Pace()
    pace.level = 1_000
    pace.throttled()

    assert pace._free_at - time.monotonic() <= MOST_SECONDS
    assert all(0 <= backoff(tries) <= 2 for tries in range(50))
