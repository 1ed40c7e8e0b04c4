"""Merged appends, whatever is in them: answered as the memory engine answers one by one."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from backlane.engine.memory import MemoryEngine
from backlane.engine.plan import finish
from backlane.engine.protocol import Admission
from backlane.engine.selection import Page, Selection
from backlane.engine.sqlite.append.append import append_all
from backlane.engine.sqlite.record.find import find
from backlane.engine.sqlite.store.migrations import migrate
from backlane.engine.sqlite.store.transaction import SqliteTx
from backlane.model.clock import FakeClock
from backlane.model.job import (
    DEFAULT_RULE,
    Edge,
    Idempotency,
    Job,
    JobRecord,
    Key,
    KeyRule,
    Receipt,
    Refusal,
)
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds

RULES = [KeyRule(conflict=it, most_ms=2_000) for it in ("raise", "replace", "debounce")]
RULES.append(KeyRule(window_ms=60_000))

drafts = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(["mail", "mail", "video"]),
        "body": st.sampled_from([b"", b"12", b"12345"]),
        "priority": st.sampled_from([1, 5, 5, 5, 9]),
        "delay_ms": st.sampled_from([0, 0, 0, 5_000]),
        "expires_ms": st.sampled_from([None, None, None, 900, 30_000]),
        "key": st.sampled_from([None, None, None, Key("send", "a"), Key("send", "b")]),
        "rule": st.sampled_from([*[DEFAULT_RULE] * 3, *RULES]),
        # Waits for the jobs sent so many before it, of any batch that may have been refused.
        "after": st.sampled_from([*[()] * 12, (1,), (1, 3), (5,)]),
        "group": st.sampled_from([None, "x", "y"]),
        "parent": st.sampled_from([None, None, None, b"p" * 16]),
        "idempotency": st.sampled_from(
            [*[None] * 8, Idempotency("ann", "k", b"1"), Idempotency("ann", "k", b"2")]
        ),
    }
)
# A bulk of jobs alike is judged in a way of its own.
bulks = st.builds(lambda draft, number: [draft] * number, drafts, st.integers(1, 30))
admissions = st.builds(
    lambda declared, paces: Admission(declared, paces=paces),
    st.sampled_from(
        [
            {},
            {"mail": Bounds(40, max_wait_ms=2_000, group_share=0.1)},
            {"mail": Bounds(max_jobs=12, max_bytes=30), "video": Bounds(20, group_share=0.3)},
            {"mail": Bounds(max_wait_ms=9_000), "video": Bounds(max_wait_ms=1_000)},
        ]
    ),
    st.sampled_from(
        [
            {},
            {"mail": Pace((5.0,) * 10, slots=2, service_ms=200.0)},
            {"mail": Pace((0.0, *[1.5] * 9), slots=0), "video": Pace((4.0,) * 10, slots=1)},
        ]
    ),
)
batches = st.lists(
    st.tuples(st.one_of(bulks, st.lists(drafts, min_size=1, max_size=6)), admissions),
    min_size=1,
    max_size=6,
)

told: Counter[str] = Counter()  # in all examples: what was never answered proves nothing


@settings(max_examples=400, deadline=None, derandomize=True)
@given(batches)
def answers_are_alike(given: list[tuple[list[dict[str, Any]], Admission]]) -> None:
    clock = FakeClock()
    numbers = itertools.count(clock.wall_ms() << 80)
    sent = [([job(next(numbers), draft) for draft in drafts], said) for drafts, said in given]
    memory = MemoryEngine(clock)
    connection = apsw.Connection(":memory:")
    connection.execute("begin")
    migrate(connection, "jobs.db")

    one_by_one = [memory.run(memory.append(*batch)) for batch in sent]
    merged = finish(append_all(SqliteTx(connection), clock, sent))

    assert merged == one_by_one
    ids = tuple(one.id for jobs, _ in sent for one in jobs)
    if ids:
        stored = finish(find(SqliteTx(connection), Selection(ids=ids), 1_000, None, brief=False))
        kept = memory.run(memory.find(Selection(ids=ids), 1_000))
        assert unrevised(stored) == unrevised(kept)
    for answer in merged:
        told.update([answer.limit] if isinstance(answer, Refusal) else map(kind, answer))


def job(number: int, draft: dict[str, Any]) -> Job:
    after = tuple(Edge((number - back).to_bytes(16)) for back in draft["after"])
    return Job(id=number.to_bytes(16), task="t", **(draft | {"after": after}))


def unrevised(page: Page) -> list[JobRecord]:
    """Records without how often they changed: of what was replaced unseen there is one change."""
    return [replace(record, revision=0) for record in page.records]


def kind(receipt: Receipt) -> str:
    if not receipt.is_new:
        return "replaced" if receipt.replaced else "duplicate"
    return "foretold" if receipt.expected_ms is not None else "new"


def test_merged_appends_are_answered_as_one_by_one() -> None:
    answers_are_alike()

    assert set(told) >= {
        *("new", "foretold", "duplicate"),
        *("jobs", "bytes", "group", "wait", "deadline", "reused", "key", "after", "replaced"),
    }
