"""Query plans: which statements may scan, and what; all others are steps into a key."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import apsw
import pytest

import backlane.engine.sqlite as package
from backlane.engine.plan import Sql
from backlane.engine.sqlite import SqliteEngine
from backlane.engine.sqlite.lease.windows import NEXT, OFFERED, VOID
from backlane.engine.sqlite.rows.head import BEHEAD, GIVE_HEAD, HEAD, PICK

# Small tables, or statements that run rarely; each reason stands beside its statement.
MAY_SCAN = {
    "append.LINES": ("counter",),
    "claim.DUE_JOBS": ("due",),
    "claim.DEPARTED": ("backlane_lease",),
    "claim.EARLIEST": ("backlane_lease",),
    "claim.LAPSED": ("backlane_lease",),
    "fair.AGED": ("old",),
    "fair.FAIR_QUEUES": ("backlane_queue",),
    "find.RUNNING": ("backlane_lease",),
    "group.LEAVE": ("gone",),
    "group.RECOUNT": ("backlane_scheduled", "backlane_blocked", "backlane_lease", "held"),
    "handles.OWNERS": ("backlane_lease",),
    "head.PICK": ("best",),
    "hold.EXTEND_OWNED": ("backlane_lease",),
    "measure.SERVING": ("backlane_worker",),
    "resource.ALL": ("backlane_resource",),
    "resource.HELD_BACK": ("backlane_resource_not_closed", "queue"),
    "resource.LANES": ("used",),
    "resource.WAITED_FOR_BY": ("queue",),
    "schedules.BEGIN_ANEW": ("backlane_schedule", "backlane_worker"),
    "schedules.BEGIN_SILENCE": ("backlane_schedule",),
    "schedules.FORGET_SILENT": ("backlane_schedule", "backlane_worker"),
    "sweep.KEPT": ("backlane_counter",),
    "sweep.WAITING": ("backlane_counter",),
    "damage.FREE_KEY_OF": ("backlane_unique_key",),
    "measure.MEASURED": ("backlane_resource",),
    "measure.DOWN": ("backlane_resource_not_closed",),
    "tune.QUEUES": ("line", "backlane_resource"),
    "workers.FORGET_SILENT": ("backlane_worker",),
    "workers.WORKERS": ("backlane_worker",),
    "seal.QUEUES": ("backlane_queue",),
    "keeping.COUNTS": ("backlane_keep_count",),
    "ringing.QUEUE_NAMES": ("backlane_queue",),
}
# In the order of their key, and ended by a limit.
WALKED = {
    "append.NEWEST",
    "claim.DUE",
    "claim.PROMOTE",
    "claim.STATUS",
    "claim.UNSCHEDULE",
    "find.ALL",
    "edges.FOLLOWED",
    "schedules.SCHEDULES",
    "settle.BESIDE",
    "steps.ALL_LATEST",
}


def statements() -> Iterator[tuple[str, Sql]]:
    modules = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    for noun, module in sorted((it.name.rpartition(".")[2], it.name) for it in modules):
        found = vars(importlib.import_module(module))
        for name, value in found.items():
            if isinstance(value, Sql):
                yield f"{noun}.{name}", value


STATEMENTS = {id(sql): (name, sql) for name, sql in reversed(list(statements()))}.values()


@pytest.fixture
def connection(engine: SqliteEngine, path) -> apsw.Connection:
    engine.migrate()
    return apsw.Connection(str(path))


def steps(connection: apsw.Connection, sql: Sql) -> list[str]:
    parameters = (None,) * sql.text.count("?")
    if "?1" in sql.text:
        parameters = (None,) * max(n for n in range(1, 20) if f"?{n}" in sql.text)
    rows = connection.execute(f"explain query plan {sql.text}", parameters)
    return [row[3] for row in rows]


def scanned(steps: list[str]) -> list[str]:
    """Tables that are read from one end, beyond the parameters' own."""
    free = ("given", "carray", "json_each", "CONSTANT")
    return [
        step for step in steps if step.startswith("SCAN") and not any(word in step for word in free)
    ]


@pytest.mark.parametrize("name_and_sql", STATEMENTS, ids=lambda one: one[0])
def test_a_statement_takes_steps_into_keys(connection: apsw.Connection, name_and_sql):
    name, sql = name_and_sql

    found = scanned(steps(connection, sql))

    if name in WALKED:
        return
    allowed = MAY_SCAN.get(name, ())
    assert [step for step in found if not any(word in step for word in allowed)] == []


@pytest.mark.parametrize("sql", [HEAD, GIVE_HEAD, BEHEAD], ids=["head", "give", "behead"])
def test_a_claim_is_one_ascending_range(connection: apsw.Connection, sql: Sql):
    found = steps(connection, sql)

    assert any("ready USING PRIMARY KEY (queue=? AND lane=?" in step for step in found)
    assert not any("TEMP B-TREE" in step for step in found)


def test_what_is_offered_next_is_one_ascending_range(connection: apsw.Connection):
    found = steps(connection, NEXT)

    assert any("ready USING PRIMARY KEY (queue=? AND lane=?" in step for step in found)
    assert not any("TEMP B-TREE" in step for step in found)


@pytest.mark.parametrize("sql", [OFFERED, VOID], ids=["count", "void"])
def test_offers_are_found_without_the_jobs_that_are_not_offered(
    connection: apsw.Connection, sql: Sql
):
    (step,) = steps(connection, sql)

    assert "INDEX backlane_ready_offered (queue=? AND <expr>=?" in step


def test_offered_jobs_are_found_in_their_index_by_a_claim_of_them(connection: apsw.Connection):
    found = steps(connection, PICK)

    assert any(
        "offered USING COVERING INDEX backlane_ready_offered (queue=? AND <expr>=? AND seq=?"
        in step
        for step in found
    )
