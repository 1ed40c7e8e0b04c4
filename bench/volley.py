"""A volley of HTTP requests, in a process of its own: as many as the gateway answers.

    python -m bench.volley '{"port": 8000, "path": "/v1/…", "body": "{}", "connections": 100}'

Each connection sends one request at a time, the next once it has its answer. Raw sockets
and the least of parsing, so that the volley costs a fraction of what it measures. The
first part of the time warms up and is not counted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import cast

import msgspec

from bench.figure import percentile

SETTLE_SECONDS = 15.0  # for the answers that are still to come


class Orders(msgspec.Struct, frozen=True):
    """What the volley is to do."""

    port: int
    path: str
    body: str
    connections: int
    seconds: float
    warmup: float = 1.0


class Score(msgspec.Struct, frozen=True):
    """What it met; latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    worst: float
    statuses: dict[str, int]


class Volley:
    """All connections, and what they have met so far."""

    def __init__(self, orders: Orders) -> None:
        body = orders.body.encode()
        head = (
            f"POST {orders.path} HTTP/1.1\r\nHost: localhost:{orders.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self.statuses: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.began = self.ends = 0.0
        self.left = asyncio.get_running_loop().create_future()
        self.open = orders.connections


class Connection(asyncio.Protocol):
    """One client: sends, waits for the whole answer, sends again."""

    def __init__(self, volley: Volley) -> None:
        self._volley = volley
        self._answer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        now, volley = time.perf_counter(), self._volley
        if now >= volley.began:
            volley.statuses[head[9:12].decode()] += 1
            volley.latencies.append(now - self._sent)
        self._answer = b""
        if now < volley.ends:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if time.perf_counter() < self._volley.ends:
            self._volley.statuses["lost"] += 1
        self._volley.open -= 1
        if not self._volley.open and not self._volley.left.done():
            self._volley.left.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._volley.request)


def _length(head: bytes) -> int:
    start = head.index(b"content-length: ") + 16
    return int(head[start : start + 8].partition(b"\r")[0])


async def shoot(orders: Orders) -> Score:
    """Send for as long as ordered and return what came back."""
    volley, loop = Volley(orders), asyncio.get_running_loop()
    volley.began = time.perf_counter() + orders.warmup
    volley.ends = volley.began + orders.seconds
    for _ in range(orders.connections):
        await loop.create_connection(lambda: Connection(volley), "127.0.0.1", orders.port)
    async with asyncio.timeout(orders.warmup + orders.seconds + SETTLE_SECONDS):
        await volley.left
    took = volley.latencies
    return Score(
        rate=len(took) / orders.seconds,
        p50=percentile(took, 50) * 1000,
        p99=percentile(took, 99) * 1000,
        worst=max(took) * 1000,
        statuses=dict(volley.statuses),
    )


def main() -> None:
    """Carry out the orders of the command line; print the score as JSON."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    try:
        import uvloop
    except ImportError:
        score = asyncio.run(shoot(orders))
    else:
        score = uvloop.run(shoot(orders))
    print(msgspec.json.encode(score).decode())


if __name__ == "__main__":
    main()
