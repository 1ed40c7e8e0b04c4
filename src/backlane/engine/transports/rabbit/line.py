"""A line to the broker: one connection at a time, opened by the call that needs it."""

from __future__ import annotations

import asyncio
import random

from backlane.engine.transports.rabbit.address import Address
from backlane.engine.transports.rabbit.connection import Connection, connect
from backlane.errors import EngineUnavailable

# A node that takes connections again is found within this (and the handshake), whatever
# its outage lasted; many processes that lost it together come back spread over it. Callers
# pause as well, so that the two add up.
LONGEST_PAUSE = 1.0
FIRST_PAUSE = 0.1
STEADY_SECONDS = 5.0  # a connection that lasted so long ends a row of failures


class Line:
    """Connections for one purpose, one after the other; `purpose` is shown to operators."""

    def __init__(self, address: Address, purpose: str) -> None:
        self._address, self._purpose = address, purpose
        self._connection: Connection | None = None
        self._attempt: asyncio.Task[Connection] | None = None
        self.failure: EngineUnavailable | None = None  # of the last attempt
        self._failures = 0
        self._not_before = 0.0
        self._since = 0.0
        self._host = 0

    @property
    def connection(self) -> Connection | None:
        """The connection, if there is one just now."""
        return self._connection if self._connection and self._connection.lost is None else None

    async def connected(self, seconds: float) -> Connection:
        """Return the connection, opened if need be; callers share one attempt.

        Raises:
            EngineUnavailable: there is none within the time, or the attempt failed.
        """
        now = self.connection
        if now is not None:
            return now
        self._end()
        if self._attempt is None:
            self._attempt = asyncio.ensure_future(self._connect())
            self._attempt.add_done_callback(self._attempted)
        done, _ = await asyncio.wait((self._attempt,), timeout=max(0.0, seconds))
        if not done:
            raise EngineUnavailable(
                f"there is no connection to RabbitMQ at {self._address.host} yet; the next call "
                "tries again"
            )
        return done.pop().result()

    async def close(self) -> None:
        """Say good-bye; the next call connects anew."""
        if self._attempt is not None:
            self._attempt.cancel()
        if self._connection is not None:
            await self._connection.close()
        self._connection = None

    def _end(self) -> None:
        """Count how the last connection ended."""
        if self._connection is None:
            return
        loop_time = asyncio.get_running_loop().time()
        lasted = loop_time - self._since
        self._connection = None
        self._failures = 0 if lasted > STEADY_SECONDS else self._failures + 1
        self._pause(loop_time)

    def _pause(self, now: float) -> None:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self._failures)
        self._not_before = now + random.uniform(0, longest)  # noqa: S311  (no secret)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._not_before - loop.time()))
        made = await self._first_that_answers()
        self._connection, self._since, self.failure = made, loop.time(), None
        return made

    async def _first_that_answers(self) -> Connection:
        """Try the nodes in turn, from the one that served last."""
        hosts = self._address.hosts
        failure = None
        for _ in hosts:
            try:
                return await connect(self._address, hosts[self._host % len(hosts)], self._purpose)
            except EngineUnavailable as error:
                failure = error
                self._host += 1
        self.failure = failure
        self._failures += 1
        self._pause(asyncio.get_running_loop().time())
        raise failure or EngineUnavailable("the URL names no host")

    def _attempted(self, attempt: asyncio.Task[Connection]) -> None:
        self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # its callers were told; there may have been none left
