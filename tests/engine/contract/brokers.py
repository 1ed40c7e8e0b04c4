"""The brokered engines that the contract is run against: a transport before a ledger."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tests.engine.contract.engines import MEMORY, POSTGRES, SQLITE, Maker
from tests.engine.contract.resting import EXTENT, Counting, Resting
from tests.servers import rabbitmq, sqs
from tests.servers.missing import Missing, give_up

from backlane.engine.brokered import Brokered
from backlane.engine.connect import connect
from backlane.engine.offering import Ledger
from backlane.engine.protocol import Engine
from backlane.engine.transport import Transport
from backlane.engine.transports import loop, rabbit
from backlane.engine.transports import sqs as sqs_transport
from backlane.engine.transports.memory import MemoryBroker
from backlane.model.clock import Clock

# Each test has queues of its own, on brokers that may be another's as well.
_run = f"t{uuid.uuid4().hex[:8]}-"
_numbers = itertools.count()

Broker = Callable[[], AbstractContextManager[Transport]]


@dataclass(frozen=True)
class BrokeredMaker:
    """How to get an empty ledger with an empty broker before it. See `engines.Maker`."""

    name: str
    broker: Broker  # raises Missing where there is no such broker here
    ledger: Maker

    @contextlib.contextmanager
    def opened(self, folder: Path, clock: Clock) -> Iterator[Engine]:
        with self.ledger.place(folder, clock) as url, self._lent() as transport:
            counting = Counting(transport)
            ledger = cast("Ledger", connect(url, clock))
            engine = Brokered(counting, ledger, prefix=f"{_run}{next(_numbers)}", extent=EXTENT)
            try:
                yield Resting(engine, counting)
            finally:
                engine.close()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Transport]:
        """Lend a broker; skip the test (fail it, in CI) naming what is missing."""
        lent = self.broker()
        try:
            transport = lent.__enter__()
        except Missing as why:
            give_up(f"engine {self.name}", why)
        try:
            yield transport
        finally:
            lent.__exit__(None, None, None)


@contextlib.contextmanager
def _in_memory() -> Iterator[Transport]:
    yield MemoryBroker().connect()


@contextlib.contextmanager
def _by_rabbitmq() -> Iterator[Transport]:
    yield _kept(rabbit.open_url, rabbitmq.url())


@contextlib.contextmanager
def _by_sqs() -> Iterator[Transport]:
    yield _kept(sqs_transport.open_url, f"{sqs.newest()}?wait=1")


@functools.cache
def _kept(open_url: Callable[[str], Transport], url: str) -> Transport:
    """Open a transport for all tests, and end it with them."""
    transport = open_url(url)
    background = loop.enter()  # it lives on this loop: no test is the last to leave it
    atexit.register(lambda: background.run(transport.close(), 10))
    return transport


MAKERS = [BrokeredMaker("brokered-memory", _in_memory, MEMORY)]
# On brokers that are processes of their own.
REAL = [
    BrokeredMaker(f"{name}+{ledger.name}", broker, ledger)
    for name, broker in (("rabbitmq", _by_rabbitmq), ("sqs", _by_sqs))
    for ledger in (POSTGRES, SQLITE)
]
