"""AMQP 0-9-1 in a hundred lines: a socket and the codec `pamqp`, and nothing of backlane.

It stands for a program in another language. Whoever writes one uses that language's own
client instead; the names of the queues, the JSON and the header are all that matter.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import base, body, commands, frame, header, heartbeat


class Plain:
    """One connection with one channel, on which messages are confirmed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 5672), timeout=10)
        self._buffer = b""
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(commands.Connection.Start)
        login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
        self._send(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), 0)
        tune = self._expect(commands.Connection.Tune)
        self._send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
        self._send(commands.Connection.Open(unquote(parts.path[1:]) or "/"), 0)
        self._expect(commands.Connection.OpenOk)
        self._send(commands.Channel.Open())
        self._expect(commands.Channel.OpenOk)
        self._send(commands.Confirm.Select())
        self._expect(commands.Confirm.SelectOk)

    def publish(self, queue: str, content: bytes, headers: dict[str, Any], id: str) -> None:  # noqa: A002
        """Publish a message that survives a restart, and wait until the broker has it."""
        properties = commands.Basic.Properties(
            delivery_mode=2, message_id=id, headers=headers, content_type="application/json"
        )
        self._send(commands.Basic.Publish(exchange="", routing_key=queue, mandatory=True))
        self._send(header.ContentHeader(body_size=len(content), properties=properties))
        self._send(body.ContentBody(content))
        answer = self._next()
        if not isinstance(answer, commands.Basic.Ack):
            raise SystemExit(f"the broker has not taken it: {answer.name}; is there such a queue?")

    def get(self, queue: str) -> tuple[bytes, dict[str, Any], int] | None:
        """Return the next message with its headers and its tag; None: there is none."""
        self._send(commands.Basic.Get(queue=queue))
        answer = self._next()
        if isinstance(answer, commands.Basic.GetEmpty):
            return None
        if not isinstance(answer, commands.Basic.GetOk):
            raise SystemExit(f"the broker said {answer.name}; is there a queue {queue!r}?")
        head = self._next()
        content = b""
        while len(content) < head.body_size:
            content += self._next().value
        return content, dict(head.properties.headers or {}), answer.delivery_tag or 0

    def ack(self, tag: int) -> None:
        """Let the broker forget a message."""
        self._send(commands.Basic.Ack(tag))

    def close(self) -> None:
        self._send(commands.Connection.Close(200, "", 0, 0), 0)
        self._socket.close()

    def _send(self, part: Any, channel: int = 1) -> None:
        self._socket.sendall(frame.marshal(part, channel))

    def _expect(self, kind: type[base.Frame]) -> Any:
        got = self._next()
        if not isinstance(got, kind):
            raise SystemExit(f"the broker said {got.name} instead of {kind.name}")
        return got

    def _next(self) -> Any:
        while True:
            length, _, part = frame.unmarshal(self._buffer) if self._whole() else (0, 0, None)
            if part is not None:
                self._buffer = self._buffer[length:]
                if not isinstance(part, heartbeat.Heartbeat):
                    return part
                continue
            more = self._socket.recv(65_536)
            if not more:
                raise SystemExit("the broker has closed the connection")
            self._buffer += more

    def _whole(self) -> bool:
        return len(self._buffer) >= 7 and len(self._buffer) >= 8 + int.from_bytes(self._buffer[3:7])
