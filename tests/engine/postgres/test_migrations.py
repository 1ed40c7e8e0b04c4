"""migrate: once though many start together, and said beforehand if asked."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.servers import postgres

from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.store import migrations
from backlane.engine.protocol import Admission
from backlane.engine.selection import Selection
from backlane.errors import EngineUnavailable, SchemaMismatch
from backlane.model.clock import SystemClock
from backlane.model.ids import new_id
from backlane.model.job import Job

_numbers = itertools.count(1)


@pytest.fixture
def admin(server: postgres.Shared) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.url, autocommit=True) as made:
        yield made


@pytest.fixture
def schema(admin: psycopg.Connection) -> Iterator[str]:
    """The name of a schema that nobody has made."""
    name = f"Migrated {os.getpid()}-{next(_numbers)}"
    yield name
    admin.execute(f'drop schema if exists "{name}" cascade'.encode())


@pytest.fixture
def fresh(server: postgres.Shared, schema: str) -> Iterator[PostgresEngine]:
    """An engine on a schema that is not there."""
    made = PostgresEngine(f"{server.url}?schema={schema}")
    yield made
    made.close()


def test_all_is_applied_once(fresh: PostgresEngine):
    applied = fresh.migrate()

    assert applied == [one.name for one in migrations.available("x")]
    assert fresh.migrate() == []
    assert fresh.run(fresh.list_queues()) == []


def test_many_at_once_migrate_once(server: postgres.Shared, schema: str):
    applied: list[list[str]] = []

    def start() -> None:
        engine = PostgresEngine(f"{server.url}?schema={schema}")
        applied.append(engine.migrate())
        engine.close()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(applied) == 8
    assert [one for one in applied if one] == [[it.name for it in migrations.available("x")]]


def test_a_migration_that_fails_leaves_nothing(
    fresh: PostgresEngine, admin: psycopg.Connection, schema: str, monkeypatch: pytest.MonkeyPatch
):
    good = migrations.available(schema)
    bad = [*good[:1], migrations.Migration("0099_bad", "create table oops (")]
    monkeypatch.setattr(migrations, "available", lambda _: bad)
    with pytest.raises(EngineUnavailable, match="syntax error"):
        fresh.migrate()

    found = admin.execute("select 1 from pg_namespace where nspname = %s", [schema]).fetchone()
    assert found is None


def test_a_newer_schema_is_worked_on_as_it_is(
    fresh: PostgresEngine, admin: psycopg.Connection, schema: str
):
    """Within a major version changes only add: N works on what N + 1 made."""
    fresh.migrate()
    admin.execute(f"""insert into "{schema}".migration (name) values ('0999_later')""".encode())

    assert fresh.migrate() == []
    assert fresh.run(fresh.list_queues()) == []


def test_what_is_printed_is_what_is_applied(
    server: postgres.Shared, admin: psycopg.Connection, schema: str
):
    admin.execute(migrations.script(schema).encode())
    engine = PostgresEngine(f"{server.url}?schema={schema}")

    assert engine.migrate() == []
    assert engine.run(engine.list_queues()) == []
    engine.close()


def test_two_schemas_of_one_database_know_nothing_of_each_other(
    fresh: PostgresEngine, engine: PostgresEngine, schema: str
):
    fresh.migrate()
    sign = fresh.enlist("ann")
    sign.close()

    assert engine.migrate() == []


def test_a_role_that_may_not_is_told_which_grant_it_needs(
    server: postgres.Shared, admin: psycopg.Connection, schema: str
):
    role = f"humble_{os.getpid()}"
    admin.execute(f"create role {role} login".encode())
    url = server.url.replace("postgres@", f"{role}@")
    engine = PostgresEngine(f"{url}?schema={schema}")
    try:
        with pytest.raises(EngineUnavailable, match="grant create on database"):
            engine.migrate()
    finally:
        engine.close()
        admin.execute(f"drop role {role}".encode())


def test_a_schema_made_by_an_administrator_is_filled(
    server: postgres.Shared, admin: psycopg.Connection, schema: str
):
    """Its owner needs no right to make schemas."""
    role = f"owner_{os.getpid()}"
    admin.execute(f"create role {role} login".encode())
    admin.execute(f'create schema "{schema}" authorization {role}'.encode())
    url = server.url.replace("postgres@", f"{role}@")
    engine = PostgresEngine(f"{url}?schema={schema}")
    try:
        assert engine.migrate()
    finally:
        engine.close()
        admin.execute(f'drop schema "{schema}" cascade'.encode())
        admin.execute(f"drop owned by {role}".encode())
        admin.execute(f"drop role {role}".encode())


@pytest.mark.parametrize(("encoding", "can_hold"), [("SQL_ASCII", True), ("LATIN1", False)])
def test_a_database_that_cannot_hold_all_text_is_refused(
    server: postgres.Shared, encoding: str, can_hold: bool
):
    admin, name = server.connection(), f"encoded_{os.getpid()}"
    admin.execute(
        f"create database {name} encoding '{encoding}' template template0 locale 'C'".encode()
    )
    engine = PostgresEngine(urlsplit(server.url)._replace(path=f"/{name}").geturl())
    try:
        if can_hold:
            engine.migrate()
            one = new_job("größe €")
            assert isinstance(engine.run(engine.append([one], Admission())), list)
            (found,) = engine.run(engine.find(Selection(ids=(one.id,)))).records
            assert found.group == "größe €"
        else:
            with pytest.raises(SchemaMismatch, match="--encoding=UTF8"):
                engine.migrate()
    finally:
        engine.close()
        admin.execute(f"drop database {name} with (force)".encode())


def new_job(group: str) -> Job:
    made = new_id(SystemClock().wall_ms())
    return Job(id=made, queue="mail", task="send", body=b"{}", group=group)
