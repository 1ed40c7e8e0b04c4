"""Bad options of workers, and uses of the library where it cannot work."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import apsw
from tests.bad_input.book import Bad, World

from backlane import (
    Backlane,
    BadOption,
    JobNotFound,
    LeaseLost,
    NotSupported,
    ResultTimeout,
    UnknownQueue,
    WrongUse,
)
from backlane.testing import testing
from backlane.worker import Worker
from backlane.worker.supervisor import Supervisor

BELOW_ONE = [0, -1, "5", True, float("nan"), [1]]

OPTIONS: dict[str, tuple[Callable[..., object], list[Any]]] = {
    "concurrency": (Worker, BELOW_ONE),
    "exclusive": (Worker, BELOW_ONE),
    "lease": (Worker, BELOW_ONE),
    "grace": (Worker, [-1, "5", float("nan"), [1]]),
    "queues": (Worker, ["mail", 3, [3]]),
}

SUPERVISED: dict[str, list[Any]] = {
    "processes": BELOW_ONE,
    "concurrency": BELOW_ONE,
    "exclusive": BELOW_ONE,
    "lease": BELOW_ONE,
    "grace": [-1, "5", float("nan"), [1]],
}


def options() -> Iterator[Bad]:
    for name, (make, values) in OPTIONS.items():
        for value in values:
            yield Bad(
                f"Worker({name}={value!r})",
                lambda world, make=make, it={name: value}: make(world.app, **it),
                BadOption,
            )
    for name, values in SUPERVISED.items():
        for value in values:
            yield Bad(
                f"Supervisor({name}={value!r})",
                lambda world, it={name: value}: Supervisor("shop:app", **it),
                BadOption,
            )
    for app in ("shop:app", None, 3):
        yield Bad(f"Worker({app!r})", lambda world, it=app: Worker(it), BadOption)


def uses() -> Iterator[Bad]:
    """Yield calls that are right elsewhere."""
    yield Bad("a worker of a queue that is not declared", _serving_another_queue, UnknownQueue)
    yield Bad("waiting for a result inside a loop", _waiting_in_a_loop, WrongUse)
    yield Bad("waiting for a message inside a loop", _receiving_in_a_loop, WrongUse)
    yield Bad("a result that does not come", _waiting, ResultTimeout)
    yield Bad("a job that is not stored", _looking_for_nothing, JobNotFound)
    yield Bad("messages of a queue that holds tasks", _messages_of_tasks, WrongUse)
    yield Bad("a task of a queue that holds messages", _task_of_messages, WrongUse)
    yield Bad("a receipt whose lease is over", _acking_twice, LeaseLost)
    yield Bad("waiting under testing", _waiting_under_testing, WrongUse)
    yield Bad("a connection of sqlite3", _joining(lambda path: sqlite3.connect(path)), REFUSED)
    yield Bad("a connection to another file", _joining(_elsewhere), REFUSED)
    yield Bad("a connection without a transaction", _joining(apsw.Connection), REFUSED)
    yield Bad("a connection that is none", _joining(lambda path: 3), REFUSED)


REFUSED = (WrongUse, BadOption, NotSupported)


def _serving_another_queue(world: World) -> object:
    with Worker(world.app, queues=["nosuch"]):
        return None


def _waiting_in_a_loop(world: World) -> object:
    job = world.good.enqueue(1)

    async def wait() -> object:
        return job.result(timeout=1)

    return asyncio.run(wait())


def _receiving_in_a_loop(world: World) -> object:
    async def wait() -> object:
        return world.app.messages("orders").receive(wait=1)

    return asyncio.run(wait())


def _waiting(world: World) -> object:
    return world.good.enqueue(1).result(timeout=0)


def _looking_for_nothing(world: World) -> object:
    return world.app.job("01900000-0000-7000-8000-000000000000")


def _messages_of_tasks(world: World) -> object:
    return world.app.messages("default")


def _task_of_messages(world: World) -> object:
    world.app.messages("orders")
    return world.good.using(queue="orders")


def _acking_twice(world: World) -> object:
    orders = world.app.messages("orders")
    orders.send(b"x")
    (message,) = orders.receive()
    message.ack()
    return message.ack()


def _waiting_under_testing(world: World) -> object:
    with testing(world.app):
        return world.good.enqueue(1).result()


def _elsewhere(path: str) -> apsw.Connection:
    connection = apsw.Connection(path + ".other")
    connection.execute("begin immediate")
    return connection


def _joining(connect: Callable[[str], object]) -> Callable[[World], object]:
    def call(world: World) -> object:
        path = str(world.folder / "joined.db")
        with Backlane(f"sqlite:///{path}") as app:
            app.messages("orders").send(b"makes the file")
            return app.messages("orders").send(b"x", connection=connect(path))

    return call


def cases() -> Iterator[Bad]:
    """Yield every case of this file."""
    yield from options()
    yield from uses()
