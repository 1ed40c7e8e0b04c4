"""Plans inside the schema's functions: along the keys, whatever statistics say.

The hot tables are empty when statistics are made of them, and may be full of dead rows a
minute later: a plan that reads them from end to end was right then, and is a disaster now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.servers import postgres

from backlane.model.clock import SystemClock

LARGE = (
    "attempt_error|blocked|deadline|edge|failed|finished|finished_0|idempotency|job|lease|"
    "offered|progress|ready|scheduled|step|tag|unique_key"
)
SCAN = re.compile(rf"Seq Scan on (?:\S+\.)?({LARGE})\b")
EXPLAINED = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_level = notice;
insert into queue (name, kind, declared_jobs, declared_bytes) values ('mail', 'tasks', 1, 1);
"""
ENTER = """
select {schema}.enter(null, '{{}}', '{{}}', array_agg(id), array_agg(1),
    array_agg(0), array_agg(5::smallint), array_agg(0::bigint), array_agg(10), array_agg(1),
    array_agg(null::bigint), array_agg('t'::text), array_agg(null::bytea),
    array_agg(null::bytea), array_agg(null::bytea), array_agg('x'::bytea),
    array_agg(600000::bigint), array_agg('t'::text), array_agg('k' || nth), array_agg('g'::text))
from (
    select uuid_send(gen_random_uuid()) as id, nth
    from generate_series({first}::bigint, {last}) as nth
) as given
"""
CLAIM = """
select array_agg(job), array_agg(token) from {schema}.claim(1, null, null, 'ann', 50, 30000,
    'tasks', 0, '{{mail}}', '{{}}', '{{}}', 0, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', true)
where job is not null
"""
OFFER = """
select job from {schema}.offer(null, null, 60000, '{{mail}}', '{{0}}', '{{500}}', '{{null}}',
    '{{-9223372036854775808}}', 0, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', null, null)
"""
CLAIM_THESE = CLAIM.replace("'{{mail}}', '{{}}'", "'{{}}', %(ids)s")
SETTLE = """
select * from {schema}.settle({schema}.now_ms(), %(ids)s, %(tokens)s,
    array_fill(1::bigint, array[50]), null, {outcomes}, {rest})
"""
AWAIT = """
select * from {schema}.settle({schema}.now_ms(), (%(ids)s::bytea[])[1:1],
    (%(tokens)s::bigint[])[1:1], '{{0}}', array[%(others)s::bytea], '{{9}}', '{{0}}', '{{false}}',
    '{{null}}', '{{null}}', '{{null}}', '{{null}}', '{{null}}')
"""
PLAIN = ("null", ", ".join(["null"] * 7))
RETRY = (
    "array_fill(4::smallint, array[50])",
    "array_fill(5::bigint, array[50]), array_fill(false, array[50]), "
    "array_fill(null::text, array[50]), " + ", ".join(["array_fill('e'::text, array[50])"] * 4),
)


class Explained:
    """A connection that tells the plans of all it runs, also within functions."""

    def __init__(self, connection: psycopg.Connection, schema: str) -> None:
        self.connection, self.schema = connection, schema
        self.plans: list[str] = []
        connection.add_notice_handler(lambda said: self.plans.append(said.message_primary or ""))

    def run(self, text: str, **params: object) -> tuple[Any, ...]:
        self.plans.clear()
        text = text.replace("{schema}", f'"{self.schema}"').replace("{{", "{").replace("}}", "}")
        return self.connection.execute(text, params or None).fetchone() or ()

    def scanned(self) -> list[str]:
        assert len(self.plans) > 1, "nothing was explained"
        return [found for plan in self.plans for found in SCAN.findall(plan)]


@pytest.fixture
def explained(server: postgres.Shared) -> Iterator[Explained]:
    with (
        server.schema(SystemClock()) as schema,
        psycopg.connect(server.url, autocommit=True, prepare_threshold=None) as connection,
    ):
        connection.execute(f'set search_path = "{schema}"')
        for table in LARGE.split("|"):
            connection.execute(f"analyze {table}")
        connection.execute(EXPLAINED)
        yield Explained(connection, schema)


def enter(explained: Explained, number: int = 2_000) -> None:
    (queue,) = explained.connection.execute("select id from queue").fetchone() or (0,)
    text = ENTER.replace("array_agg(1),\n", f"array_agg({queue}),\n", 1)
    explained.run(text.replace("{first}", "1").replace("{last}", str(number)))


def claim(explained: Explained) -> dict[str, object]:
    ids, tokens = explained.run(CLAIM)
    return {"ids": ids, "tokens": tokens}


def settle(explained: Explained, how: tuple[str, str], leases: dict[str, object]) -> None:
    explained.run(SETTLE.replace("{outcomes}", how[0]).replace("{rest}", how[1]), **leases)


def test_enter(explained: Explained) -> None:
    enter(explained)
    assert explained.scanned() == []


def test_claim(explained: Explained) -> None:
    enter(explained)
    claim(explained)
    assert explained.scanned() == []


def test_offer_and_claim_what_was_named(explained: Explained) -> None:
    enter(explained)
    for _ in range(2):
        explained.run(OFFER)
        assert explained.scanned() == []
        (ids,) = explained.run(
            "select array_agg(id) from job where seq in (select seq from offered)"
        )
        explained.run(CLAIM_THESE, ids=ids[100:])
        assert explained.scanned() == []
        explained.run("select {schema}.withdraw(%(ids)s)", ids=ids[:10])
        assert explained.scanned() == []


@pytest.mark.parametrize("how", [PLAIN, RETRY], ids=["succeeded", "retried"])
def test_settle(explained: Explained, how: tuple[str, str]) -> None:
    enter(explained)
    settle(explained, how, claim(explained))
    assert explained.scanned() == []


def test_jobs_that_wait_for_others_and_what_follows_when_they_end(explained: Explained) -> None:
    """One waits for all the others, of which some are retried and some end."""
    enter(explained)
    leases = claim(explained)
    (others,) = explained.run("select string_agg(id, '') from {schema}.job")
    explained.run(AWAIT, **leases, others=others)
    assert explained.scanned() == []
    settle(explained, RETRY, leases)
    assert explained.scanned() == []
    assert explained.run("select waits_for from {schema}.blocked") == (1999,)
    settle(explained, PLAIN, claim(explained))
    assert explained.scanned() == []
    assert explained.run("select waits_for from {schema}.blocked") == (1949,)


MENDED: list[tuple[str, Callable[[Explained], object]]] = [
    (
        """
        select * from {schema}.bring_back({schema}.now_ms() + 60000, {schema}.now_ms() + 60000,
            '{{}}', 0, 1000)
        """,
        claim,
    ),
    (
        "select {schema}.promote({schema}.now_ms() + 60000, 0, 1000)",
        lambda explained: settle(explained, RETRY, claim(explained)),
    ),
    ("select * from {schema}.expire({schema}.now_ms() + 900000, 100)", claim),
    ("select {schema}.age({schema}.now_ms() + 900000, 100)", claim),
    (
        "select {schema}.prune({schema}.now_ms() + 900000, false, 1, 0, 0, 100)",
        lambda explained: settle(explained, PLAIN, claim(explained)),
    ),
]


@pytest.mark.parametrize(
    ("text", "prepare"), MENDED, ids=["bring_back", "promote", "expire", "age", "prune"]
)
def test_what_a_sweep_does(
    explained: Explained, text: str, prepare: Callable[[Explained], object]
) -> None:
    enter(explained)
    prepare(explained)
    assert explained.run(text) not in ((0,), (None,), ([],))
    assert explained.scanned() == []


def test_whether_a_full_queue_has_jobs_is_one_look(explained: Explained) -> None:
    """A claim beside 100,000 ready jobs of a queue at its limit took four times as long."""
    enter(explained)
    explained.run(
        "select {schema}.next_token_ms(array(select generate_series(1, 20)), {schema}.now_ms())"
    )
    assert any("ready" in plan and "SubPlan" in plan for plan in explained.plans)
    assert not [plan for plan in explained.plans if "hashed SubPlan" in plan]
