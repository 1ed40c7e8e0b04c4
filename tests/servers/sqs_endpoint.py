"""moto's SQS as a program of its own: `python sqs_endpoint.py PORT`.

moto is made for one thread that tests something else: its lists of messages are counted at
each send, replaced while others add to them (which loses messages), and shown to two who
wait at once. So messages stand on a shelf of ours; all else, from the wire to the errors,
is moto's. What SQS does and moto does not is added: characters without a place are
refused, and what was sent within five minutes is known even when it was deleted.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import sys
import threading
import time
import uuid
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid, SQSException
from werkzeug.serving import WSGIRequestHandler, make_server

LONGEST_VISIBILITY = 43_200
DEDUPLICATION_SECONDS = 300

turn = threading.Condition(threading.RLock())
places = itertools.count()


class Shelf:
    """The messages of a queue: ready by place, the others by the time they will be."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, Any]] = []
        self.later: list[tuple[float, int, Any]] = []
        self.by_handle: dict[str, Any] = {}
        self.held: dict[str, int] = {}  # by group
        self.sent: dict[str, float] = {}  # by deduplication id
        self.number = 0

    def add(self, message: Any) -> None:
        key, now = message.deduplication_id, time.time()
        if key is not None:
            if now - self.sent.get(key, 0.0) < DEDUPLICATION_SECONDS:
                return
            self.sent[key] = now
        message.place, message.is_gone, message.is_held = next(places), False, False
        self.number += 1
        self.put(message, message.delayed_until / 1000)

    def put(self, message: Any, at: float) -> None:
        message.at = at
        if at <= time.time():
            heapq.heappush(self.ready, (message.place, message))
        else:
            heapq.heappush(self.later, (at, message.place, message))
        turn.notify_all()

    def ripen(self) -> float | None:
        """Bring in what may be seen again; return when there will be more."""
        while self.later:
            at, _, message = self.later[0]
            if not message.is_gone and message.at == at:
                if at > time.time():
                    return at
                self.let_go(message)
                heapq.heappush(self.ready, (message.place, message))
            heapq.heappop(self.later)
        return None

    def take(self, count: int, visibility: int, queue: Any) -> list[Any]:
        self.ripen()
        taken: list[Any] = []
        aside: list[tuple[int, Any]] = []
        before = set(self.held) if queue.fifo_queue else set()
        while self.ready and len(taken) < count:
            place, message = heapq.heappop(self.ready)
            if message.is_gone or message.at > time.time():
                continue
            if message.group_id in before:
                aside.append((place, message))
                continue
            policy = queue.redrive_policy
            if policy and message.approximate_receive_count >= int(policy["maxReceiveCount"]):
                message.is_gone = True
                self.number -= 1
                moved = copy.copy(message)
                moved.deduplication_id = None
                queue.dead_letter_queue.add_message(moved)
                continue
            taken.append(self.show(message, visibility))
        for one in aside:
            heapq.heappush(self.ready, one)
        return taken

    def show(self, message: Any, visibility: int) -> Any:
        now = time.time()
        message.approximate_receive_count += 1
        if message.approximate_first_receive_timestamp is None:
            message.approximate_first_receive_timestamp = int(now * 1000)
        message.receipt_handle = uuid.uuid4().hex
        self.by_handle[message.receipt_handle] = message
        if visibility:
            message.is_held = True
            group = message.group_id
            self.held[group] = self.held.get(group, 0) + 1
        self.put(message, now + visibility)
        return copy.copy(message)

    def find(self, handle: str) -> Any:
        message = self.by_handle.get(handle)
        if message is None:
            raise ReceiptHandleIsInvalid
        return message

    def delete(self, handle: str) -> None:
        message = self.find(handle)
        if not message.is_gone:
            message.is_gone = True
            self.number -= 1
            self.let_go(message)

    def change(self, handle: str, seconds: int) -> None:
        message = self.find(handle)
        since = message.approximate_first_receive_timestamp / 1000
        if message.is_gone or time.time() + seconds - since > LONGEST_VISIBILITY:
            raise ReceiptHandleIsInvalid  # the one error that moto tells of one entry alone
        if message.receipt_handle == handle and message.is_held:
            if not seconds:
                self.let_go(message)
            self.put(message, time.time() + seconds)

    def let_go(self, message: Any) -> None:
        if message.is_held:
            message.is_held = False
            self.held[message.group_id] -= 1
            if not self.held[message.group_id]:
                del self.held[message.group_id]
            turn.notify_all()

    def counts(self) -> tuple[int, int, int]:
        self.ripen()
        held = sum(self.held.values())
        later = [it for at, _, it in self.later if it.at == at and not it.is_gone]
        delayed = sum(not it.is_held for it in later)
        return self.number - held - delayed, held, delayed


def shelf(queue: Any) -> Shelf:
    found: Shelf | None = queue.__dict__.get("shelf")
    if found is None:
        found = queue.__dict__["shelf"] = Shelf()
    return found


def add(self: Any, message: Any) -> None:
    with turn:
        shelf(self).add(message)


def receive(
    self: Any, name: str, count: int, wait: int, visible: int, names: list[str] | None = None
) -> Any:
    end = time.time() + wait
    with turn:
        while True:
            queue = self.get_queue(name)
            found = shelf(queue).take(count, visible, queue)
            left = end - time.time()
            if found or left <= 0:
                break
            ripe = shelf(queue).ripen()
            turn.wait(left if ripe is None else max(0.001, min(left, ripe - time.time())))
    for message in found:
        models._filter_message_attributes(message, names or [])
    return found


def delete(self: Any, queue_name: str, receipt_handle: str) -> None:
    with turn:
        shelf(self.get_queue(queue_name)).delete(receipt_handle)


def change(self: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
    with turn:
        shelf(self.get_queue(queue_name)).change(receipt_handle, int(visibility_timeout))


purge_by_moto = models.SQSBackend.purge_queue


def purge(self: Any, queue_name: str) -> None:
    with turn:
        purge_by_moto(self, queue_name)
        self.get_queue(queue_name).__dict__["shelf"] = Shelf()


validate_by_moto = models.SQSBackend._validate_message


def validate(self: Any, queue: Any, message_body: str, *args: Any, **kwargs: Any) -> None:
    if any((ord(it) < 32 and it not in "\t\n\r") or it in "\ufffe\uffff" for it in message_body):
        raise SQSException("InvalidMessageContents", "characters outside of the allowed set")
    validate_by_moto(self, queue, message_body, *args, **kwargs)


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as by the real one

    def log_request(self, *args: object, **kwargs: object) -> None:
        """Say nothing."""


def in_turn(name: str) -> None:
    """Let others wait: moto goes through its queues while they become more."""
    original = getattr(models.SQSBackend, name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with turn:
            return original(self, *args, **kwargs)

    setattr(models.SQSBackend, name, call)


def mend() -> None:
    for name in ("create_queue", "delete_queue", "list_queues", "set_queue_attributes"):
        in_turn(name)
    models.Queue.add_message = add
    models.SQSBackend.receive_message = receive
    models.SQSBackend.delete_message = delete
    models.SQSBackend.change_message_visibility = change
    models.SQSBackend.purge_queue = purge
    models.SQSBackend._validate_message = validate
    names = ("", "_not_visible", "_delayed")
    for at, name in enumerate(names):
        counted = property(lambda self, at=at: shelf(self).counts()[at])
        setattr(models.Queue, f"approximate_number_of_messages{name}", counted)
    attributes = models.Queue.attributes

    def cheaply(self: Any) -> Any:
        """What a send asks of a queue is whether it deduplicates by content."""
        if sys._getframe(1).f_code.co_name in ("send_message", "_validate_message"):
            return {"ContentBasedDeduplication": self.content_based_deduplication}
        with turn:
            return attributes.fget(self)

    models.Queue.attributes = property(cheaply)


def main() -> None:
    mend()
    app = DomainDispatcherApplication(create_backend_app)
    make_server(
        "127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=Handler
    ).serve_forever()


if __name__ == "__main__":
    main()
