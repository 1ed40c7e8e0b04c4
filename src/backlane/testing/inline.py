"""Attempts run inline: the worker's pipeline with neither dispatcher nor executor.

A job takes as long as the clock moves while it runs. Plain functions run in the calling
thread (in a coroutine: in another one, as in a worker); async ones in one loop that
lasts as long as the test, so that what they open there can be used again.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import msgspec

from backlane.app import Backlane
from backlane.engine.protocol import Engine
from backlane.handle import JobHandle
from backlane.model.clock import FakeClock
from backlane.model.job import Lease, Note, Progress, State
from backlane.model.outcome import ErrorRecord, Settlement
from backlane.worker.attempt import Attempt, Attempts
from backlane.worker.verdict import Stop, overran

# 20 ms of silence: the job waits for something, and not just for its turn in the loop.
QUIET_SECONDS = 0.02
LEASE_MS = 100 * 365 * 86_400_000  # an inline attempt cannot be lost


class Ran(msgspec.Struct, frozen=True):
    """One attempt that a test has run, and what became of its job.

    `outcome` is what the attempt ended as: `"succeeded"`, `"retryafter"`, `"snoozed"`,
    `"failed"`, `"cancelled"` or `"released"`. `state` is that of the job just after.
    """

    job: JobHandle[Any]
    task: str
    attempt: int  # 1 is the first
    outcome: str
    state: State
    error: ErrorRecord | None = None

    def __repr__(self) -> str:
        why = "" if self.error is None else f", {self.error.kind}: {self.error.message}"
        return f"<Ran {self.task} attempt {self.attempt}: {self.outcome}{why}; {self.state.value}>"


class Inline:
    """Runs the attempts of one application where they are asked for."""

    def __init__(self, app: Backlane, engine: Engine, clock: FakeClock) -> None:
        self._engine, self._clock = engine, clock
        self._attempts = Attempts(app, self._keep)
        self._runner: asyncio.Runner | None = None

    def run(self, lease: Lease) -> Settlement:
        """Run one attempt here; an async function in the test's own loop."""
        attempt, started_ms = self._attempt(lease)
        if self._attempts.is_async(lease):
            if self._runner is None:
                self._runner = asyncio.Runner()
            settlement = self._runner.run(self._attend(attempt, started_ms))
        else:
            settlement = self._attempts.run(attempt)
        return self._in_time(lease, started_ms, settlement)

    async def arun(self, lease: Lease) -> Settlement:
        """Run one attempt in the running loop; a plain function in a thread."""
        attempt, started_ms = self._attempt(lease)
        if self._attempts.is_async(lease):
            settlement = await self._attend(attempt, started_ms)
        else:
            settlement = await asyncio.to_thread(self._attempts.run, attempt)
        return self._in_time(lease, started_ms, settlement)

    def close(self) -> None:
        """End the loop of the async functions, and what they left running in it."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _attempt(self, lease: Lease) -> tuple[Attempt, int]:
        started_ms = self._clock.boot_ms()
        asked = partial(self._asked, lease, started_ms)
        return Attempt(lease, self._keep, ask=asked), started_ms

    def _asked(self, lease: Lease, started_ms: int) -> Stop | None:
        """What a dispatcher would have told the running function by now."""
        extended = self._engine.run(self._engine.extend([(lease.job, lease.token)], LEASE_MS))
        if extended.cancelled:
            return Stop.CANCELLED
        soft_ms = lease.policy.soft_ms
        if soft_ms is not None and self._clock.boot_ms() - started_ms >= soft_ms:
            return Stop.TIMEOUT
        return None

    def _keep(self, lease: Lease, progress: Progress) -> None:
        self._engine.run(self._engine.note([Note(lease.job, lease.token, progress)]))

    async def _attend(self, attempt: Attempt, started_ms: int) -> Settlement:
        """Run an async function; while it waits, let the time pass that it waits for."""
        began = time.monotonic()
        running = asyncio.ensure_future(self._attempts.arun(attempt))
        was_told = False
        try:
            while True:
                await asyncio.wait({running}, timeout=QUIET_SECONDS)
                if running.done():
                    return running.result()
                self._let_time_pass(attempt.lease, started_ms, time.monotonic() - began)
                if attempt.is_cancelled() and not was_told:
                    was_told = running.cancel()
        finally:
            running.cancel()

    def _let_time_pass(self, lease: Lease, started_ms: int, waited: float) -> None:
        """Move the clock to the first sleeper, or to the job's limit if that comes first.

        A function that waits for something real gets real time: the clock is moved to
        its limit once it has really waited that long.
        """
        soft_ms = lease.policy.soft_ms
        limit_ms = None if soft_ms is None else started_ms + soft_ms
        wake_ms = self._clock.next_wake_ms()
        if wake_ms is None and (soft_ms is None or waited * 1000 < soft_ms):
            return
        until_ms = min(ms for ms in (wake_ms, limit_ms) if ms is not None)
        self._clock.advance(milliseconds=max(0, until_ms - self._clock.boot_ms()))

    def _in_time(self, lease: Lease, started_ms: int, settlement: Settlement) -> Settlement:
        """What a worker would have ended at its hard limit did not end by itself."""
        hard_ms = lease.policy.hard_ms
        if hard_ms is None or self._clock.boot_ms() - started_ms < hard_ms:
            return settlement
        return msgspec.structs.replace(settlement, outcome=overran(lease))
