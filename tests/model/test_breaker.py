"""The breaker's rule, example by example, and what holds whatever happens to it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backlane.model import breaker as model
from backlane.model.breaker import Breaker, Standing
from backlane.model.outcome import (
    Cancelled,
    Crashed,
    ErrorRecord,
    Failed,
    Outcome,
    Reason,
    Released,
    RetryAfter,
    Snoozed,
    Succeeded,
)

REFUSED = ErrorRecord("ConnectionError", "connection refused\nby 192.0.2.1")
GOOD = Succeeded()
BAD = RetryAfter(1_000, REFUSED)
START_MS = 1_900_000_000_000
MIDDLE = 0.5  # the draw without jitter


def after(outcomes: list[Outcome], now_ms: int = START_MS, breaker: Breaker = Breaker()) -> Breaker:  # noqa: B008 - frozen
    jobs = [(number.to_bytes(16), outcome) for number, outcome in enumerate(outcomes)]
    return model.settled(breaker, jobs, now_ms, MIDDLE)


def passing(breaker: Breaker, now_ms: int) -> Breaker:
    """All trials that may run do, and succeed, until there are no more."""
    while number := model.room(breaker, now_ms):
        jobs = [bytes([number]) * 16 + bytes([at]) for at in range(number)]
        breaker = model.tried(breaker, jobs, now_ms)
        breaker = model.settled(breaker, [(job, GOOD) for job in jobs], now_ms, MIDDLE)
    return breaker


# -- closed --


def test_ten_failures_in_a_row_open_it():
    assert after([BAD] * 9).state is Standing.CLOSED

    opened = after([BAD] * 10)

    assert opened.state is Standing.OPEN
    assert opened.for_ms == 30_000
    assert opened.reason == (
        "10 attempts failed in a row; the last: ConnectionError: connection refused"
    )


def test_half_of_twenty_open_it():
    turns: list[Outcome] = [GOOD, BAD]

    assert after(turns * 9).state is Standing.CLOSED
    assert after(turns * 10).state is Standing.OPEN


def test_fewer_than_half_do_not():
    assert after([GOOD, GOOD, BAD] * 100).state is Standing.CLOSED


def test_what_is_older_than_a_minute_does_not_count():
    old = after([GOOD, BAD] * 9)

    breaker = after([GOOD, BAD], START_MS + 70_000, old)

    assert breaker.state is Standing.CLOSED
    record = model.resource_record("stripe", breaker, START_MS + 70_000)
    assert (record.succeeded, record.failed) == (1, 1)


def test_what_says_nothing_of_the_resource_does_not_count():
    own_fault = Failed(Reason.ERROR, REFUSED)
    others = [Released(), Snoozed(5), Cancelled(), Crashed(alone=True, error=REFUSED), own_fault]

    breaker = after([*others] * 20)

    assert breaker == Breaker()


def test_a_timeout_counts_even_where_it_is_the_last_attempt():
    assert after([Failed(Reason.TIMEOUT, REFUSED)] * 10).state is Standing.OPEN


# -- open, and trying --


def test_an_open_one_gives_nothing_until_its_time_has_come():
    opened = after([BAD] * 10)

    assert model.room(opened, START_MS + 29_999) == 0
    assert model.opens_in_ms(opened, START_MS + 29_000) == 1_000
    assert model.room(opened, START_MS + 30_000) == 1


def test_rounds_of_one_two_and_four_trials_close_it():
    now = START_MS + 30_000
    breaker = after([BAD] * 10)
    rounds = []

    while (number := model.room(breaker, now)) is not None:
        rounds.append(number)
        jobs = [bytes([len(rounds), at]) for at in range(number)]
        breaker = model.tried(breaker, jobs, now)
        assert model.room(breaker, now) == 0
        breaker = model.settled(breaker, [(job, GOOD) for job in jobs], now, MIDDLE)

    assert rounds == [1, 2, 4]
    assert breaker.state is Standing.CLOSED


def test_a_failed_trial_opens_it_for_twice_as_long():
    breaker = model.tried(after([BAD] * 10), [b"trial"], START_MS + 30_000)

    breaker = model.settled(breaker, [(b"trial", BAD)], START_MS + 31_000, MIDDLE)

    assert (breaker.state, breaker.for_ms, breaker.trips) == (Standing.OPEN, 60_000, 2)
    assert breaker.reason == "a trial failed; the last: ConnectionError: connection refused"


def test_it_is_never_open_for_much_longer_than_ten_minutes():
    breaker, now, waits = after([BAD] * 10), START_MS, []
    for _ in range(12):
        assert breaker.for_ms is not None
        waits.append(breaker.for_ms)
        now += breaker.for_ms
        breaker = model.tried(breaker, [b"trial"], now)
        breaker = model.settled(breaker, [(b"trial", BAD)], now, MIDDLE)

    assert waits == [30_000, 60_000, 120_000, 240_000, 480_000] + [600_000] * 7


def test_what_began_before_it_opened_decides_nothing():
    opened = after([BAD] * 10)
    trying = model.tried(opened, [b"trial"], START_MS + 30_000)

    assert after([GOOD] * 50 + [BAD] * 50, breaker=opened) == opened
    assert after([BAD] * 50, START_MS + 31_000, trying) == trying


def test_a_trial_that_says_nothing_is_replaced_at_once():
    trying = model.tried(after([BAD] * 10), [b"trial"], START_MS + 30_000)

    trying = model.settled(trying, [(b"trial", Released())], START_MS + 30_500, MIDDLE)

    assert model.room(trying, START_MS + 30_500) == 1


def test_a_trial_whose_worker_died_is_replaced_after_a_minute():
    trying = model.tried(after([BAD] * 10), [b"lost"], START_MS + 30_000)

    assert model.room(trying, START_MS + 89_999) == 0
    assert model.opens_in_ms(trying, START_MS + 80_000) == 10_000
    assert model.room(trying, START_MS + 90_000) == 1


def test_a_trial_that_takes_long_counts_all_the_same():
    """Else a resource whose jobs all run for minutes would be tried for ever."""
    trying = model.tried(after([BAD] * 10), [b"slow"], START_MS + 30_000)
    trying = model.tried(trying, [b"another"], START_MS + 90_000)

    trying = model.settled(trying, [(b"slow", GOOD)], START_MS + 100_000, MIDDLE)

    assert (trying.round, trying.passed) == (1, 0)


def test_one_that_trips_again_within_a_minute_stays_open_for_longer():
    closed = passing(after([BAD] * 10), START_MS + 30_000)

    soon = after([BAD] * 10, START_MS + 60_000, closed)
    later = after([BAD] * 10, START_MS + 100_000, closed)

    assert (soon.for_ms, soon.trips) == (60_000, 2)
    assert (later.for_ms, later.trips) == (30_000, 1)


# -- by hand --


def test_one_opened_by_hand_waits_to_be_closed():
    opened = model.opened(Breaker(), None, START_MS)

    assert model.room(opened, START_MS + 10**9) == 0
    assert model.opens_in_ms(opened, START_MS) is None
    assert model.room(model.closed(START_MS), START_MS) is None


def test_one_opened_by_hand_for_a_time_is_tried_after_it():
    opened = model.opened(Breaker(), 5_000, START_MS)

    assert model.room(opened, START_MS + 4_999) == 0
    assert model.room(opened, START_MS + 5_000) == 1


# -- clocks --


def test_a_clock_set_back_makes_it_try_early_and_never_late():
    opened = after([BAD] * 10)
    trying = model.tried(opened, [b"trial"], START_MS + 30_000)

    assert model.room(opened, START_MS - 3_600_000) == 1
    assert model.room(trying, START_MS - 3_600_000) == 1


# -- whatever happens --

OUTCOMES = st.sampled_from(
    [GOOD, BAD, Released(), Snoozed(1), Failed(Reason.TIMEOUT, REFUSED), Cancelled()]
)
DRAWS = st.floats(0, 1, exclude_max=True)


@given(DRAWS)
def test_the_wait_has_a_fifth_of_jitter(draw: float):
    breaker = model.settled(Breaker(), [(b"", BAD)] * 10, START_MS, draw)

    assert breaker.for_ms is not None
    assert 24_000 <= breaker.for_ms <= 36_000


@given(st.lists(OUTCOMES, max_size=60), st.data())
def test_a_batch_is_the_same_as_one_after_another(outcomes: list[Outcome], data: st.DataObject):
    jobs = [(number.to_bytes(16), outcome) for number, outcome in enumerate(outcomes)]
    cut = data.draw(st.integers(0, len(jobs)))

    whole = model.settled(Breaker(), jobs, START_MS, MIDDLE)
    first = model.settled(Breaker(), jobs[:cut], START_MS, MIDDLE)

    assert model.settled(first, jobs[cut:], START_MS, MIDDLE) == whole


class Lane(RuleBasedStateMachine):
    """A store with one resource: claims, ends and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now = Breaker(), START_MS
        self.running: list[bytes] = []
        self.made = 0

    @rule(most=st.integers(1, 20))
    def claim(self, most: int) -> None:
        room = model.room(self.breaker, self.now)
        number = most if room is None else min(most, room)
        jobs = [(self.made + at).to_bytes(16) for at in range(number)]
        self.made += number
        self.running += jobs
        self.breaker = model.tried(self.breaker, jobs, self.now)

    @precondition(lambda self: self.running)
    @rule(outcome=OUTCOMES, draw=DRAWS, data=st.data())
    def end(self, outcome: Outcome, draw: float, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.running))
        self.running.remove(job)
        self.breaker = model.settled(self.breaker, [(job, outcome)], self.now, draw)

    @precondition(lambda self: self.running)
    @rule(draw=DRAWS)
    def all_fail(self, draw: float) -> None:
        ended = [(job, BAD) for job in self.running]
        self.running.clear()
        self.breaker = model.settled(self.breaker, ended, self.now, draw)

    @precondition(lambda self: self.running)
    @rule()
    def a_worker_dies(self) -> None:
        self.running.clear()

    @rule(ms=st.sampled_from([1, 1_000, 30_000, 60_000, 3_600_000, -3_600_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(for_ms=st.sampled_from([None, 1_000]))
    def open(self, for_ms: int | None) -> None:
        self.breaker = model.opened(self.breaker, for_ms, self.now)

    @rule()
    def close(self) -> None:
        self.breaker = model.closed(self.now)

    @invariant()
    def it_survives_its_store(self) -> None:
        stored = msgspec.msgpack.encode(self.breaker)
        assert msgspec.msgpack.decode(stored, type=Breaker) == self.breaker
        assert len(stored) < 1_200

    @invariant()
    def it_never_asks_for_more_than_a_round(self) -> None:
        room = model.room(self.breaker, self.now)
        assert room is None or 0 <= room <= model.ROUNDS[self.breaker.round]
        assert (room is None) == (self.breaker.state is Standing.CLOSED)

    @invariant()
    def it_comes_to_an_end_unless_told_to_wait(self) -> None:
        """Some time from now, a trial may run: no breaker waits for ever by itself."""
        wait = model.opens_in_ms(self.breaker, self.now)
        if self.breaker.state is Standing.CLOSED or self.breaker.reason == "by hand":
            return
        assert wait is not None
        assert 0 <= wait <= 1.2 * model.LONGEST_OPEN_MS
        assert model.room(self.breaker, self.now + wait)

    @invariant()
    def it_tells_of_itself(self) -> None:
        record = model.resource_record("stripe", self.breaker, self.now)
        assert (record.reason is None) == (record.state == "closed")
        assert record.failed < 20 or record.failed < record.succeeded + record.failed


TestLane = Lane.TestCase
