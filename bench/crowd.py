"""A crowd of HTTP clients, in a process of its own: it posts jobs at a given rate.

    python -m bench.crowd '{"port": 8000, …}'

Each client has one connection and sends one request at a time. One that is refused comes
back after its `Retry-After` with its ticket and the same id, or gives up, as it is told.
Raw sockets, so that the crowd costs less than the gateway it presses upon.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import msgspec

from backlane.model.ids import new_id

PATIENCE_SECONDS = 30.0  # for one answer: a server that hangs is a failure, not a wait


class Phase(msgspec.Struct, frozen=True):
    """So many new jobs a second, for so long."""

    seconds: float
    rate: float


class Orders(msgspec.Struct, frozen=True):
    """What the crowd is to do."""

    port: int
    path: str
    body: dict[str, object]
    clients: int
    phases: list[Phase]
    obeys: bool = True
    patience: float = 300.0  # seconds after the last phase for those who still wait
    seed: int = 7


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One request and its answer. Times are seconds since the crowd set out."""

    sent: float
    took: float
    status: int
    number: int  # 0 is the first of its job
    retry_after: float | None = None
    expected_wait: float | None = None
    job: str = ""


class Accepted(msgspec.Struct, frozen=True):
    """What the crowd reads of a 202."""

    expected_wait: float | None = None


_ACCEPTED = msgspec.json.Decoder(Accepted)


class Told(msgspec.Struct, frozen=True):
    """What the crowd saw."""

    began: float  # wall clock, seconds
    attempts: list[Attempt]
    gave_up: int  # jobs that were refused and not sent again
    unanswered: int


@dataclass(order=True)
class Visit:
    """A job to be posted at a time."""

    due: float
    number: int = field(compare=False, default=0)
    job: uuid.UUID = field(compare=False, default_factory=uuid.uuid4)
    ticket: bytes = field(compare=False, default=b"")


class Wire(asyncio.Protocol):
    """One connection: a request out, an answer in."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, dict[bytes, bytes], bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, mark, rest = self._buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        lines = head.split(b"\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        length = int(headers.get(b"content-length", b"0"))
        if len(rest) < length or self._answer is None:
            return
        self._buffer = rest[length:]
        answer, self._answer = self._answer, None
        if not answer.done():
            answer.set_result((int(lines[0].split()[1]), headers, rest[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(str(exc)))

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def ask(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send a request and return status, headers and body of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._answer, PATIENCE_SECONDS)


class Client:
    """One member of the crowd."""

    def __init__(self, orders: Orders, began: float, arrivals: Iterator[float], seed: int) -> None:
        self._orders, self._began, self._arrivals = orders, began, arrivals
        self._random = random.Random(seed)
        self._returns: list[Visit] = []
        self._head = (
            f"POST {orders.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        ).encode()
        self._body = msgspec.json.encode(orders.body)[:-1].replace(b"%", b"%%") + b',"id":"%s"}'
        self._wire = Wire()
        self.attempts: list[Attempt] = []
        self.gave_up = self.unanswered = 0

    async def run(self) -> None:
        """Post every arrival and every return in the order of their times."""
        end = sum(phase.seconds for phase in self._orders.phases) + self._orders.patience
        upcoming = next(self._arrivals, None)
        while upcoming is not None or self._returns:
            if upcoming is not None and (not self._returns or upcoming < self._returns[0].due):
                visit, upcoming = Visit(upcoming), next(self._arrivals, None)
                visit.job = uuid.UUID(bytes=new_id(time.time_ns() // 1_000_000))
            else:
                visit = heapq.heappop(self._returns)
            if visit.due > end:
                self.gave_up += 1
                continue
            await asyncio.sleep(max(0.0, self._began + visit.due - time.monotonic()))
            await self._post(visit)

    async def _post(self, visit: Visit) -> None:
        sent = time.monotonic()
        try:
            if not self._wire.is_open:
                self._wire = Wire()
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self._wire, "127.0.0.1", self._orders.port)
            status, headers, body = await self._wire.ask(self._request(visit))
        except (OSError, TimeoutError):
            self.unanswered += 1
            return
        self._note(visit, sent, status, headers, body)

    def _request(self, visit: Visit) -> bytes:
        # By hand: what the crowd costs, the worker on the same processors goes without.
        body = self._body % str(visit.job).encode()
        ticket = b"Backlane-Ticket: %s\r\n" % visit.ticket if visit.ticket else b""
        return b"%s%sContent-Length: %d\r\n\r\n%s" % (self._head, ticket, len(body), body)

    def _note(
        self, visit: Visit, sent: float, status: int, headers: dict[bytes, bytes], body: bytes
    ) -> None:
        took = time.monotonic() - sent
        wait = float(headers[b"retry-after"]) if status in (429, 503) else None
        expected = _ACCEPTED.decode(body).expected_wait if status == 202 else None
        job = str(visit.job) if expected is not None else ""
        self.attempts.append(
            Attempt(sent - self._began, took, status, visit.number, wait, expected, job)
        )
        if wait is None:
            return
        if not self._orders.obeys:
            self.gave_up += 1
            return
        due = time.monotonic() - self._began + wait * self._random.uniform(1.0, 1.1)
        ticket = headers.get(b"backlane-ticket", b"")
        heapq.heappush(self._returns, Visit(due, visit.number + 1, visit.job, ticket))


def _arrivals(orders: Orders, client: int) -> Iterator[float]:
    """Yield when this client has a new job: Poisson, its share of the rate of each phase."""
    chance = random.Random(orders.seed * 1_000 + client)
    begins = 0.0
    for phase in orders.phases:
        at = begins
        while phase.rate:
            at += chance.expovariate(phase.rate / orders.clients)
            if at >= begins + phase.seconds:
                break
            yield at
        begins += phase.seconds


async def _crowd(orders: Orders) -> Told:
    began, wall = time.monotonic() + 0.2, time.time() + 0.2
    clients = [
        Client(orders, began, _arrivals(orders, number), orders.seed + number)
        for number in range(orders.clients)
    ]
    await asyncio.gather(*(client.run() for client in clients))
    attempts = sorted((it for client in clients for it in client.attempts), key=lambda it: it.sent)
    return Told(
        wall,
        attempts,
        sum(client.gave_up for client in clients),
        sum(client.unanswered for client in clients),
    )


def statuses(attempts: list[Attempt]) -> Counter[int]:
    """Count the answers by status."""
    return Counter(attempt.status for attempt in attempts)


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_loop) as runner:
        told = runner.run(_crowd(msgspec.json.decode(sys.argv[1], type=Orders)))
    sys.stdout.buffer.write(msgspec.json.encode(told))
