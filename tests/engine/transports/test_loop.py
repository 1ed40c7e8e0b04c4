"""The one loop of a process that talks to brokers."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

import pytest

from backlane.engine.transports import loop


async def _answer() -> tuple[int, str]:
    await asyncio.sleep(0)
    return 42, threading.current_thread().name


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that other tests of this process have open do not count."""
    monkeypatch.setattr(loop, "_current", loop._Current())


def test_engines_share_one_thread_which_ends_with_the_last() -> None:
    before = set(threading.enumerate())
    first, second = loop.enter(), loop.enter()

    assert first is second
    assert first.run(_answer(), 5) == (42, loop.NAME)
    loop.leave(first)
    assert first.is_own

    loop.leave(second)
    assert not first.is_own
    assert set(threading.enumerate()) <= before


def test_any_loop_can_wait_for_it() -> None:
    background = loop.enter()

    try:
        assert asyncio.run(background.arun(_answer())) == (42, loop.NAME)
    finally:
        loop.leave(background)


def test_engines_can_settle_in_a_loop_that_runs_already() -> None:
    async def live() -> tuple[int, str]:
        loop.settle_in()
        guest = loop.enter()
        assert loop.is_lived_in()
        told = await guest.arun(_answer())
        from_aside = await asyncio.to_thread(guest.run, _answer(), 5)
        await asyncio.to_thread(loop.leave, guest)
        assert not loop.is_lived_in()
        assert told == from_aside
        return told

    before = set(threading.enumerate())

    assert asyncio.run(live()) == (42, threading.current_thread().name)
    assert set(threading.enumerate()) <= before


def test_what_takes_too_long_is_cancelled() -> None:
    background = loop.enter()
    ended = threading.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    try:
        with pytest.raises(TimeoutError):
            background.run(long(), 0.01)
        assert ended.wait(5)
    finally:
        loop.leave(background)


def test_what_runs_is_cancelled_when_the_last_one_leaves() -> None:
    background = loop.enter()
    begun = threading.Event()

    async def long() -> None:
        begun.set()
        await asyncio.sleep(60)

    future = background.start(long())
    assert begun.wait(5)
    loop.leave(background)

    assert future.cancelled()


def test_a_child_of_a_fork_has_its_own_and_no_socket_of_its_parents() -> None:
    background = loop.enter()
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    theirs.settimeout(5)

    async def read() -> None:
        background.loop.add_reader(ours, lambda: None)

    background.run(read(), 5)
    child = os.fork()
    if child == 0:
        own = loop.enter()
        good = own is not background and own.run(_answer(), 5)[0] == 42
        os._exit(0 if good and not background.is_own and _leads_nowhere(ours) else 1)

    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert background.run(_answer(), 5)[0] == 42
    finally:
        loop.leave(background)
        ours.close()
        theirs.close()


def _leads_nowhere(end: socket.socket) -> bool:
    try:
        end.send(b"x")
    except OSError:
        return True
    return False
