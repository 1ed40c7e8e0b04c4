"""The link: clients and threads of one transport, made at first use, and calls through them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from backlane.engine.transports.sqs.address import Address
from backlane.engine.transports.sqs.client import Client, connect
from backlane.engine.transports.sqs.hands import Hands
from backlane.engine.transports.sqs.pace import Pace
from backlane.engine.transports.sqs.trouble import Kind, Trouble, trouble_of

T = TypeVar("T")

CALLS = 16  # calls at a time that wait for nothing; botocore's own work is one core's anyway
# Queues that are waited at, at a time. More take turns of a second: 200 queues, each with its
# lane for what runs alone, cost 60 requests a second by 64 threads, and jobs waited for up to
# 6 s; by a thread each they cost 20 requests and 15 MB, and jobs wait for nothing.
POLLS = 512


class Link:
    """The way to one endpoint."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pace = Pace()
        self.is_closed = False  # what comes now is given back
        self.is_over = False
        self.calls = Hands("backlane-sqs-call", CALLS)
        self.polls = Hands("backlane-sqs-poll", POLLS)
        self._tasks: set[asyncio.Future[Any]] = set()
        self._lock = threading.Lock()
        self._caller: Client | None = None
        self._poller: Client | None = None

    def keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start what nobody waits for; the loop alone would let it be collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def run(self, work: Callable[[Client], T]) -> asyncio.Future[T]:
        """Carry out calls that wait for nothing."""
        return self.calls.start(lambda: work(self._for_calls()))

    def poll(self, work: Callable[[Client], T]) -> asyncio.Future[T]:
        """Carry out calls that wait at the other end."""
        return self.polls.start(lambda: work(self._for_polls()))

    async def call(
        self, action: str, queue: str | None, until: float, **request: object
    ) -> Mapping[str, Any]:
        """Make one call, by a time of the loop.

        Raises:
            Trouble: it failed, or gave no answer in time. A throttled one is counted.
        """
        method = METHODS[action]

        def work(client: Client) -> Mapping[str, Any]:
            try:
                answer: Mapping[str, Any] = getattr(client, method)(**request)
            except Exception as error:
                raise trouble_of(error, action, queue, self.address) from error
            return answer

        if self.is_over:
            raise Trouble(Kind.AWAY, f"{self.address.place}: {action}: the transport is closed")
        left = until - asyncio.get_running_loop().time()
        try:
            answer = await asyncio.wait_for(self.run(work), max(left, 0.001))
        except TimeoutError:
            raise Trouble(
                Kind.DOUBT,
                f"{self.address.place}: no answer to {action} of queue {queue!r} in time",
            ) from None
        except Trouble as trouble:
            if trouble.kind is Kind.THROTTLED:
                self.pace.throttled()
            raise
        self.pace.went_well()
        return answer

    def close(self) -> None:
        self.is_closed = self.is_over = True
        self.calls.close()
        self.polls.close()
        with self._lock:
            clients = [it for it in (self._caller, self._poller) if it is not None]
            self._caller = self._poller = None
        for client in clients:
            client.close()  # connections that are in use end with their calls

    def _for_calls(self) -> Client:
        with self._lock:
            if self._caller is None:
                self._caller = self._connect(CALLS)
            return self._caller

    def _for_polls(self) -> Client:
        with self._lock:
            if self._poller is None:
                self._poller = self._connect(POLLS, self.address.wait)
            return self._poller

    def _connect(self, threads: int, wait: float = 0.0) -> Client:
        try:
            return connect(self.address, threads=threads, wait=wait)
        except ImportError:
            raise
        except Exception as error:
            raise trouble_of(error, "the set-up", None, self.address) from error


METHODS = {
    "SendMessage": "send_message_batch",
    "ReceiveMessage": "receive_message",
    "DeleteMessage": "delete_message_batch",
    "ChangeMessageVisibility": "change_message_visibility_batch",
    "GetQueueAttributes": "get_queue_attributes",
    "PurgeQueue": "purge_queue",
    "ListQueues": "list_queues",
}
