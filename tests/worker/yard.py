"""The application of the worker tests: tasks that behave, and tasks that do not.

Each run of a function leaves a line in `runs`, in a directory of the test's own.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from backlane import Backlane, Context, Queue, Retry, Snooze

ONCE = Retry(attempts=1)
SOON = Retry(attempts=3, base=0.01, cap=0.05)


class Unsayable(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def make(directory: Path, url: str = "") -> Backlane:
    """Return the application whose store is a file in `directory`, or what `url` names."""
    # long: one short function a task, all of one application
    runs = directory / "runs"
    queues = [Queue("narrow", concurrency=1)]
    app = Backlane(url or f"sqlite:///{directory}/jobs.db", queues=queues)

    def ran(what: str) -> None:
        with runs.open("a") as file:
            file.write(f"{what} {os.getpid()}\n")

    @app.task(name="quick")
    def quick(number: int) -> int:
        return number

    @app.task(name="aquick")
    async def aquick(number: int) -> int:
        return number

    @app.task(name="pid")
    def pid() -> int:
        return os.getpid()

    @app.task(name="nap")
    def nap(seconds: float) -> int:
        ran("nap")
        time.sleep(seconds)
        return os.getpid()

    @app.task(name="narrow_nap", queue="narrow")
    def narrow_nap(seconds: float) -> float:
        began = time.time()
        time.sleep(seconds)
        return began

    @app.task(name="anap")
    async def anap(seconds: float) -> int:
        ran("anap")
        await asyncio.sleep(seconds)
        return os.getpid()

    @app.task(name="listens")
    def listens(context: Context, seconds: float) -> None:
        ran("listens")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            context.check()
            time.sleep(0.01)

    @app.task(name="reports")
    def reports(context: Context, seconds: float) -> None:
        context.progress(0.5, "half")
        ran("reports")
        time.sleep(seconds)

    @app.task(name="alone", runs_in="process")
    def alone(number: int) -> int:
        return os.getpid()

    @app.task(name="alone_async", runs_in="process")
    async def alone_async(number: int) -> int:
        await asyncio.sleep(0.01)
        return number

    @app.task(name="alone_nap", runs_in="process")
    def alone_nap(seconds: float) -> int:
        ran("alone_nap")
        time.sleep(seconds)
        return os.getpid()

    @app.task(name="alone_forever", runs_in="process", timeout=(0.2, 0.4), retry=ONCE)
    def alone_forever() -> None:
        ran("alone_forever")
        while True:
            pass

    @app.task(name="segfault")
    def segfault() -> None:
        ran("segfault")
        time.sleep(0.1)  # its neighbours have started by then
        ctypes.string_at(0)

    @app.task(name="exits")
    def exits(status: int) -> None:
        ran("exits")
        os._exit(status)

    @app.task(name="sys_exits", retry=ONCE)
    async def sys_exits() -> None:
        sys.exit(3)

    @app.task(name="interrupts", retry=ONCE)
    def interrupts() -> None:
        raise KeyboardInterrupt

    @app.task(name="blocks")
    async def blocks(seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the fault under test

    @app.task(name="blocks_forever", timeout=(0.2, 0.4), retry=ONCE)
    async def blocks_forever() -> None:
        time.sleep(60)  # noqa: ASYNC251 - the fault under test

    @app.task(name="late_async", timeout=0.2, retry=ONCE)
    async def late_async() -> None:
        await asyncio.sleep(60)

    @app.task(name="late_thread", timeout=(0.1, 0.2), retry=ONCE)
    def late_thread(seconds: float) -> str:
        ran("late_thread")
        time.sleep(seconds)
        return "after all"

    @app.task(name="late_listener", timeout=0.1, retry=ONCE)
    def late_listener(context: Context) -> None:
        while True:
            context.check()
            time.sleep(0.01)

    @app.task(name="fails", retry=SOON)
    def fails() -> None:
        ran("fails")
        raise ValueError("never works")

    @app.task(name="unsayable", retry=ONCE)
    def unsayable() -> None:
        raise Unsayable

    @app.task(name="unstorable")
    def unstorable() -> list[int]:
        ran("unstorable")
        return numbers()  # type: ignore[return-value]  # the fault under test

    def numbers() -> Iterator[int]:
        yield 1

    @app.task(name="snoozes")
    def snoozes(context: Context) -> int:
        ran("snoozes")
        if len(runs.read_text().splitlines()) < 3:
            raise Snooze(0.05)
        return context.attempt

    @app.task(name="grows")
    def grows(mebibytes: int) -> int:
        leaked.append(b"x" * (mebibytes << 20))
        return os.getpid()

    leaked: list[bytes] = []
    return app
