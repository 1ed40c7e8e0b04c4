"""The supervisor: what `backlane worker module:app` runs.

The parent of the executors. It never imports the application and never runs user code,
so nothing that a job does can cost it a lease. It obeys signals: SIGTERM or SIGINT
finish what runs, for `grace` seconds, and give the rest back; a second one ends at
once; SIGHUP replaces the executors one by one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from typing import Any

from backlane.engine.connect import connect
from backlane.engine.protocol import Capability
from backlane.engine.transports import loop
from backlane.errors import BacklaneError, BadOption, NotSupported, UnknownQueue
from backlane.model.clock import SystemClock
from backlane.worker.birth import CannotLoad
from backlane.worker.channel import Hello
from backlane.worker.recycling import LOOK_SECONDS, NEVER, Recycling, worn_out
from backlane.worker.roster import Roster, Staffing
from backlane.worker.session import Session

log = logging.getLogger("backlane.worker")

# The default of 5 ms is how long the dispatcher may wait for the interpreter behind the
# engine's writer thread, at every frame it sends.
SWITCH_SECONDS = 0.001

NOT_SETTLED = 1
CANNOT_START = 2


class Supervisor:
    """Runs one worker until it is told to stop.

    Args:
        target: the application, as `module:attribute`.
        queues: what to serve; none means all that it declares.
        processes: how many shared executors.
        concurrency: the most jobs at a time in each of them.
        exclusive: the most jobs at a time in processes of their own; None is one a core.
        grace: seconds for running jobs once the worker is told to stop.
        lease: seconds after which the jobs of a vanished machine run again.
        recycling: when executors are replaced by fresh ones.

    Raises:
        BadOption: a value cannot work.
    """

    def __init__(
        self,
        target: str,
        *,
        queues: tuple[str, ...] = (),
        processes: int = 1,
        concurrency: int = 50,
        exclusive: int | None = None,
        grace: float = 25.0,
        lease: float = 30.0,
        recycling: Recycling = NEVER,
    ) -> None:
        if sys.platform == "win32":
            raise BadOption("a worker needs Linux or macOS: Windows has no signals to drain it by")
        self._exclusive = os.cpu_count() or 1 if exclusive is None else exclusive
        check_numbers(
            processes=processes, concurrency=concurrency, exclusive=self._exclusive, lease=lease
        )
        check_grace(grace)
        level = logging.getLevelName(log.getEffectiveLevel())
        self._staffing = Staffing(target, processes, concurrency, log_level=level)
        self._queues, self._grace, self._recycling = tuple(queues), grace, recycling
        self._lease_ms = round(lease * 1000)
        self._began = time.monotonic()

    def run(self) -> int:
        """Serve until a signal; return the exit status.

        0: all is settled. 1: the engine did not take the last outcomes, or cannot be
        used. 2: the application or an option is wrong.
        """
        sys.setswitchinterval(SWITCH_SECONDS)
        return asyncio.run(self._run())

    async def _run(self) -> int:
        self._stop, self._at_once = asyncio.Event(), asyncio.Event()
        running = asyncio.get_running_loop()
        roster = Roster(self._staffing)
        for number in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(number, self._on_stop)
        running.add_signal_handler(signal.SIGHUP, roster.reload)
        try:
            hello = await self._first_hello(roster)
            return 0 if hello is None else await self._serve(roster, hello)
        except (CannotLoad, BadOption, NotSupported, UnknownQueue) as error:
            log.error("%s", error)
            return CANNOT_START
        except BacklaneError as error:
            log.error("%s", error)
            return NOT_SETTLED
        finally:
            await roster.close()

    async def _first_hello(self, roster: Roster) -> Hello | None:
        """Start the first executor before anything heavy; None when told to stop meanwhile."""
        first = asyncio.ensure_future(roster.first())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({first, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if first.done():
            return first.result()
        first.cancel()
        return None

    async def _serve(self, roster: Roster, hello: Hello) -> int:
        loop.settle_in()
        engine = connect(hello.url, SystemClock())
        if Capability.EMBEDDED not in engine.capabilities and hello.url.startswith("memory:"):
            raise NotSupported(
                "jobs of a memory:// engine live in the process that made them, so no worker can "
                "reach them; use a file (sqlite:///jobs.db), or embed: `async with Worker(app)`"
            )
        session = Session(
            engine,
            roster,
            hello,
            queues=self._queues,
            lease_ms=self._lease_ms,
            slots=self._staffing.processes * self._staffing.concurrency,
            exclusive=self._exclusive,
        )
        try:
            await session.open(is_wanted=lambda: not self._stop.is_set())
            roster.open(session.dispatcher, session.descriptors, hello)
            roster.told = session.learn
            session.start()
            self._say_ready(session)
            _spare_the_collector()
            await self._until_told(session, roster)
            is_settled = await session.end(self._grace, self._at_once)
            log.info("worker %s has stopped", session.owner)
            return 0 if is_settled else NOT_SETTLED
        finally:
            await session.close()
            if loop.is_lived_in():  # closing waits for what runs here
                await asyncio.to_thread(engine.close)
            else:
                engine.close()

    def _say_ready(self, session: Session) -> None:
        log.info(
            "worker %s serves %s (pid %d, ready after %.2f s)",
            session.owner,
            ", ".join(session.dispatcher.wants.names) or "no queue",
            os.getpid(),
            time.monotonic() - self._began,
        )

    async def _until_told(self, session: Session, roster: Roster) -> None:
        """Wait for the signal to stop; recycle executors meanwhile."""
        stop = asyncio.ensure_future(self._stop.wait())
        seconds = LOOK_SECONDS if self._recycling.is_asked_for else None
        while not stop.done():
            parts: set[asyncio.Future[Any]] = {stop, *session.serving}
            await asyncio.wait(parts, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            session.check()
            for post, reason in worn_out(session.dispatcher.posts.all, self._recycling):
                roster.replace(post, reason)

    def _on_stop(self) -> None:
        if self._stop.is_set():
            log.warning("told twice: stopping at once")
            self._at_once.set()
        else:
            log.info("stopping: running jobs have %.0f s", self._grace)
            self._stop.set()


def check_grace(grace: float) -> None:
    """Refuse what is no number of seconds.

    Raises:
        BadOption: it is negative, or no number.
    """
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not grace >= 0:
        raise BadOption(f"grace is {grace!r}; use 0 or more seconds")


def _spare_the_collector() -> None:
    """Have the collector of cycles look less often: leases pass by in hundreds, in none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def check_numbers(**numbers: float) -> None:
    """Refuse what is below 1.

    Raises:
        BadOption: names the option.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
            raise BadOption(f"{name} is {value!r}; use a number from 1")
