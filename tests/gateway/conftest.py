"""An application on a SQLite file, and its gateway, served for all tests of a file."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.engine.contract.engines import lay
from tests.gateway.served import Served, served

from backlane import Backlane, Queue


class Address(msgspec.Struct):
    street: str
    zip: str


class Order(msgspec.Struct):
    number: int
    lines: list[Address] = []


def shop(path: Path) -> Backlane:
    """An application with a task for each kind of argument."""
    queues = [
        Queue("mail"),
        Queue("tiny", max_jobs=2),
        Queue("shared", max_jobs=10, group_share=0.2),
        Queue("orders"),
        Queue("post"),
    ]
    app = Backlane(f"sqlite:///{path}", queues=queues, max_bytes=100_000)

    @app.task(name="mail.send", queue="mail")
    async def send(user_id: int, template: str = "hi", *, at: datetime | None = None) -> str:
        return f"{user_id} {template} {at}"

    @app.task(name="nothing")
    def nothing() -> None: ...

    @app.task(name="large")
    def large() -> str: ...

    @app.task(name="ship")
    def ship(order: Order, day: date, price: Decimal = Decimal(0)) -> str:
        return f"{order} {day} {price}"

    @app.task(name="anything")
    def anything(*values: Any, **named: Any) -> None: ...

    @app.task(name="tiny", queue="tiny")
    def tiny(number: int) -> None: ...

    @app.task(name="shared", queue="shared")
    def shared() -> None: ...

    app.messages("orders")
    app.messages("post")
    return app


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The gateway, without tokens."""
    with shop(tmp_path_factory.mktemp("shop") / "jobs.db") as app, served(app) as made:
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """A gateway of this test alone."""
    with shop(lay(tmp_path / "jobs.db")) as app, served(app) as made:
        yield made


def key() -> str:
    """A key that nobody else uses."""
    return uuid.uuid4().hex


NOW = datetime(2026, 11, 22, tzinfo=UTC)
