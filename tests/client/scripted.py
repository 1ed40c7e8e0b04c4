"""A gateway by script: steps are taken by hand, on a clock that only they move."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from backlane.client.core import Core, Settings
from backlane.client.pacer import Pacer
from backlane.client.step import Answer, Emit, Lost, Open, Read, Request, Send, Sleep, Steps
from backlane.errors import QueueFull
from backlane.problem import Problem, busy, problem

START = datetime(2030, 1, 1, tzinfo=UTC)

BROKEN = Lost(ConnectionError("reset"), sent=True)
NOT_CONNECTED = Lost(ConnectionError("refused"), sent=False)


def told(given: Problem) -> Answer:
    """Return a problem as the client gets it."""
    headers = {name.lower(): value for name, value in given.headers}
    return Answer(given.status, headers, given.body)


def full(retry_after: float | None, ticket: str | None = None, **parts: Any) -> Answer:
    after = None if retry_after is None else timedelta(seconds=retry_after)
    figures = {"limit": "jobs", "depth": 9, "bound": 9, **parts}
    return told(busy(QueueFull("mail", retry_after=after, ticket=ticket, **figures)))


def declined(status: int, kind: str, **members: Any) -> Answer:
    return told(problem(status, kind, kind, f"because of {kind}", **members))


def job(state: str = "ready", **parts: Any) -> Answer:
    """Return the answer that shows a job."""
    document = {
        "id": "01900000-0000-7000-8000-000000000000",
        "task": "shop.resize",
        "queue": "mail",
        "state": state,
        "priority": 5,
        "enqueued_at": "2030-01-01T00:00:00.000Z",
        **parts,
    }
    return Answer(202, {"backlane-pressure": "0.42"}, msgspec.json.encode(document))


class Script:
    """Answers requests in order, the last one for ever, and keeps what was asked."""

    def __init__(
        self,
        *replies: Answer | Lost,
        seconds: float = 0.0,
        deadline: float = 60.0,
        attempts: int | None = None,
        chunks: Iterable[bytes | Lost | None] = (),
    ) -> None:
        self.now = 1000.0
        self.sent: list[Request] = []
        self.slept: list[float] = []
        self._replies = list(replies)
        self._seconds = seconds  # what each request takes
        self._chunks = list(chunks)
        self.pacer = Pacer(
            now=lambda: self.now,
            draw=random.Random(7).random,
            wall=lambda: START + timedelta(seconds=self.now - 1000.0),
        )
        settings = Settings(timeout=10.0, deadline=deadline, attempts=attempts)
        self.core = Core(settings, self.pacer)

    def run(self, steps: Steps[Any]) -> Any:
        """Take all steps, and return what they come to."""
        emitted = self._emitted(steps)
        while True:
            try:
                next(emitted)
            except StopIteration as done:
                return done.value

    def follow(self, steps: Steps[None]) -> Iterator[Any]:
        """Yield what the steps emit."""
        yield from self._emitted(steps)

    def _emitted(self, steps: Steps[Any]) -> Any:
        reply: Any = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as done:
                return done.value
            reply = None
            match step:
                case Emit(value):
                    yield value
                case Sleep(seconds):
                    self.slept.append(seconds)
                    self.now += seconds
                case Read():
                    reply = self._chunks.pop(0) if self._chunks else None
                case Send(request) | Open(request):
                    self.sent.append(request)
                    self.now += self._seconds
                    reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    @property
    def passed(self) -> float:
        return self.now - 1000.0
