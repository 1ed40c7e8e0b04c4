"""The blocking client: for scripts, threads and frameworks without an event loop.

    with Client("http://localhost:8000", token=token) as client:
        job = client.submit("shop.resize", {"path": "cat.png"})
        print(job.result(timeout=30))

One client keeps its connections and its measure (retry budget, throttle) for all its
calls: make one for a process and share it. Any thread may use it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from backlane.client.connection import DEADLINE, TIMEOUT, core_of, http_of
from backlane.client.core import LEASE, Core, Submitted
from backlane.client.option import RemoteSendOptions, SubmitOptions, TuneOptions, seconds
from backlane.client.record import RemoteMessage, RemoteQueueRecord, RemoteRecord
from backlane.client.runner import BlockingRunner
from backlane.model.ids import parse_id
from backlane.model.job import State
from backlane.model.retry import Duration


class Client:
    """A gateway as a blocking program sees it.

    Args:
        url: the gateway's address, with the path at which it is mounted, if any.
        token: a token that `backlane token add` made, if the gateway wants one.
        timeout: seconds for one try, without what it is asked to wait.
        deadline: seconds for one call: its tries and the waits between them.
        attempts: the most tries of one call; None: as many as fit before the deadline.
        transport: how httpx2 is to connect, where not as usual (proxies, certificates).

    Raises:
        BadOption: a value cannot work.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: Duration = TIMEOUT,
        deadline: Duration = DEADLINE,
        attempts: int | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._core = core_of(timeout, deadline, attempts)
        self._http = httpx2.Client(**http_of(url, token), transport=transport)
        self._runner = BlockingRunner(self._http)

    def __repr__(self) -> str:
        return f"<Client {self._http.base_url}>"

    # -- jobs --

    def submit(
        self, task: str, arguments: Mapping[str, Any] = {}, **options: Unpack[SubmitOptions]
    ) -> RemoteJob:
        """Store one call of a task, its arguments given by name, and return the grip on it.

        The job's id is made here and sent with every try, so that a lost answer never
        makes two jobs. A full queue is waited for as long as it says, until the deadline.

        Raises:
            QueueFull: there is no room before the deadline.
            BadArguments, UnknownTask, BadOption, UnknownOption: it cannot work.
            KeyReused: the idempotency key came before with another submission.
            Unauthorized, Forbidden: the token does not open this.
            OutcomeUnknown: it may be stored; submit again with the same id.
            GatewayUnavailable: no usable answer came until the deadline.
        """
        submitted = self._runner.run(self._core.submit(task, arguments, options))
        return RemoteJob(submitted.record.id, self._core, self._runner, submitted)

    def job(self, job_id: uuid.UUID | str) -> RemoteJob:
        """Return the grip on a job by its id; nothing is read yet.

        Raises:
            BadOption: this is not a job's id.
        """
        return RemoteJob(uuid.UUID(bytes=parse_id(job_id)), self._core, self._runner)

    # -- queues --

    def queues(self) -> list[RemoteQueueRecord]:
        """Read all queues that the token may read."""
        return self._runner.run(self._core.queues())

    def queue(self, name: str) -> RemoteQueue:
        """Return the grip on a queue of tasks or messages, to look at, pause or tune it."""
        return RemoteQueue(name, self._core, self._runner)

    def messages(self, name: str) -> RemoteMessages:
        """Return the message queue of that name."""
        return RemoteMessages(name, self._core, self._runner)

    # -- closing --

    def close(self) -> None:
        """Close the connections. A closed client is of no further use."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RemoteJob:
    """A job behind the gateway.

    It holds the job's id and what was told when it was submitted; each property reads
    the gateway once, and `record()` reads all at once.

    .. versionadded:: 0.1
    """

    __slots__ = ("_core", "_runner", "_submitted", "id")

    def __init__(
        self,
        job: uuid.UUID,
        core: Core,
        runner: BlockingRunner,
        submitted: Submitted | None = None,
    ) -> None:
        self.id = job
        self._core, self._runner, self._submitted = core, runner, submitted

    def __repr__(self) -> str:
        return f"<RemoteJob {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteJob) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def submitted(self) -> RemoteRecord | None:
        """What the gateway told at the submission; None of a job that was found by its id."""
        return None if self._submitted is None else self._submitted.record

    @property
    def pressure(self) -> float | None:
        """How full its queue was at the submission, 0 to 1."""
        return None if self._submitted is None else self._submitted.pressure

    @property
    def expected_wait(self) -> float | None:
        """Seconds until a worker takes it, as expected at the submission; None: not known."""
        return None if self._submitted is None else self._submitted.record.expected_wait

    def record(self) -> RemoteRecord:
        """Read all that is known of the job now.

        Raises:
            JobNotFound: it is not stored, or its history has been pruned.
        """
        return self._runner.run(self._core.record(self.id))

    @property
    def state(self) -> State:
        return self.record().state

    def result(self, timeout: Duration | None = None) -> Any:
        """Wait for the job to end and return its result, as plain data.

        Without a timeout it waits as long as it takes. A timeout of 0 reads once.

        Raises:
            ResultTimeout: it has not ended in time; it goes on, and can be asked again.
            JobFailed, JobCancelled, JobExpired, ResultGone: there is no result.
            JobNotFound: it is not stored.
        """
        return self._runner.run(self._core.result(self.id, timeout, self.submitted))

    def events(self) -> Iterator[RemoteRecord]:
        """Yield the job's record now and at each change, up to a final state.

        A stream that breaks is opened anew and goes on where it stopped.

        Raises:
            JobNotFound: it is not stored.
            GatewayUnavailable: nothing came for as long as a call's deadline.
        """
        return self._runner.follow(self._core.follow(self.id))

    def cancel(self) -> RemoteRecord:
        """Cancel the job: at once while it waits, by asking it to stop while it runs."""
        return self._runner.run(self._core.cancel(self.id))

    def retry(self) -> RemoteRecord:
        """Redrive the job: a dead letter becomes ready again."""
        return self._runner.run(self._core.retry(self.id))


class RemoteQueue:
    """A queue behind the gateway.

    .. versionadded:: 0.1
    """

    __slots__ = ("_core", "_runner", "name")

    def __init__(self, name: str, core: Core, runner: BlockingRunner) -> None:
        self.name, self._core, self._runner = name, core, runner

    def __repr__(self) -> str:
        return f"<RemoteQueue {self.name}>"

    def record(self) -> RemoteQueueRecord:
        """Read what is known of the queue now.

        Raises:
            UnknownQueue: there is none of that name.
        """
        return self._runner.run(self._core.queue(self.name))

    def pause(self) -> RemoteQueueRecord:
        """Let no worker claim from it; running jobs go on."""
        return self._runner.run(self._core.pause(self.name))

    def resume(self) -> RemoteQueueRecord:
        """Let workers claim from it again."""
        return self._runner.run(self._core.resume(self.name))

    def tune(self, **wanted: Unpack[TuneOptions]) -> RemoteQueueRecord:
        """Change its bounds while it runs: `max_jobs`, `max_bytes`, `max_wait`, `group_share`.

        A `max_wait` of None lifts it. `reset=True` goes back to what is declared.
        """
        return self._runner.run(self._core.tune(self.name, wanted))


class RemoteMessages:
    """A message queue behind the gateway: its messages are bytes.

    .. versionadded:: 0.1
    """

    __slots__ = ("_core", "_runner", "name")

    def __init__(self, name: str, core: Core, runner: BlockingRunner) -> None:
        self.name, self._core, self._runner = name, core, runner

    def __repr__(self) -> str:
        return f"<RemoteMessages {self.name}>"

    def send(self, body: bytes, **options: Unpack[RemoteSendOptions]) -> uuid.UUID:
        """Store a message and return its id; see `Client.submit`."""
        return self._runner.run(self._core.send(self.name, body, options))

    def receive(
        self,
        max: int = 1,  # noqa: A002 - as `messages.receive`
        wait: Duration = 0,
        lease: Duration = LEASE,
    ) -> list[RemoteMessage]:
        """Take up to `max` messages, and wait up to `wait` (60 s at most) for the first.

        Each is leased for `lease`: it is delivered again unless it is acked by then. One
        whose answer is lost on the way is delivered again, too.
        """
        return self._runner.run(self._core.receive(self.name, max, wait, lease))

    def ack(self, receipt: str) -> None:
        """Say that a message is done with: it is not delivered again.

        Raises:
            LeaseLost: its lease has ended or went to another. After a try whose answer was
                lost, it may also be that the message was acked by that one.
        """
        self._runner.run(self._core.settle_one(self.name, "ack", receipt))

    def ack_many(self, receipts: Iterable[str]) -> list[str]:
        """Ack many at once; return the receipts whose lease was lost."""
        return self._runner.run(self._core.settle(self.name, "ack", receipts))

    def release(self, receipt: str, delay: Duration = 0) -> None:
        """Give a message back, to be delivered again after `delay`; see `ack`."""
        after = seconds(delay, "delay")
        self._runner.run(self._core.settle_one(self.name, "release", receipt, delay=after))

    def extend(self, receipt: str, by: Duration = LEASE) -> None:
        """Move the end of a message's lease to now + `by`; see `ack`."""
        more = seconds(by, "by")
        self._runner.run(self._core.settle_one(self.name, "extend", receipt, by=more))
