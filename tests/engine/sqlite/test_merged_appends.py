"""Merged appends, whatever is in them: answered as the memory engine answers one by one."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st

from backlane.engine.memory import MemoryEngine
from backlane.engine.plan import finish
from backlane.engine.protocol import Admission
from backlane.engine.sqlite.append import append_all
from backlane.engine.sqlite.migrations import migrate
from backlane.engine.sqlite.transaction import SqliteTx
from backlane.model.clock import FakeClock
from backlane.model.job import Idempotency, Job, Key, Receipt, Refusal
from backlane.model.pressure.pace import Pace
from backlane.model.queue import Bounds

drafts = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(["mail", "mail", "video"]),
        "body": st.sampled_from([b"", b"12", b"12345"]),
        "priority": st.sampled_from([1, 5, 5, 5, 9]),
        "delay_ms": st.sampled_from([0, 0, 0, 5_000]),
        "expires_ms": st.sampled_from([None, None, None, 900, 30_000]),
        "key": st.sampled_from([None, None, None, Key("send", "a"), Key("send", "b")]),
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
            {"mail": Bounds(max_jobs=12, max_bytes=40), "video": Bounds(20, group_share=0.3)},
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
    sent = [
        ([Job(id=next(numbers).to_bytes(16), task="t", **draft) for draft in drafts], admission)
        for drafts, admission in given
    ]
    memory = MemoryEngine(clock)
    connection = apsw.Connection(":memory:")
    connection.execute("begin")
    migrate(connection, "jobs.db")

    one_by_one = [memory.run(memory.append(*batch)) for batch in sent]
    merged = finish(append_all(SqliteTx(connection), clock, sent))

    assert merged == one_by_one
    for answer in merged:
        told.update([answer.limit] if isinstance(answer, Refusal) else map(kind, answer))


def kind(receipt: Receipt) -> str:
    if not receipt.is_new:
        return "duplicate"
    return "foretold" if receipt.expected_ms is not None else "new"


def test_merged_appends_are_answered_as_one_by_one() -> None:
    answers_are_alike()

    assert set(told) >= {
        *("new", "foretold", "duplicate"),
        *("jobs", "bytes", "group", "wait", "deadline", "reused"),
    }
