"""A gateway that is really served, in a thread, and what its streams say."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from backlane import Backlane
from backlane.gateway import gateway


class Live:
    """A served gateway: ask it with `get` and `post`, follow jobs with `stream`."""

    def __init__(self, app: Backlane, **options: Any) -> None:
        self.app = app
        self.gateway = gateway(app, **options)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self._listener.getsockname()[1]
        config = uvicorn.Config(
            self.gateway,
            log_level="warning",
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()

    def stop(self) -> None:
        loop = self.gateway.site.hub._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self.gateway.stop)
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and what the body says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = None if body is None else json.dumps(body)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if sent is not None:
            told["Content-Type"] = "application/json"
        try:
            connection.request(method, path, sent, told)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        known = {name.lower(): value for name, value in answer.getheaders()}
        if "json" in known.get("content-type", ""):
            return answer.status, known, json.loads(text)
        return answer.status, known, text.decode()

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
        return self.ask("GET", path, **headers)

    def stream(self, job: object, **headers: str) -> Stream:
        return Stream(self.port, f"/v1/jobs/{job}/events", headers)


class Stream:
    """One connection to a job's events, read part by part."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{told}\r\n".encode())
        self.answer = http.client.HTTPResponse(self._socket)
        self.answer.begin()

    def part(self) -> dict[str, str]:
        """Return the next part: fields by name; empty at the end. Comments are under ''."""
        fields: dict[str, str] = {}
        while line := self.answer.readline():
            text = line.decode().rstrip("\n")
            if not text:
                return fields
            name, _, value = text.partition(":")
            fields[name] = value.strip()
        return fields

    def event(self) -> dict[str, Any]:
        """Return the data of the next event, or nothing at the end of the stream."""
        while part := self.part():
            if part.get("event") == "change":
                told: dict[str, Any] = json.loads(part["data"])
                assert part["id"] == str(told["revision"])
                return told
        return {}

    def close(self) -> None:
        self.answer.close()
        self._socket.close()


@contextmanager
def live(app: Backlane, **options: Any) -> Iterator[Live]:
    """Serve an application's gateway within the block."""
    made = Live(app, **options)
    made.start()
    try:
        yield made
    finally:
        made.stop()
