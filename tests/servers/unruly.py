"""A proxy before an SQS endpoint that does what SQS may do, and what networks do.

It shows messages twice and out of turn, throttles, fails parts of a batch, is slow, and
cuts connections. Its faults are plain fields, for any thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit, urlunsplit

Json = dict[str, Any]


@dataclass
class Unruly:
    """The way to one endpoint, and what goes wrong on it. Shares are of one."""

    to: tuple[str, int]
    twice: float = 0.0  # share of messages that are there twice
    late: float = 0.0  # share of messages that come up to 2 s late, and so out of turn
    is_shuffled: bool = False  # batches are mixed, both ways
    failing: float = 0.0  # share of the entries of a batch that fail, for no fault of theirs
    throttled: float = 0.0  # share of calls that are declined
    throttle_next: int = 0  # so many calls are declined
    status: int = 403  # of a declined call: RequestThrottled; or 503
    delay: float = 0.0  # seconds that each call takes more
    lost_answers: int = 0  # so many calls are carried out, and their connection is cut
    lost_requests: int = 0  # so many calls are not, and their connection is cut
    bad_digests: int = 0  # so many sends are answered with another digest
    answers: tuple[int, str, str] | None = None  # status, code and text of all calls' answer
    hours_off: int = 0  # of its clock
    only: str = ""  # faults are for this action alone
    calls: Counter[str] = field(default_factory=Counter)
    sent: int = 0  # messages that were to be sent, not counting those that are added here
    # Told of each call, before it is forwarded ("asked") and before it is answered ("done"),
    # with the number of messages in it.
    watch: Callable[[str, str, int], None] | None = None
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    random: random.Random = field(default_factory=lambda: random.Random(5))

    def before(self, url: str) -> str:
        """Return the URL with this proxy in the place of the endpoint."""
        parts = urlsplit(url)
        who, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{self.port}"))

    def chance(self, share: float) -> bool:
        with self.lock:
            return self.random.random() < share

    def count_down(self, name: str) -> bool:
        with self.lock:
            left: int = getattr(self, name)
            if left > 0:
                setattr(self, name, left - 1)
            return left > 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    unruly: Unruly

    def do_POST(self) -> None:
        unruly = self.unruly
        body = self.rfile.read(int(self.headers["Content-Length"]))
        action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        with unruly.lock:
            unruly.calls[action] += 1
        is_hit = not unruly.only or unruly.only == action
        if is_hit:
            time.sleep(unruly.delay)
            if unruly.count_down("lost_requests"):
                return self.cut()
            if unruly.answers is not None:
                return self.decline(*unruly.answers)
            if unruly.count_down("throttle_next") or unruly.chance(unruly.throttled):
                return self.decline()
        request: Json = json.loads(body or b"{}")
        if unruly.watch is not None:
            unruly.watch(action, "asked", len(request.get("Entries", ())))
        failed = self.spoil(action, request) if is_hit else []
        status, headers, answer = self.forward(json.dumps(request).encode(), action)
        if is_hit and unruly.count_down("lost_answers"):
            return self.cut()
        if status == 200 and answer:
            said = json.loads(answer)
            self.judge(action, said, failed)
            if unruly.watch is not None:
                number = len(said.get("Messages", ())) + len(said.get("Successful", ()))
                unruly.watch(action, "done", number)
            answer = json.dumps(said).encode()
        return self.answer(status, headers, answer)

    # -- what goes wrong --

    def spoil(self, action: str, request: Json) -> list[str]:
        """Change a request; return the ids of the entries that are to fail."""
        unruly = self.unruly
        entries: list[Json] = request.get("Entries", [])
        if not action.endswith("Batch") or not entries:
            return []
        failed = [it["Id"] for it in entries if unruly.chance(unruly.failing)]
        if len(failed) == len(entries):
            failed.pop()  # an empty batch would be the proxy's own fault
        entries[:] = [it for it in entries if it["Id"] not in failed]
        if action == "SendMessageBatch":
            self.send(request, entries)
        return failed

    def send(self, request: Json, entries: list[Json]) -> None:
        unruly = self.unruly
        for entry in entries:
            with unruly.lock:
                unruly.sent += 1
            if "MessageDeduplicationId" not in entry and unruly.chance(unruly.late):
                entry["DelaySeconds"] = unruly.random.randint(1, 2)
        if unruly.is_shuffled:
            unruly.random.shuffle(entries)
        copies = [dict(it) for it in entries if unruly.chance(unruly.twice)]
        for copy in copies:
            if "MessageDeduplicationId" in copy:
                copy["MessageDeduplicationId"] += "-again"
            else:
                copy["DelaySeconds"] = unruly.random.randint(0, 2)
        if copies:
            self.forward(json.dumps(request | {"Entries": copies}).encode(), "SendMessageBatch")

    def judge(self, action: str, said: Json, failed: list[str]) -> None:
        unruly = self.unruly
        if failed:
            said.setdefault("Failed", []).extend(
                {"Id": it, "SenderFault": False, "Code": "InternalError", "Message": "a bad day"}
                for it in failed
            )
        if unruly.is_shuffled and said.get("Messages"):
            unruly.random.shuffle(said["Messages"])
        taken = said.get("Successful") if action == "SendMessageBatch" else None
        if taken and unruly.count_down("bad_digests"):
            taken[0]["MD5OfMessageBody"] = "0" * 32

    # -- the way --

    def forward(self, body: bytes, action: str) -> tuple[int, list[tuple[str, str]], bytes]:
        call = http.client.HTTPConnection(*self.unruly.to, timeout=40)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("content-length", "connection", "host")
        }
        try:
            call.request("POST", "/", body, headers)
            answer = call.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except OSError:
            return 500, [], b""
        finally:
            call.close()

    def decline(self, status: int = 0, code: str = "", text: str = "Rate exceeded") -> None:
        status = status or self.unruly.status
        code = code or ("RequestThrottled" if status == 403 else "ServiceUnavailable")
        said = {"__type": f"com.amazonaws.sqs#{code}", "message": text}
        self.answer(status, [], json.dumps(said).encode())

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() == "date" and self.unruly.hours_off:
                    value = formatdate(time.time() + 3600 * self.unruly.hours_off, usegmt=True)
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.close()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: object) -> None:
        """Who is cut off says so in the test."""


@contextlib.contextmanager
def unruly(url: str) -> Iterator[Unruly]:
    """Put a proxy before the endpoint of a URL, for as long as the block lasts."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    made = Unruly((parts.hostname, parts.port or 80))
    handler = type("Handler", (Handler,), {"unruly": made})
    server = Server(("127.0.0.1", 0), handler)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
