"""A shop: an application whose orders and jobs are in one PostgreSQL database."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
from tests.servers import postgres
from tests.servers.missing import Missing, give_up

from backlane import Backlane, JobNotFound, Queue, UnknownQueue
from backlane.handle import JobHandle

_orders = itertools.count(1)


class Shop:
    """Orders, and the task that confirms them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.app = Backlane(url, queues=[Queue("mail", max_jobs=5_000), Queue("few", max_jobs=3)])
        self.watcher = psycopg.connect(url, autocommit=True)
        self.watcher.execute("create table if not exists shop_order (number integer primary key)")
        self.confirm = self.app.task(name="confirm", queue="mail")(_confirm)

    def number(self) -> int:
        """Return the number of an order that nobody has."""
        return next(_orders)

    def has(self, number: int) -> bool:
        """Whether an order was kept."""
        found = self.watcher.execute("select 1 from shop_order where number = %s", [number])
        return found.fetchone() is not None

    def exists(self, job: JobHandle[Any] | uuid.UUID) -> bool:
        """Whether anybody else can see a job."""
        try:
            self.app.job(job if isinstance(job, uuid.UUID) else job.id)
        except JobNotFound:
            return False
        return True

    def depth(self, queue: str = "mail") -> int:
        """How many jobs its counters say it holds."""
        try:
            return self.app.queue(queue).record().depth.jobs
        except UnknownQueue:  # whoever made it rolled back
            return 0

    def close(self) -> None:
        self.watcher.close()
        self.app.close()


def _confirm(number: int) -> int:
    return number


ORDER = "insert into shop_order values (%s)"


@contextlib.contextmanager
def opened() -> Iterator[Shop]:
    """Open a shop in a database of its own; skip the test where there is no server."""
    with contextlib.ExitStack() as held:
        try:
            url = held.enter_context(postgres.database())
        except Missing as why:
            give_up("joining on PostgreSQL", why)
        shop = Shop(url)
        held.callback(shop.close)
        yield shop
