"""What the tests on a real gateway share: an application, its worker, and both clients."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.serving import served

from backlane import Backlane, Queue, Retry, current
from backlane.client import AsyncClient, Client
from backlane.gateway import gateway
from backlane.worker import Worker


def shop(url: str) -> Backlane:
    """Return an application with a task of each kind that the tests need."""
    queues = [Queue("default"), Queue("small", max_jobs=5), Queue("orders")]
    app = Backlane(url, queues=queues)
    app.messages("orders")

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    @app.task(name="brief", queue="small")
    async def brief(number: int) -> int:
        await asyncio.sleep(0.02)
        return number

    @app.task(name="steps")
    def steps(number: int) -> int:
        context = current.get()
        assert context is not None
        for done in range(number):
            context.progress(done / number, f"step {done}")
            time.sleep(0.3)
        return number

    @app.task(name="fail", retry=Retry(attempts=1))
    async def fail() -> None:
        raise ValueError("boom")

    return app


class Caller:
    """Either client, called alike: what has to be awaited is."""

    def __init__(self, kind: type[Client | AsyncClient]) -> None:
        self._kind = kind
        self._runner = asyncio.Runner()
        self._made: list[Client | AsyncClient] = []

    def client(self, url: str, **settings: Any) -> Any:
        made = self._kind(url, **settings)
        self._made.append(made)
        return made

    def get(self, value: Any) -> Any:
        """Return what a call came to."""
        return self._runner.run(_awaited(value)) if inspect.isawaitable(value) else value

    def all(self, calls: list[Callable[[], Any]]) -> list[Any]:
        """Make many calls, at once where that is possible, and return what each came to."""
        if self._kind is Client:
            return [call() for call in calls]

        async def gathered() -> list[Any]:
            return await asyncio.gather(*(call() for call in calls))

        return self._runner.run(gathered())

    def list(self, values: Any) -> list[Any]:
        """Return all that an iterator yields."""
        if not hasattr(values, "__aiter__"):
            return list(values)

        async def listed() -> list[Any]:
            return [value async for value in values]

        return self._runner.run(listed())

    def close(self) -> None:
        for client in self._made:
            self.get(client.aclose() if isinstance(client, AsyncClient) else client.close())
        self._runner.close()


async def _awaited(value: Any) -> Any:
    return await value


@pytest.fixture(params=[Client, AsyncClient], ids=["blocking", "async"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    made = Caller(request.param)
    yield made
    made.close()


@pytest.fixture
def app(tmp_path) -> Iterator[Backlane]:
    with shop(f"sqlite:///{tmp_path}/jobs.db") as made:
        yield made


@pytest.fixture
def url(app) -> Iterator[str]:
    """The address of a gateway that has a worker."""
    with served(gateway(app)) as address, Worker(app, concurrency=4):
        yield address


@pytest.fixture
def idle_url(app) -> Iterator[str]:
    """The address of a gateway without a worker."""
    with served(gateway(app)) as address:
        yield address
