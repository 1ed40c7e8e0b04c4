"""The watch: a thread of a shared executor that sees what its loop cannot.

It calls more threads when the line of plain functions stands still, ends attempts by
their limits, and reports a blocked event loop with the task and the stack that blocks
it. It sleeps while nothing runs.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable

from backlane.worker.attempt import Attempt
from backlane.worker.crew import Crew, Running
from backlane.worker.outbox import Outbox
from backlane.worker.verdict import Stop, hard_ms

log = logging.getLogger("backlane.worker")

LINE_SECONDS = 0.002  # no job waits longer than this behind one of unknown length
LOOK_SECONDS = 0.25
BLOCKED_SECONDS = 1.0


class Watch:
    """Watches the running attempts of one shared executor.

    Args:
        overdue: called (in the watch's thread) for an attempt past its hard limit.
        stuck: called when the attempt that blocks the loop is past its hard limit.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        running: Running,
        crew: Crew,
        outbox: Outbox,
        *,
        overdue: Callable[[Attempt], None],
        stuck: Callable[[Attempt], None],
    ) -> None:
        self._loop, self._running, self._crew, self._outbox = loop, running, crew, outbox
        self._overdue, self._stuck = overdue, stuck
        self._loop_thread = threading.get_ident()
        self._alarm = threading.Event()
        self._is_asleep = False
        self._is_closed = False
        self._taken = 0
        self._asked_at: float | None = None  # the loop was asked for a sign of life
        self._has_reported = False
        self._thread = threading.Thread(target=self._run, name="backlane-watch", daemon=True)
        self._thread.start()

    def rouse(self) -> None:
        """Look again soon: something was started. Called in the loop's thread."""
        if self._is_asleep:
            self._is_asleep = False
            self._alarm.set()

    def close(self) -> None:
        self._is_closed = True
        self._alarm.set()

    def _run(self) -> None:
        while not self._is_closed:
            try:
                seconds = self._look()
            except Exception:  # the watch must go on; what it missed it sees next time
                log.exception("the watch of this executor failed; it looks again in 0.25 s")
                seconds = LOOK_SECONDS
            self._is_asleep = seconds is None
            if seconds is None and self._has_work():  # it came while we decided to sleep
                continue
            self._alarm.wait(seconds)
            self._alarm.clear()

    def _has_work(self) -> bool:
        return bool(
            self._running.attempts or self._crew.line or self._outbox or self._outbox.has_notes
        )

    def _look(self) -> float | None:
        """Look once; return the seconds until the next look, None for 'when roused'."""
        now = time.monotonic()
        seconds: float | None = None
        attempts = list(self._running.attempts.values())
        if attempts:
            seconds = min(LOOK_SECONDS, self._limit(attempts, now))
            self._feel_pulse(attempts, now)
        if self._outbox.has_notes:
            self._outbox.flush_notes()
            seconds = min(seconds or LOOK_SECONDS, LOOK_SECONDS)
        if self._crew.line or self._outbox:
            self._move_line()
            seconds = LINE_SECONDS
        return seconds

    def _move_line(self) -> None:
        if self._crew.taken == self._taken:
            self._crew.help()
            self._outbox.flush()
        self._taken = self._crew.taken

    def _limit(self, attempts: list[Attempt], now: float) -> float:
        """Ask or end what is out of time; return the seconds until the next limit."""
        nearest = LOOK_SECONDS
        for attempt in attempts:
            hard = hard_ms(attempt.lease)
            if hard is None or not attempt.started or attempt.is_overdue:
                continue
            ran = (now - attempt.started) * 1000
            soft = attempt.lease.policy.soft_ms
            if soft is not None and attempt.stop is None:
                if ran < soft:
                    nearest = min(nearest, (soft - ran) / 1000)
                    continue
                self._ask(attempt)
            if ran >= hard:
                attempt.is_overdue = True
                self._ask(attempt)
                self._overdue(attempt)
            else:
                nearest = min(nearest, (hard - ran) / 1000)
        return max(nearest, LINE_SECONDS)

    def _ask(self, attempt: Attempt) -> None:
        attempt.stop = attempt.stop or Stop.TIMEOUT
        if attempt.asyncio_task is not None:
            self._loop.call_soon_threadsafe(attempt.asyncio_task.cancel)

    def _feel_pulse(self, attempts: list[Attempt], now: float) -> None:
        """Ask the loop for a sign of life; report one that has been blocked for long."""
        if not any(attempt.asyncio_task for attempt in attempts):
            return
        if self._asked_at is None:
            self._asked_at = now
            self._loop.call_soon_threadsafe(self._alive)
            return
        if now - self._asked_at < BLOCKED_SECONDS:
            return
        culprit = self._blocking(attempts)
        if not self._has_reported:
            self._has_reported = True
            self._report(culprit, now - self._asked_at)
        if culprit is not None and culprit.is_overdue:
            self._stuck(culprit)

    def _alive(self) -> None:
        if self._has_reported and self._asked_at is not None:
            log.warning("the event loop goes on after %.1f s", time.monotonic() - self._asked_at)
        self._asked_at = None
        self._has_reported = False

    def _blocking(self, attempts: list[Attempt]) -> Attempt | None:
        at_work = asyncio.current_task(self._loop)
        if at_work is None:
            return None
        return next((each for each in attempts if each.asyncio_task is at_work), None)

    def _report(self, culprit: Attempt | None, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)[-12:]) if frame else "(no stack)"
        who = "something outside of any job"
        if culprit is not None:
            who = f"task {culprit.lease.task} (job {uuid.UUID(bytes=culprit.lease.job)})"
        log.warning(
            "the event loop has been blocked for %.1f s by %s; other async jobs wait. "
            "Await instead, or make it a plain function: that runs in a thread.\n%s",
            seconds,
            who,
            stack,
        )
