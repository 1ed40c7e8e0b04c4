"""Outcomes and what travels with them: the same on both sides of a pipe."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.model.job import FINAL, WAITING, Job, Key, Lane, Lease, Note, Policy, Progress, State
from backlane.model.outcome import (
    Cancelled,
    Crashed,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Settlement,
    Snoozed,
    Succeeded,
)

numbers = st.integers(0, 2**63 - 1)
errors = st.builds(ErrorRecord, st.text(), st.text(), st.text(), st.text())
outcomes = st.one_of(
    st.builds(Succeeded, st.none() | st.binary()),
    st.builds(RetryAfter, numbers, errors),
    st.builds(Snoozed, numbers, st.booleans()),
    st.builds(Cancelled, st.none() | errors),
    st.builds(Failed, st.sampled_from(Reason), errors),
    st.just(Released()),
    st.builds(Crashed, st.booleans(), errors),
)
ids = st.binary(min_size=16, max_size=16)
optional_ms = st.none() | numbers
policies = st.builds(
    Policy, numbers, numbers, numbers, optional_ms, optional_ms, retries_timeout=st.booleans()
)
leases = st.builds(
    Lease,
    job=ids,
    token=numbers,
    attempt=numbers,
    queue=st.text(),
    task=st.none() | st.text(),
    body=st.binary(),
    headers=st.none() | st.binary(),
    lane=st.sampled_from(Lane),
    policy=policies,
    group=st.none() | st.text(),
    deadline_ms=optional_ms,
    parked_ms=optional_ms,
    cancelled=st.booleans(),
)
notes = st.builds(
    Note, ids, numbers, st.builds(Progress, st.none() | st.floats(0, 1), st.none() | st.text())
)


def over_the_pipe(value: object, kind: object) -> object:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)


@given(st.lists(st.builds(Settlement, ids, numbers, outcomes, numbers)))
def test_a_settlement_is_the_same_after_the_pipe(settlements: list[Settlement]) -> None:
    arrived = over_the_pipe(settlements, list[Settlement])

    assert arrived == settlements
    for sent, got in zip(settlements, arrived, strict=True):  # type: ignore[call-overload]
        assert type(got.outcome) is type(sent.outcome)


@given(st.lists(leases))
def test_a_lease_is_the_same_after_the_pipe(given_leases: list[Lease]) -> None:
    assert over_the_pipe(given_leases, list[Lease]) == given_leases


@given(notes)
def test_a_note_is_the_same_after_the_pipe(note: Note) -> None:
    assert over_the_pipe(note, Note) == note


@pytest.mark.parametrize("damaged", [[], ["unknown"], ["retry"], ["failed", "no reason", 1], {}, 7])
def test_what_is_no_outcome_is_refused(damaged: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(damaged), type=Outcome)


def test_values_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Succeeded(b"1").result = b"2"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Policy().attempts = 2  # type: ignore[misc]


def test_every_state_is_waiting_or_final_and_not_both() -> None:
    assert {*WAITING, *FINAL} == set(State)
    assert not FINAL.intersection(WAITING)
    assert [state for state in State if state.is_final] == [
        State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED,
    ]  # fmt: skip


@given(st.binary(), st.none() | st.binary())
def test_a_jobs_size_is_its_body_and_headers(body: bytes, headers: bytes | None) -> None:
    job = Job(id=b"i" * 16, queue="mail", task=None, body=body, headers=headers)

    assert job.size == len(body) + len(headers or b"")


@given(st.text(), st.text(), st.text(), st.text())
def test_a_key_is_its_scope_and_its_name(a: str, b: str, c: str, d: str) -> None:
    assert (Key(a, b) == Key(c, d)) == ((a, b) == (c, d))
    assert hash(Key(a, b)) == hash(Key(a, b))
