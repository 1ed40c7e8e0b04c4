"""What an administrator set for the role of an application changes nothing of what verbs do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.engine.postgres.test_exact_admission import new_job
from tests.servers import postgres

from backlane.engine.postgres import PostgresEngine
from backlane.engine.protocol import Admission, Wanted
from backlane.errors import EngineUnavailable
from backlane.model.outcome import Settlement, Succeeded

ODD = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "200ms",
    "lock_timeout": "1ms",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "standard_conforming_strings": "off",
    "enable_nestloop": "off",
    "enable_indexscan": "off",
}
IDLE = ("idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
HOSTILE = """
create function {0}.nextval(text) returns bigint language sql as 'select 1/0::bigint';
create function {0}.cardinality(bytea[]) returns int language sql as 'select 1/0';
create function {0}.array_agg(bytea) returns int language sql as 'select 1/0';
create function {0}.never(bigint, int) returns boolean language sql as 'select false';
create operator {0}.> (leftarg = bigint, rightarg = int, function = {0}.never);
"""


class Role:
    """A role with settings of its own."""

    def __init__(self, admin: psycopg.Connection[Any], url: str) -> None:
        self.name = f"odd_{os.getpid()}"
        self.url = url.replace("postgres@", f"{self.name}@")
        self._admin = admin
        self.execute(f"create role {self.name} login superuser")

    def set(self, name: str, value: str) -> None:
        self.execute(f"alter role {self.name} set {name} = '{value}'")

    def execute(self, text: str) -> None:
        self._admin.execute(text.encode())


@pytest.fixture
def role(server: postgres.Shared, url: str) -> Iterator[Role]:
    made = Role(server.connection(), url)
    yield made
    made.execute(f"drop role {made.name}")


def pass_through(engine: PostgresEngine) -> None:
    """Let jobs come in and end, alone and with a caller's transaction."""
    engine.run(engine.append([new_job()], Admission()))
    plain = engine.url.partition("?")[0]
    with psycopg.connect(plain, client_encoding="utf8") as connection:
        engine.joined(connection).run(engine.append([new_job(), new_job()], Admission()))
    leases = engine.run(engine.claim(Wanted("ann", 9, 10_000, ("mail",)))).leases
    assert len(leases) == 3
    last, *others = [Settlement(lease.job, lease.token, Succeeded()) for lease in leases]
    block = engine.transaction()
    block.begin()
    block.run(engine.settle([last]))
    block.commit()
    engine.run(engine.settle(others))
    assert engine.run(engine.list_queues())[0].depth.jobs == 0


def test_settings_of_a_role_change_nothing(role: Role) -> None:
    for name, value in ODD.items():
        role.set(name, value)

    with contextlib.closing(PostgresEngine(role.url)) as engine:
        pass_through(engine)


def test_who_is_idle_for_long_is_not_thought_dead(role: Role) -> None:
    version = role._admin.info.server_version
    for name in IDLE if version >= 170_000 else IDLE[:2]:
        role.set(name, "200ms")
    with contextlib.closing(PostgresEngine(role.url)) as engine:
        sign = engine.enlist("ann")
        taken = role._admin.execute(_taken(engine)).fetchone()
        time.sleep(0.8)

        # Its session was not ended, so it never had to take its lock again.
        assert role._admin.execute(_taken(engine)).fetchone() == taken
        sign.close()


def _taken(engine: PostgresEngine) -> bytes:
    schema = engine.url.partition("schema=")[2]
    return f'select max(since) from "{schema}".enlisted'.encode()


def test_functions_and_operators_of_others_are_not_taken_for_the_servers(role: Role) -> None:
    role.execute(f"create schema {role.name}")
    role.execute(HOSTILE.format(role.name))
    role.set("search_path", role.name)
    try:
        with contextlib.closing(PostgresEngine(role.url)) as engine:
            pass_through(engine)
    finally:
        role.execute(f"drop schema {role.name} cascade")


def test_a_role_that_only_reads_is_told_so(role: Role) -> None:
    role.set("default_transaction_read_only", "on")

    with (
        contextlib.closing(PostgresEngine(role.url)) as engine,
        pytest.raises(EngineUnavailable, match="set to read only"),
    ):
        engine.run(engine.append([new_job()], Admission()))
