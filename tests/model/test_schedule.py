"""Schedules: what is due of a rule, and what `catch_up` makes of what was missed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.errors import BadOption, Undecodable
from backlane.model.cron import Cron
from backlane.model.ids import derived_id, derived_ids, id_ms, parse_id
from backlane.model.schedule import (
    At,
    Every,
    Rule,
    Spec,
    checked_rule,
    decode_spec,
    due,
    encode_spec,
    jitter_ms,
    spec_of,
    told,
    upcoming,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def spec(rule: Any, **fields: Any) -> Spec:
    return spec_of(rule, **fields)


# -- rules --


def test_an_interval_fires_at_its_multiples() -> None:
    rule = Every(timedelta(minutes=15))

    assert list(islice(rule.after(NOON_MS), 2)) == [NOON_MS + 15 * MINUTE, NOON_MS + 30 * MINUTE]
    assert next(rule.after(NOON_MS - 1)) == NOON_MS


def test_an_interval_counts_from_its_start() -> None:
    rule = Every(90, start=NOON + timedelta(seconds=7))

    assert list(islice(rule.after(NOON_MS - DAY), 2)) == [NOON_MS + 7_000, NOON_MS + 97_000]
    assert next(rule.after(NOON_MS + 7_000)) == NOON_MS + 97_000


def test_a_moment_fires_once() -> None:
    rule = At(NOON.astimezone(timezone(timedelta(hours=5))))

    assert list(rule.after(NOON_MS - 1)) == [NOON_MS]
    assert list(rule.after(NOON_MS)) == []


def test_an_interval_ends_with_the_calendar() -> None:
    assert list(Every(60).after(int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000))) == []


@pytest.mark.parametrize("interval", [0, 0.5, -1, float("nan"), float("inf"), "1m", None, True])
def test_an_interval_that_cannot_work_is_refused(interval: Any) -> None:
    with pytest.raises(BadOption, match="interval is"):
        Every(interval)


@pytest.mark.parametrize("moment", [datetime(2030, 1, 1), "2030-01-01", None, 5])  # noqa: DTZ001
def test_a_moment_that_could_mean_several_is_refused(moment: Any) -> None:
    with pytest.raises(BadOption):
        At(moment)
    if moment is not None:
        with pytest.raises(BadOption):
            Every(60, start=moment)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_a_moment_beyond_all_dates_is_refused(moment: datetime) -> None:
    """Before, putting such a schedule failed with an OverflowError, over HTTP with 500."""
    with pytest.raises(BadOption, match="no date in UTC"):
        At(moment)
    with pytest.raises(BadOption, match="no date in UTC"):
        Every(60, start=moment)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("0 3 * * *", Cron("0 3 * * *")),
        (timedelta(hours=1), Every(3600)),
        (Every(60), Every(60)),
        (At(NOON), At(NOON)),
        (Cron("@daily", "Europe/Paris"), Cron("@daily", "Europe/Paris")),
    ],
)
def test_a_rule_may_be_said_shortly(given: Any, right: Rule) -> None:
    assert checked_rule(given) == right
    assert hash(checked_rule(given)) == hash(right)
    assert spec(given).rule() == right


@pytest.mark.parametrize("given", [5, 5.0, None, b"0 3 * * *", NOON, ("0 3 * * *",)])
def test_what_is_no_rule_is_refused(given: Any) -> None:
    with pytest.raises(BadOption, match="is no rule"):
        checked_rule(given)


def test_a_zone_goes_with_a_text_alone() -> None:
    assert checked_rule("0 3 * * *", "Europe/Paris") == Cron("0 3 * * *", "Europe/Paris")
    with pytest.raises(BadOption, match="tz goes with"):
        checked_rule(timedelta(hours=1), "Europe/Paris")


@pytest.mark.parametrize(
    "wrong",
    [
        {"catch_up": "some"},
        {"catch_up": None},
        {"most": 0},
        {"most": 1_001},
        {"most": True},
        {"most": 2.0},
        {"jitter": -1},
        {"jitter": "5"},
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=f"{next(iter(wrong))} is"):
        spec("0 3 * * *", **wrong)


def test_rules_are_told_in_words() -> None:
    assert told(Cron("0 3 * * *", "Europe/Paris")) == "0 3 * * * (Europe/Paris)"
    assert told(Cron("0 3 * * *")) == "0 3 * * *"
    assert told(Every(90)) == "every 0:01:30"
    assert told(At(NOON)) == "at 2030-01-01T12:00:00+00:00"


# -- what is stored --


def test_a_spec_is_the_same_bytes_for_the_same_meaning() -> None:
    made = spec("0 3 * * *", tz="Europe/Paris", jitter=5)

    assert encode_spec(decode_spec(encode_spec(made))) == encode_spec(made)
    assert encode_spec(spec("0 3 * * *")) == b'{"cron":"0 3 * * *"}'


def test_a_spec_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    assert decode_spec(b'{"every_ms":60000,"soul":1}').rule() == Every(60)
    with pytest.raises(BadOption, match="update it"):
        decode_spec(b'{"sunset":true}').rule()


@pytest.mark.parametrize("stored", [b"", b"null", b"[]", b'{"cron":5}', b"\xff", b"[" * 9_999])
def test_a_spec_that_cannot_be_read_says_so(stored: bytes) -> None:
    with pytest.raises(Undecodable, match="put it anew"):
        decode_spec(stored)


# -- what is due --


def test_nothing_is_due_before_its_time() -> None:
    found = due(spec("0 3 * * *"), "s", NOON_MS, NOON_MS + MINUTE)

    assert (found.moments, found.last_ms) == ([], NOON_MS + MINUTE)
    assert found.next_ms == NOON_MS + 15 * HOUR


def test_a_due_time_counts_once() -> None:
    rule = spec(timedelta(minutes=1))
    first = due(rule, "s", NOON_MS - 1, NOON_MS)
    again = due(rule, "s", first.last_ms, NOON_MS)

    assert (first.moments, first.next_ms) == ([NOON_MS], NOON_MS + MINUTE)
    assert (again.moments, again.next_ms) == ([], NOON_MS + MINUTE)


@pytest.mark.parametrize(
    ("catch_up", "late_ms", "right"),
    [
        ("latest", 3 * HOUR + 5, [3 * HOUR]),
        ("latest", 5 * MINUTE, [0]),
        ("none", 3 * HOUR + 5, [3 * HOUR]),
        ("none", 3 * HOUR + MINUTE - 1, [3 * HOUR]),
        ("none", 3 * HOUR + MINUTE, []),
        ("all", 3 * HOUR + 5 * MINUTE, [0, HOUR, 2 * HOUR, 3 * HOUR]),
        ("all", 200 * HOUR, [number * HOUR for number in range(101, 201)]),
    ],
)
def test_what_was_missed_counts_as_catch_up_says(
    catch_up: Any, late_ms: int, right: list[int]
) -> None:
    found = due(spec(timedelta(hours=1), catch_up=catch_up), "s", NOON_MS - 1, NOON_MS + late_ms)

    assert [moment - NOON_MS for moment in found.moments] == right
    assert found.last_ms == NOON_MS + late_ms


def test_the_number_that_is_caught_up_with_can_be_set() -> None:
    rule = spec(timedelta(hours=1), catch_up="all", most=3)

    found = due(rule, "s", NOON_MS, NOON_MS + 9 * HOUR)

    assert found.moments == [NOON_MS + hour * HOUR for hour in (7, 8, 9)]


def test_a_clock_that_was_set_back_makes_nothing_due_again() -> None:
    rule = spec(timedelta(minutes=1))

    found = due(rule, "s", NOON_MS, NOON_MS - 2 * HOUR)

    assert found.moments == []
    assert (found.last_ms, found.next_ms) == (NOON_MS, NOON_MS + MINUTE)


def test_what_never_fires_again_says_so() -> None:
    found = due(spec(At(NOON)), "s", NOON_MS - 1, NOON_MS + DAY)

    assert (found.moments, found.next_ms) == ([NOON_MS], None)


@pytest.mark.parametrize(
    "rule", [Every(1), "* * * * * *", "*/5 * * * * *", "* * 1 1 *", "0 0 29 2 *"]
)
def test_a_long_absence_is_not_gone_through(rule: Any) -> None:
    """A worker that was away for years has other work to do."""
    begun = time.perf_counter()

    found = due(spec(rule, catch_up="all", most=50), "s", NOON_MS - 20 * 365 * DAY, NOON_MS)

    assert 0 < len(found.moments) <= 50
    assert time.perf_counter() - begun < 2


@given(
    st.integers(1, 10_000),
    st.integers(0, 500_000_000),
    st.integers(0, 500_000_000),
    st.integers(1, 20),
)
def test_the_newest_are_those_of_all(seconds: int, after: int, span: int, most: int) -> None:
    rule = spec(Every(seconds), catch_up="all", most=most)
    last = NOON_MS + after

    found = due(rule, "s", last, last + span)

    step = seconds * 1000
    newest = (last + span) // step * step
    number = min(most, (last + span) // step - last // step)
    assert found.moments == [newest - step * it for it in reversed(range(number))]


def test_the_next_times_are_told() -> None:
    assert upcoming(spec("0 3 * * *"), "s", NOON_MS, 2) == [
        NOON_MS + 15 * HOUR,
        NOON_MS + 39 * HOUR,
    ]
    assert upcoming(spec(At(NOON)), "s", NOON_MS, 3) == []


# -- jitter --


def test_jitter_is_the_same_wherever_it_is_drawn() -> None:
    rule = spec(timedelta(minutes=1), jitter=30)
    drawn = [jitter_ms(rule, "s", NOON_MS + number * MINUTE) for number in range(1_000)]

    assert drawn == [jitter_ms(rule, "s", NOON_MS + number * MINUTE) for number in range(1_000)]
    assert min(drawn) >= 0
    assert max(drawn) <= 30_000
    assert 13_500 < sum(drawn) / 1_000 < 16_500
    assert jitter_ms(rule, "other", NOON_MS) != drawn[0]
    assert jitter_ms(spec(timedelta(minutes=1)), "s", NOON_MS) == 0


# -- ids --


def test_an_id_is_derived_from_a_schedule_and_its_due_time() -> None:
    made = derived_id(NOON_MS, "nightly")

    assert made == derived_id(NOON_MS, "nightly")
    assert id_ms(made) == NOON_MS
    assert parse_id(made) == made
    assert made[8] >> 6 == 0b10
    others = [derived_id(NOON_MS, "nightly", ""), derived_id(NOON_MS, "other")]
    others += [derived_id(NOON_MS + 1, "nightly"), derived_id(NOON_MS, "night", "ly")]
    assert len({made, *others}) == 5


def test_derived_ids_do_not_meet() -> None:
    assert len({derived_id(NOON_MS, str(number)) for number in range(50_000)}) == 50_000


def test_ids_of_one_name_follow_each_other_and_meet_none_of_another() -> None:
    ours, theirs = derived_ids(NOON_MS, b"a slice", 1_000), derived_ids(NOON_MS, b"other", 1_000)

    assert ours == sorted(set(ours)) == derived_ids(NOON_MS, b"a slice", 1_000)
    assert not set(ours) & set(theirs)
    assert {id_ms(made) for made in ours} == {NOON_MS}
    assert all(parse_id(made) == made for made in ours)
