"""The application on a SQLite file, in a caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.hand import take
from tests.test_app_on_stores import open_app, waiting

from backlane import Backlane, JobNotFound, WrongUse


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def app(file: Path) -> Iterator[Backlane]:
    with open_app(f"sqlite:///{file}") as app:
        yield app


@pytest.fixture
def connection(app: Backlane, file: Path) -> Iterator[apsw.Connection]:
    app.tasks["double"].enqueue(0).cancel()  # the store exists
    connection = apsw.Connection(str(file))
    connection.set_busy_timeout(5_000)
    yield connection
    connection.close()


def test_a_job_joins_the_callers_transaction_and_is_there_once_it_commits(app, connection):
    joining = app.tasks["double"].using(connection=connection)

    with connection:
        job = joining.enqueue(4)
        before = waiting(app)

    assert (before, job.state) == (0, "ready")


def test_a_job_that_joined_is_gone_with_a_rollback(app, connection):
    joining = app.tasks["double"].using(connection=connection)

    connection.execute("begin immediate")
    job = joining.enqueue(4)
    connection.execute("rollback")

    with pytest.raises(JobNotFound):
        job.record()
    assert take(app) == []


def test_many_jobs_join_one_transaction(app, connection):
    joining = app.tasks["double"].using(connection=connection)

    with connection:
        joining.enqueue_many([((number,), {}) for number in range(1_500)])

    assert waiting(app) == 1_500


def test_a_connection_of_the_standard_library_is_refused_with_the_reason(app):
    foreign = sqlite3.connect(":memory:")

    with pytest.raises(WrongUse, match="apsw"):
        app.tasks["double"].using(connection=foreign).enqueue(4)

    foreign.close()
