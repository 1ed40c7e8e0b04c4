"""Keys: who holds each, for how long, and what a job becomes that finds its key held."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from backlane.model.clock import Clock
from backlane.model.job import FINAL, Job, Key, KeyRule, State


class Held(NamedTuple):
    """A key that a job holds; `until_ms`: whatever becomes of the job (wall clock)."""

    job: bytes
    until_ms: int | None


class Keys:
    """Who holds each key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[Key, Held] = {}

    def holder(self, key: Key | None) -> bytes | None:
        """Return the job that holds a key now."""
        held = self._held.get(key) if key else None
        is_over = held and held.until_ms is not None and held.until_ms <= self._clock.wall_ms()
        return None if held is None or is_over else held.job

    def would_hold(self, job: Job, state: State, token: int, enqueued_ms: int) -> bool:
        """Whether a job as it is then would hold its key, if nobody else did."""
        if job.key is None:
            return False
        if job.rule.window_ms is not None:
            return enqueued_ms + job.rule.window_ms > self._clock.wall_ms()
        return _holds(job.rule, state, token)

    def take(self, job: Job, state: State, token: int, enqueued_ms: int) -> None:
        """Let a job hold its key, unless another does."""
        key, window_ms = job.key, job.rule.window_ms
        if key and self.would_hold(job, state, token, enqueued_ms) and not self.holder(key):
            until_ms = None if window_ms is None else enqueued_ms + window_ms
            self._held[key] = Held(job.id, until_ms)

    def free(self, job: Job, state: State, token: int) -> None:
        """Free the key of a job that is in this state by now, if it holds it no longer."""
        if job.rule.window_ms is None and not _holds(job.rule, state, token):
            self.forget(job)

    def forget(self, job: Job, *, pruned: bool = False) -> None:
        """Free the key of a job that is forgotten; a window outlives a job that is pruned."""
        held = self._held.get(job.key) if job.key else None
        if held and job.key and held.job == job.id and not (pruned and held.until_ms is not None):
            del self._held[job.key]

    def sweep(self, limit: int) -> int:
        """Forget windows that are over, the oldest first; return how many."""
        now = self._clock.wall_ms()
        ends = {key: held.until_ms for key, held in self._held.items() if held.until_ms is not None}
        past = [key for key, until_ms in ends.items() if until_ms <= now]
        past = sorted(past, key=lambda key: (ends[key], key.scope, key.name))[: max(0, limit)]
        for key in past:
            del self._held[key]
        return len(past)


def _holds(rule: KeyRule, state: State, token: int) -> bool:
    """Whether a job in this state holds its key, if it has no window."""
    match rule.until:
        case "started":
            return token == 0 and state not in FINAL
        case "succeeded":
            return state not in FINAL or state is State.FAILED
        case _:
            return state not in FINAL


def supplanted(held: Job, newcomer: Job) -> Job:
    """A job of the same append as its newcomer, with what it takes of it."""
    delay_ms = most_delayed(newcomer, newcomer.rule.most_ms)
    return replace(held, body=newcomer.body, headers=newcomer.headers, delay_ms=delay_ms)


def most_delayed(newcomer: Job, left_ms: int | None) -> int:
    """The delay that a newcomer brings its holder, of which `left_ms` may be put off."""
    capped = newcomer.rule.conflict == "debounce" and left_ms is not None
    return min(newcomer.delay_ms, left_ms or 0) if capped else newcomer.delay_ms
