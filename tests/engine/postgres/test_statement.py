"""Statements: values that went to the server and came back are the same."""

from __future__ import annotations

from typing import Any, LiteralString

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backlane.engine.plan import Plan, Sql
from backlane.engine.postgres import PostgresEngine
from backlane.engine.postgres.store.statement import TYPES, Statements, in_schema
from backlane.engine.postgres.store.transaction import PostgresTx

BIGINTS = st.integers(-(2**63), 2**63 - 1)
INTS = st.integers(-(2**31), 2**31 - 1)
SMALLINTS = st.integers(-(2**15), 2**15 - 1)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
FLOATS = st.floats(allow_nan=False)
VALUES: dict[LiteralString, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "bytea": st.binary(),
    "bigint": BIGINTS,
    "int": INTS,
    "smallint": SMALLINTS,
    "text": TEXTS,
    "float8": FLOATS,
    "boolean[]": st.lists(st.none() | st.booleans()),
    "bytea[]": st.lists(st.none() | st.binary()),
    "bigint[]": st.lists(st.none() | BIGINTS),
    "int[]": st.lists(st.none() | INTS),
    "smallint[]": st.lists(st.none() | SMALLINTS),
    "text[]": st.lists(st.none() | TEXTS),
    "float8[]": st.lists(st.none() | FLOATS),
}


def test_every_type_is_tried():
    assert set(VALUES) | {"jsonb"} == set(TYPES)


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_as_they_went(engine: PostgresEngine, kind: LiteralString):
    statement: Sql[tuple[Any]] = Sql("select $1::" + kind)

    @settings(max_examples=50)
    @given(st.none() | VALUES[kind])
    def check(value: object) -> None:
        assert engine.run(_rows(statement, value)) == [(value,)]

    check()


@pytest.mark.parametrize("number", [0, 1, 4095, 4096, 5000])
def test_long_arrays_of_long_values_come_back(engine: PostgresEngine, number: int):
    names: Sql[tuple[Any]] = Sql("select $1::bytea[], $2::bigint[]")
    values = [b"x" * number, b""], list(range(number))

    assert engine.run(_rows(names, *values)) == [values]


def test_json_is_sent_as_bytes_and_read_as_values(engine: PostgresEngine):
    statement: Sql[tuple[Any]] = Sql("select $1::jsonb")

    assert engine.run(_rows(statement, b'{"a": [1, null]}')) == [({"a": [1, None]},)]


def test_only_the_first_appearance_of_a_parameter_needs_its_type(engine: PostgresEngine):
    statement: Sql[tuple[Any]] = Sql("select $2::text, $1::bigint + $1, $2")

    assert engine.run(_rows(statement, 4, "a")) == [("a", 8, "a")]


@pytest.mark.parametrize("text", ["select $1", "select $1::numeric", "select $2::text"])
def test_a_parameter_without_a_known_type_is_refused(text: LiteralString):
    with pytest.raises(TypeError, match="cast"):
        Statements("backlane").of(Sql(text))


def test_a_wrong_number_of_parameters_is_refused(engine: PostgresEngine):
    statement: Sql[tuple[Any]] = Sql("select $1::bigint")

    for params in ((), (1, 2)):
        with pytest.raises(TypeError, match=r"select \$1::bigint"):
            engine.run(_rows(statement, *params))


def test_each_runs_a_statement_for_each_row(engine: PostgresEngine):
    statement: Sql[tuple[int]] = Sql("select $1::bigint * 2")

    async def within(tx: PostgresTx) -> list[tuple[int]]:
        return await tx.each(statement, [(number,) for number in range(300)])

    plan = Plan(within, reads=True)
    assert engine.run(plan) == engine.run(plan) == [(2 * number,) for number in range(300)]


def test_large_values_do_not_stop_the_conversation(engine: PostgresEngine):
    """Neither side reads while it writes more than a socket holds, unless told to."""
    statement: Sql[tuple[Any]] = Sql("select $1::bytea, repeat('x', 3000000)")
    large = bytes(3_000_000)

    async def within(tx: PostgresTx) -> list[tuple[Any]]:
        return await tx.each(statement, [(large,)] * 4)

    assert [len(row[0]) for row in engine.run(Plan(within))] == [3_000_000] * 4


def test_the_schema_is_written_for_ours_and_for_nothing_else():
    text = "select backlane.job.id from backlane.job where x = 'mybacklane.y'"

    assert in_schema(text, "backlane") == text
    assert in_schema(text, 'od"d') == (
        'select "od""d".job.id from "od""d".job where x = \'mybacklane.y\''
    )


def _rows(statement: Sql[Any], *params: object) -> Plan[list[Any]]:
    async def within(tx: PostgresTx) -> list[Any]:
        return await tx.rows(statement, *params)

    return Plan(within, reads=True)
