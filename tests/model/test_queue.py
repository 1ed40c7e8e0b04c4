"""Queues: what can be declared, and the bounds that follow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.errors import BadOption
from backlane.model.queue import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_JOBS,
    Bounds,
    Depth,
    Queue,
    checked_name,
    headroom,
)

names = st.from_regex(re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII), fullmatch=True)


@given(names)
def test_a_name_of_the_allowed_letters_is_taken(name: str) -> None:
    assert checked_name(name, "queue") == name
    assert Queue(name).name == name


@given(st.text())
def test_any_other_name_is_refused_quoting_it(name: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", name):
        return

    with pytest.raises(BadOption) as refused:
        checked_name(name, "queue")
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a/b", "../x", "x" * 129, "naïve", "a\n", "a\x00", "{{x}}", "a;b", 7, None],
)
def test_hostile_names_are_refused(name) -> None:
    with pytest.raises(BadOption, match="cannot name a queue"):
        Queue(name)


def test_a_queue_left_alone_has_the_default_bounds() -> None:
    assert Queue("mail").bounds == Bounds(DEFAULT_MAX_JOBS, DEFAULT_MAX_BYTES)
    assert (DEFAULT_MAX_JOBS, DEFAULT_MAX_BYTES) == (100_000, 256 * 1024 * 1024)


@given(st.none() | st.integers(1, 10**12), st.none() | st.integers(1, 10**12))
def test_what_is_declared_is_what_bounds(max_jobs: int | None, max_bytes: int | None) -> None:
    bounds = Queue("mail", max_jobs=max_jobs, max_bytes=max_bytes).bounds

    assert bounds.max_jobs == (max_jobs or DEFAULT_MAX_JOBS)
    assert bounds.max_bytes == (max_bytes or DEFAULT_MAX_BYTES)


@pytest.mark.parametrize("option", ["max_jobs", "max_bytes", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10", float("inf")])
def test_a_bound_that_cannot_work_is_refused_naming_it(option: str, value: object) -> None:
    with pytest.raises(BadOption, match=rf"'mail': {option} is"):
        Queue("mail", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["fork", "threads", "", 1])
def test_an_unknown_place_to_run_is_refused(where) -> None:
    with pytest.raises(BadOption, match="runs_in"):
        Queue("mail", runs_in=where)


@given(st.integers(1, 10**9))
def test_headroom_is_a_tenth_and_at_least_ten(max_jobs: int) -> None:
    assert headroom(max_jobs) == max(10, max_jobs // 10)


def test_depth_is_all_that_is_not_finished() -> None:
    assert Depth(scheduled=1, ready=2, running=3, blocked=4).jobs == 10
