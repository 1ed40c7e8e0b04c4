"""Query plans: every statement walks along a key, whatever the length of the history."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.types import TypeInfo
from tests.servers import postgres

import backlane.engine.postgres as package
from backlane.engine.plan import Sql
from backlane.engine.postgres.record import find, record, taking
from backlane.engine.postgres.store import statement
from backlane.engine.postgres.store.opener import SESSION
from backlane.model.clock import SystemClock

# As long as there are queues, workers, resources, leases or changes that no sweep has
# folded yet: short, whatever the history.
SHORT = {
    "counter",
    "credit",
    "enlisted",
    "group_counter",
    "group_tally",
    "holding",
    "latest",
    "lease",
    "limits",
    "meta",
    "migration",
    "queue",
    "resource",
    "schedule",
    "tally",
    "term",
    "virtual_clock",
    "worker",
}
ANALYZED = (
    *("job", "finished", "failed", "ready", "scheduled", "lease", "tally", "tag", "edge"),
    "step",
)
FILL = """
insert into queue (name, kind, declared_jobs, declared_bytes)
values ('mail', 'tasks', 1, 1);

insert into job (seq, place, enqueued_ms, queue, lane, size, attempts, priority, id, task,
    key_scope, key_name, group_name, body)
select n, n, n, (select min(id) from queue), 0, 2, 10, 5,
    decode(lpad(to_hex(n), 32, '0'), 'hex'), 'send', 'send', 'key' || n, 'group' || n % 500, '{}'
from generate_series(1, 20000) as n;

insert into tag (seq, name)
select seq, 'tag' || seq % 50
from job;

insert into edge (waiting, awaited, hope, is_open)
select seq + 1, id, 0, true
from job;

insert into step (seq, name, result)
select seq, 'charge', '{}'
from job;

insert into finished (seq, token, ended_ms, ran_ms, queue, attempt, revision, state)
select seq, 1, place, 1, queue, 1, 3, 1
from job
"""


def statements() -> Iterator[tuple[str, Sql[Any]]]:
    modules = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    for noun, module in sorted((it.name.rpartition(".")[2], it.name) for it in modules):
        found = vars(importlib.import_module(module))
        for name, value in found.items():
            if isinstance(value, Sql):
                yield f"{noun}.{name}", value


STATEMENTS = {id(sql): (name, sql) for name, sql in reversed(list(statements()))}.values()


@pytest.fixture(scope="module")
def history(server: postgres.Shared) -> Iterator[History]:
    """A schema with a history, whose hot tables were empty when statistics were made."""
    with (
        server.schema(SystemClock()) as schema,
        psycopg.connect(server.url, autocommit=True, prepare_threshold=None) as connection,
    ):
        connection.execute(f"set search_path = {schema}")
        connection.execute(FILL)
        for table in (
            "job",
            "finished",
            "failed",
            "ready",
            "scheduled",
            "lease",
            "tally",
            "tag",
            "edge",
            "step",
        ):
            connection.execute(f"vacuum analyze {table}")
        for name, value in SESSION.items():
            connection.execute(f"select set_config('{name}', '{value}', false)")
        yield History(connection, schema)


class History(NamedTuple):
    """A schema, and a connection like the engine's."""

    connection: psycopg.Connection[Any]
    schema: str

    def plan(self, sql: Sql[Any]) -> dict[str, Any]:
        """The plan of a statement as it is prepared once, for all parameters."""
        ready = statement.Statement(sql.text, self.schema, "x")
        types = self.connection.adapters.types
        names = [_named(types.get(oid), oid) for oid in ready.oids]
        self.connection.execute("deallocate all")
        head = f"prepare x ({', '.join(names)})" if names else "prepare x"
        self.connection.execute(f"{head} as {ready.text.decode()}".encode())
        given = f" ({', '.join(['null'] * len(names))})" if names else ""
        rows = self.connection.execute(f"explain (format json) execute x{given}".encode())
        found: dict[str, Any] = rows.fetchall()[0][0][0]["Plan"]
        return found


def _named(kind: TypeInfo | None, oid: int) -> str:
    assert kind is not None
    return f"{kind.name}[]" if oid == kind.array_oid else kind.name


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def walked(plan: dict[str, Any]) -> set[str]:
    """The tables that are read from end to end."""
    found = set()
    for node in nodes(plan):
        if node["Node Type"] == "Seq Scan":
            found.add(re.sub(r"_(\d+|rest)$", "", node["Relation Name"]))
    return found


@pytest.mark.parametrize(("name", "sql"), STATEMENTS, ids=[name for name, _ in STATEMENTS])
def test_no_statement_reads_a_long_table_from_end_to_end(
    history: History, name: str, sql: Sql[Any]
) -> None:
    if not re.match(r"\s*(select|insert|update|delete|with)\b", sql.text):
        pytest.skip("it has no plan")

    assert walked(history.plan(sql)) <= SHORT


@pytest.mark.parametrize(
    "sql",
    [record.STANDING, record.WHOLE_OF_IDS, find.MATCHING, taking.HOLD_FINISHED],
    ids=["standing", "whole", "matching", "hold"],
)
def test_a_look_at_some_jobs_hashes_and_sorts_no_table(history: History, sql: Sql[Any]) -> None:
    kinds = {node["Node Type"] for node in nodes(history.plan(sql))}

    assert not kinds & {"Hash Join", "Merge Join", "Hash"}
