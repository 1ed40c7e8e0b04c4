"""The core: everything the client knows to do, as steps that touch nothing.

Each method returns the steps of one call; a runner takes them. The blocking client and
the one for event loops are this core with a runner each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from backlane.client.delivery import Terms, deliver
from backlane.client.event import following
from backlane.client.option import (
    RemoteSendOptions,
    SubmitOptions,
    TuneOptions,
    body_of,
    checked,
    headers_of,
    prefer,
    query_of,
    seconds,
    tuning_of,
)
from backlane.client.pacer import Pacer
from backlane.client.record import (
    Done,
    RemoteMessage,
    RemoteQueueRecord,
    RemoteQueues,
    RemoteRecord,
    Sent,
    read,
    read_messages,
)
from backlane.client.step import Answer, Request, Sleep, Steps
from backlane.errors import BadOption, LeaseLost, ResultTimeout, Unencodable
from backlane.model.ids import new_id, parse_id
from backlane.model.job import State
from backlane.model.retry import Duration

POLL_SECONDS = 20.0  # one long poll: below what proxies allow, who often cut at 30 or 60
WAIT_LIMIT = 60.0  # the gateway waits no longer
LEASE = 30.0
RECEIPTS = 100  # the gateway takes no more at once
JSON = {"Content-Type": "application/json"}


class Submitted(msgspec.Struct, frozen=True):
    """What the gateway answered to a submission."""

    record: RemoteRecord
    pressure: float | None  # of its queue, 0..1


class Settings(msgspec.Struct, frozen=True):
    """How the calls of one client go on trying; see `Terms`."""

    timeout: float
    deadline: float
    attempts: int | None


class Core:
    """The calls of one client, as steps."""

    def __init__(
        self, settings: Settings, pacer: Pacer, wall_ms: Callable[[], int] | None = None
    ) -> None:
        self._settings = settings
        self._pacer = pacer
        self._wall_ms = _wall_ms if wall_ms is None else wall_ms

    # -- jobs --

    def submit(
        self, task: str, arguments: Mapping[str, Any], options: SubmitOptions
    ) -> Steps[Submitted]:
        """Store one call of a task; the id is made here, so that a repetition is no second job."""
        checked(options, SubmitOptions, "submit()")
        given = options.get("id")
        job = uuid.UUID(bytes=new_id(self._wall_ms()) if given is None else parse_id(given))
        body = _encoded({"arguments": arguments, "id": str(job), **body_of(options)})
        wait = min(seconds(options.get("wait", 0), "wait"), WAIT_LIMIT)
        headers = {**JSON, **headers_of(options), **prefer(wait)}
        request = Request("POST", f"/v1/tasks/{_part(task)}/jobs", (), headers, body)
        terms = replace(
            self._terms(options, wait), jobs=(job,), again=f"submit it again with id={str(job)!r}"
        )
        answer = yield from deliver(request, terms, self._pacer)
        return Submitted(read(answer, RemoteRecord), _pressure(answer))

    def record(
        self, job: uuid.UUID, wait: float = 0.0, deadline: float | None = None
    ) -> Steps[RemoteRecord]:
        """Read a job; with `wait`, once it has ended or so many seconds have passed."""
        params = (("wait", f"{wait:.3f}"),) if wait else ()
        terms = self._terms({}, wait)
        if deadline is not None:
            terms = replace(terms, deadline=min(terms.deadline, deadline))
        answer = yield from deliver(Request("GET", _job(job), params), terms, self._pacer)
        return read(answer, RemoteRecord)

    def result(
        self, job: uuid.UUID, timeout: Duration | None, seen: RemoteRecord | None
    ) -> Steps[Any]:
        """Wait for the job to end and return its result; see `RemoteRecord.value`.

        Raises:
            ResultTimeout: it has not ended in time.
        """
        if seen is not None and seen.state is State.SUCCEEDED:
            return seen.value()
        now = self._pacer.now
        ends = None if timeout is None else now() + seconds(timeout, "timeout")
        while True:
            began = now()
            wait = POLL_SECONDS if ends is None else max(0.0, min(POLL_SECONDS, ends - began))
            # A second more than the wait: the answer that it is not over has to arrive, too.
            deadline = None if ends is None else max(0.0, ends - began) + 1.0
            record = yield from self.record(job, wait, deadline)
            if record.state.is_final:
                return record.value()
            if ends is not None and now() >= ends:
                raise ResultTimeout(
                    f"job {job} ({record.task}) is {record.state.value} and has not ended in "
                    f"{timeout}; it goes on, ask again"
                )
            if now() - began < wait / 2:  # a gateway that is going down waits for nobody
                pause = 0.5 + 0.5 * self._pacer.draw()
                yield Sleep(pause if ends is None else min(pause, max(0.0, ends - now())))

    def follow(self, job: uuid.UUID) -> Steps[None]:
        """Emit the job's record now and at each change, up to a final state."""
        headers = {"Accept": "text/event-stream"}
        return following(f"{_job(job)}/events", headers, self._terms({}), self._pacer)

    def cancel(self, job: uuid.UUID) -> Steps[RemoteRecord]:
        return self._amended(job, "cancel")

    def retry(self, job: uuid.UUID) -> Steps[RemoteRecord]:
        return self._amended(job, "retry")

    def _amended(self, job: uuid.UUID, verb: str) -> Steps[RemoteRecord]:
        request = Request("POST", f"{_job(job)}/{verb}")
        answer = yield from deliver(request, self._terms({}), self._pacer)
        return read(answer, RemoteRecord)

    # -- queues --

    def queues(self) -> Steps[list[RemoteQueueRecord]]:
        """Read all queues."""
        request = Request("GET", "/v1/queues")
        answer = yield from deliver(request, self._terms({}), self._pacer)
        return read(answer, RemoteQueues).queues

    def queue(self, name: str) -> Steps[RemoteQueueRecord]:
        """Read one queue."""
        return self._of_queue("GET", name, "")

    def pause(self, name: str) -> Steps[RemoteQueueRecord]:
        return self._of_queue("POST", name, "/pause")

    def resume(self, name: str) -> Steps[RemoteQueueRecord]:
        return self._of_queue("POST", name, "/resume")

    def tune(self, name: str, wanted: TuneOptions) -> Steps[RemoteQueueRecord]:
        """Change a queue's bounds at run time."""
        checked(wanted, TuneOptions, "tune()")
        return self._of_queue("PATCH", name, "", _encoded(tuning_of(wanted)))

    def _of_queue(
        self, method: str, name: str, verb: str, body: bytes | None = None
    ) -> Steps[RemoteQueueRecord]:
        headers = {} if body is None else JSON
        request = Request(method, f"/v1/queues/{_part(name)}{verb}", (), headers, body)
        answer = yield from deliver(request, self._terms({}), self._pacer)
        return read(answer, RemoteQueueRecord)

    # -- messages --

    def send(self, queue: str, body: bytes, options: RemoteSendOptions) -> Steps[uuid.UUID]:
        """Store a message, under a key made here, so that a repetition is no second one."""
        checked(options, RemoteSendOptions, "send()")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise BadOption(f"a message is bytes, and this is {type(body).__name__}; encode it")
        headers = {"Content-Type": "application/octet-stream", **headers_of(options)}
        key = headers.setdefault("Idempotency-Key", str(uuid.uuid4()))
        path = f"/v1/queues/{_part(queue)}/messages"
        request = Request("POST", path, query_of(options), headers, bytes(body))
        again = f"send it again with idempotency_key={key!r}"
        terms = replace(self._terms(options), again=again)
        answer = yield from deliver(request, terms, self._pacer)
        return read(answer, Sent).id

    def receive(
        self, queue: str, most: int, wait: Duration, lease: Duration
    ) -> Steps[list[RemoteMessage]]:
        """Take up to `most` messages; waits up to `wait` for the first."""
        waits = min(seconds(wait, "wait"), WAIT_LIMIT)
        params = (
            ("max", str(most)),
            ("wait", f"{waits:.3f}"),
            ("lease", f"{seconds(lease, 'lease'):.3f}"),
        )
        request = Request("POST", f"/v1/queues/{_part(queue)}/receive", params)
        answer = yield from deliver(request, self._terms({}, waits), self._pacer)
        return read_messages(answer)

    def settle(
        self, queue: str, verb: str, receipts: Iterable[str], **more: float
    ) -> Steps[list[str]]:
        """Ack, release or extend; return the receipts whose lease was lost."""
        if isinstance(receipts, str):
            raise BadOption(f"receipts is one text, {receipts!r:.60}; give a list of receipts")
        given, path = list(receipts), f"/v1/queues/{_part(queue)}/{verb}"
        lost: list[str] = []
        for begin in range(0, len(given), RECEIPTS):
            body = _encoded({"receipts": given[begin : begin + RECEIPTS], **more})
            request = Request("POST", path, (), JSON, body)
            answer = yield from deliver(request, self._terms({}), self._pacer)
            lost += read(answer, Done).lost
        return lost

    def settle_one(self, queue: str, verb: str, receipt: str, **more: float) -> Steps[None]:
        """Like `settle`, of one.

        Raises:
            LeaseLost: its lease had ended, or an earlier try whose answer was lost did it.
        """
        if (yield from self.settle(queue, verb, [receipt], **more)):
            raise LeaseLost(
                f"{verb}: the lease of message {receipt} has ended or went to another receiver; "
                "give it a longer lease, or extend it in time"
            )

    # -- steps of these --

    def _terms(self, options: Mapping[str, Any], wait: float = 0.0) -> Terms:
        own = options.get("deadline")
        # What the gateway was asked to wait is no delay of its own.
        deadline = self._settings.deadline + wait if own is None else seconds(own, "deadline")
        timeout = self._settings.timeout + wait
        return Terms(deadline, timeout, self._settings.attempts, wait)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _part(name: str) -> str:
    """Return a name as one part of a path."""
    if not isinstance(name, str) or not name or name in (".", ".."):
        raise BadOption(f"{name!r} is not a name")
    return quote(name, safe="")


def _job(job: uuid.UUID) -> str:
    return f"/v1/jobs/{job}"


def _encoded(content: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unencodable(
            f"this has no encoding as JSON: {error}; give plain data, dataclasses or structs"
        ) from error


def _pressure(answer: Answer) -> float | None:
    try:
        return float(answer.headers["backlane-pressure"])
    except (KeyError, ValueError):
        return None
