"""What tests of the PostgreSQL engine share: a server, and an empty schema of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers import postgres
from tests.servers.missing import Missing, give_up

from backlane.engine.postgres import PostgresEngine
from backlane.model.clock import SystemClock


@pytest.fixture(scope="session")
def server() -> postgres.Shared:
    try:
        return postgres.newest()
    except Missing as why:
        give_up("engine postgresql", why)


@pytest.fixture
def url(server: postgres.Shared) -> Iterator[str]:
    """The URL of a migrated schema without any rows."""
    with server.schema(SystemClock()) as schema:
        yield f"{server.url}?schema={schema}"


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    made = PostgresEngine(url)
    yield made
    made.close()
