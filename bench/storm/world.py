"""The world: seconds in which callers, gates and the workers of a queue meet."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from backlane.model.queue import Bounds
from bench.figure import percentile
from bench.storm.gate import Answer, Gate
from bench.storm.line import Line
from bench.storm.policy import Policy

GATES = 2  # processes, each with its own samples, that share the queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What happens, whatever the callers' policy."""

    bounds: Bounds
    slots: int
    service_ms: float
    seconds: float
    load: tuple[tuple[float, float], ...]  # (until second, new calls a second), in order
    crowd: int = 0  # callers that all come in the first 10 ms
    clients: int = 0  # 0: every call is a caller of its own; else so many, who wait in line
    warm_jobs: int = 200  # run before the beginning: the speed of the queue is known


@dataclass(slots=True)
class Call:
    """One job that somebody wants done."""

    born: float
    gate: Gate
    obeys: bool
    client: int | None
    attempts: int = 0
    delay: float = 0.0  # the last, in seconds
    ticket: str | None = None


@dataclass(slots=True)
class Story:
    """What came of a scene."""

    seconds: float
    attempts: list[float] = field(default_factory=list)  # when, in milliseconds
    refusals: list[float] = field(default_factory=list)
    accepted: int = 0
    returned: int = 0  # calls that came back once
    first: int = 0  # of those, accepted at that first return
    waits: list[float] = field(default_factory=list)  # milliseconds from the first attempt
    idle_ms: float = 0.0  # of all slots together, while refused callers wait
    deepest: int = 0
    # Of accepted jobs: since when, what they were told, what they waited, in milliseconds.
    line_waits: list[tuple[float, int | None, float]] = field(default_factory=list)

    @property
    def attempts_per_accepted(self) -> float:
        return len(self.attempts) / max(1, self.accepted)

    @property
    def first_return(self) -> float:
        return self.first / self.returned if self.returned else 1.0

    @property
    def p95_seconds(self) -> float:
        return percentile(self.waits, 95) / 1000

    def waited_ms(self, percent: float) -> float:
        """Return what so many per cent of the accepted jobs waited at most, in the line."""
        return percentile([waited for _, _, waited in self.line_waits], percent)

    def missed(self, percent: float, least_ms: int = 100) -> float:
        """Return by what part of their wait so many per cent of the promises missed at most.

        A promise of less than `least_ms` is none that anybody plans by.
        """
        told = [(foretold, waited) for _, foretold, waited in self.line_waits if foretold]
        missed = [abs(waited - f) / max(1, waited) for f, waited in told if f >= least_ms]
        return percentile(missed, percent)

    def per_second(self) -> list[int]:
        """Return the attempts in each second."""
        bins = [0] * int(self.seconds)
        for at in self.attempts:
            if at < len(bins) * 1000:
                bins[int(at // 1000)] += 1
        return bins

    def most_per_second(self, after: int = 2) -> int:
        return max(self.per_second()[after:])

    def refused_between(self, begin: float, end: float) -> int:
        return sum(begin * 1000 <= at < end * 1000 for at in self.refusals)


class World:
    """A heap of things to come, each a time and what to do then."""

    def __init__(self, scene: Scene, policy: Policy, seed: int) -> None:
        self._scene, self._policy = scene, policy
        self._rng = random.Random(seed)
        self._line = Line(scene.bounds, scene.slots, scene.service_ms)
        warm = scene.warm_jobs
        self._line.appended = self._line.started = self._line.ended = warm
        self._line.ran_ms = warm * scene.service_ms
        self._gates = [Gate(self._line, policy.rule, self._rng) for _ in range(GATES)]
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._now = 0.0
        self._outside = 0  # refused callers that will come back
        self._story = Story(scene.seconds)

    def told(self) -> Story:
        """Let the scene happen."""
        for at in sorted(self._rng.uniform(0, 10) for _ in range(self._scene.crowd)):
            self._at(at, lambda: self._come(self._call(None)))
        if self._scene.clients:
            for client in range(self._scene.clients):
                self._next_of(client)
        else:
            self._arrivals = self._times()
            self._next()
        end = self._scene.seconds * 1000
        while self._heap and self._heap[0][0] <= end:
            at, _, act = heapq.heappop(self._heap)
            if self._outside and not self._line.ready:
                free = self._line.slots - self._line.running
                self._story.idle_ms += free * (at - self._now)
            self._now = at
            act()
        self._story.deepest = self._line.deepest
        self._story.line_waits = self._line.waits
        return self._story

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), act))

    # -- callers --

    def _times(self) -> Iterator[float]:
        now = 0.0
        for until, rate in self._scene.load:
            while rate and (now := now + self._rng.expovariate(rate)) < until:
                yield now * 1000
            now = until

    def _next(self) -> None:
        at = next(self._arrivals, None)
        if at is not None:
            self._at(at, self._arrive)

    def _arrive(self) -> None:
        self._next()
        self._come(self._call(None))

    def _next_of(self, client: int) -> None:
        """Let a client that has nothing under way make its next call."""
        rate = next((rate for until, rate in self._scene.load if self._now < until * 1000), 0.0)
        if rate:
            pause = self._rng.expovariate(rate / self._scene.clients) * 1000
            self._at(self._now + pause, lambda: self._come(self._call(client)))

    def _call(self, client: int | None) -> Call:
        obeys = self._rng.random() < self._policy.obeys
        return Call(self._now, self._rng.choice(self._gates), obeys, client)

    def _come(self, call: Call) -> None:
        story = self._story
        call.gate = self._rng.choice(self._gates)
        call.attempts += 1
        story.attempts.append(self._now)
        answer = call.gate.asked(self._now, call.ticket)
        story.returned += call.attempts == 2
        if answer.accepted:
            story.accepted += 1
            story.first += call.attempts == 2
            story.waits.append(self._now - call.born)
            self._work()
        else:
            story.refusals.append(self._now)
            if call.obeys:
                self._leave(call, answer)
                return
        if call.client is not None:
            self._next_of(call.client)

    def _leave(self, call: Call, answer: Answer) -> None:
        if answer.retry_after is None:
            call.delay = self._policy.delay(self._rng, call.attempts - 1, call.delay)
        else:
            call.delay = answer.retry_after * self._rng.uniform(1, 1 + self._policy.spread)
            call.ticket = answer.ticket
        self._outside += 1
        self._at(self._now + call.delay * 1000, lambda: self._return(call))

    def _return(self, call: Call) -> None:
        self._outside -= 1
        self._come(call)

    # -- workers --

    def _work(self) -> None:
        while self._line.take(self._now):
            ran = self._scene.service_ms * self._rng.uniform(0.8, 1.2)
            self._at(self._now + ran, partial(self._ended, ran))

    def _ended(self, ran: float) -> None:
        self._line.end(ran)
        self._work()
