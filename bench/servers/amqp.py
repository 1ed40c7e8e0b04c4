"""The bare client: the least that RabbitMQ must do for a message, without anything of ours.

One message at a time to a quorum queue, from one blocking socket to another: sent, stored
on the disk, brought, confirmed. Nothing of a worker is in it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from pamqp import base, body, commands, common, frame, header

from bench.bare import PAYLOAD
from bench.figure import Nothing

SECONDS = 30.0  # for whatever the node is asked


class Floor(NamedTuple):
    """Milliseconds of each message."""

    brought: list[float]
    confirmed: list[float]


class Bare:
    """A connection with one channel."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname, place.port), timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.read()
        login = f"\0{place.username}\0{place.password}"
        self.tell(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), 0)
        self.read()
        self.tell(commands.Connection.TuneOk(2_047, 131_072, 0), 0)
        self.tell(commands.Connection.Open("/"), 0)
        self.read()
        self.ask(commands.Channel.Open())

    def tell(self, method: base.Frame, channel: int = 1) -> None:
        self.socket.sendall(frame.marshal(method, channel))

    def ask(self, method: base.Frame) -> object:
        self.tell(method)
        return self.read()

    def read(self) -> object:
        """Return the next frame."""
        while True:
            size = int.from_bytes(self._rest[3:7], "big") + 8 if len(self._rest) >= 7 else 8
            if len(self._rest) >= size:
                one, self._rest = self._rest[:size], self._rest[size:]
                return frame.unmarshal(one)[2]
            data = self.socket.recv(65_536)
            if not data:
                raise Nothing("the node closed the connection")
            self._rest += data

    def publish(self, queue: str, text: bytes) -> None:
        properties = commands.Basic.Properties(delivery_mode=2)
        frames = (
            commands.Basic.Publish(exchange="", routing_key=queue, mandatory=True),
            header.ContentHeader(0, len(text), properties),
            body.ContentBody(text),
        )
        self.socket.sendall(b"".join(frame.marshal(it, 1) for it in frames))


@contextlib.contextmanager
def _bare(url: str) -> Iterator[Bare]:
    made = Bare(url)
    with made.socket:
        yield made


def waiting(url: str, queue: str) -> int:
    """Return how many messages the node itself says wait in a queue."""
    with _bare(url) as call:
        told = call.ask(commands.Queue.Declare(queue=queue, passive=True))
    return told.message_count or 0 if isinstance(told, commands.Queue.DeclareOk) else 0


def floor(url: str, number: int, pause: float) -> Floor:
    """Send a message each `pause` seconds; time until it is brought, and confirmed."""
    found = Floor([], [])
    with _bare(url) as sender, _bare(url) as taker:
        kind: common.FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": 1_000}
        sender.ask(commands.Queue.Declare(queue="floor", durable=True, arguments=kind))
        sender.ask(commands.Confirm.Select())
        taker.ask(commands.Basic.Qos(prefetch_count=100))
        taker.ask(commands.Basic.Consume(queue="floor", consumer_tag="1"))
        for _ in range(number):
            time.sleep(pause)
            _one(sender, taker, found)
    return found


def _one(sender: Bare, taker: Bare, found: Floor) -> None:
    began = time.perf_counter()
    sender.publish("floor", PAYLOAD.encode())
    left = {sender.socket, taker.socket}
    while left:
        ready, _, _ = select.select(list(left), [], [], SECONDS)
        if not ready:
            raise Nothing("a bare message did not arrive")
        if taker.socket in ready:
            delivery = taker.read()
            found.brought.append((time.perf_counter() - began) * 1000)
            taker.read(), taker.read()  # its header and its body
            if isinstance(delivery, commands.Basic.Deliver):
                taker.tell(commands.Basic.Ack(delivery.delivery_tag or 0))
        if sender.socket in ready:
            sender.read()
            found.confirmed.append((time.perf_counter() - began) * 1000)
        left.difference_update(ready)
