"""What is in line, of all that is ready."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backlane.model.queue import in_line

# Some jobs: priority, levels that ageing gave, and whether the job's resource is down.
jobs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()))


def counts(levels: list[int]) -> dict[int, int]:
    return {level: levels.count(level) for level in levels}


@given(jobs)
def test_all_that_is_withheld_is_left_out_and_nothing_else(jobs: list[tuple[int, int, bool]]):
    ready = counts([priority for priority, _, _ in jobs])
    withheld = counts([min(9, priority + aged) for priority, aged, is_down in jobs if is_down])

    left = in_line(ready, withheld)

    assert sum(left.values()) == sum(not is_down for _, _, is_down in jobs)
    assert all(0 <= left[priority] <= ready[priority] for priority in ready)


@given(jobs)
def test_while_nothing_has_aged_each_priority_is_exact(jobs: list[tuple[int, int, bool]]):
    ready = counts([priority for priority, _, _ in jobs])
    withheld = counts([priority for priority, _, is_down in jobs if is_down])

    left = in_line(ready, withheld)

    in_fact = counts([priority for priority, _, is_down in jobs if not is_down])
    assert {priority: number for priority, number in left.items() if number} == in_fact
