"""moto's SQS as a program of its own: `python sqs_endpoint.py PORT`.

moto is made for one thread that tests something else. Three things are mended for many:
its lists are replaced while others add to them, which loses messages; its long poll shows
one message to two who wait; and it goes round without rest while a group is busy.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs import models
from moto.sqs.exceptions import SQSException
from werkzeug.serving import WSGIRequestHandler, make_server

LOOK_SECONDS = 0.05  # between looks at what has become visible again; what is sent rings
turn = threading.Condition(threading.RLock())


def in_turn(name: str) -> None:
    """One call at a time; who polls looks again after it."""
    original = getattr(models.SQSBackend, name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with turn:
            try:
                return original(self, *args, **kwargs)
            finally:
                turn.notify_all()

    setattr(models.SQSBackend, name, call)


receive_once = models.SQSBackend.receive_message
send_one = models.SQSBackend.send_message


def receive(
    self: Any, queue: str, count: int, wait: int, visible: int, names: list[str] | None = None
) -> Any:
    end = time.monotonic() + wait
    with turn:
        while True:
            found = receive_once(self, queue, count, 0, visible, names)
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            turn.wait(min(left, LOOK_SECONDS))


def send(self: Any, queue: str, body: str, *args: Any, **kwargs: Any) -> Any:
    """As SQS does, and moto does not: it has no place for some characters."""
    if any(ord(sign) < 32 and sign not in "\t\n\r" or sign in "\ufffe\uffff" for sign in body):
        code = "InvalidMessageContents"
        raise SQSException(code, "The message contains characters outside the allowed set.")
    return send_one(self, queue, body, *args, **kwargs)


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as by the real one

    def log_request(self, *args: object, **kwargs: object) -> None:
        """Say nothing."""


def main() -> None:
    models.SQSBackend.send_message = send
    models.SQSBackend.receive_message = receive
    for name in (
        *("send_message_batch", "delete_message_batch", "change_message_visibility"),
        *("create_queue", "delete_queue", "purge_queue", "get_queue_attributes"),
    ):
        in_turn(name)
    app = DomainDispatcherApplication(create_backend_app)
    make_server(
        "127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=Handler
    ).serve_forever()


if __name__ == "__main__":
    main()
