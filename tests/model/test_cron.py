"""Cron: what expressions mean, and which are refused."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import islice, pairwise

import pytest

from backlane.errors import BadOption
from backlane.model.cron import Cron, is_fixed

START = datetime(2030, 1, 1, tzinfo=UTC)  # a Tuesday


def fires(expression: str, number: int = 3, *, tz: str = "UTC", name: str = "") -> list[str]:
    """The first times after the start of 2030, as a clock in the zone shows them."""
    rule = Cron(expression, tz)
    found = islice(rule.after(int(START.timestamp()), name), number)
    return [datetime.fromtimestamp(second, UTC).strftime("%m-%d %H:%M:%S") for second in found]


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("0 3 * * *", ["01-01 03:00:00", "01-02 03:00:00"]),
        ("*/20 * * * *", ["01-01 00:20:00", "01-01 00:40:00"]),
        ("0 9 * * MON-FRI", ["01-01 09:00:00", "01-02 09:00:00"]),
        ("0 9 * * mon", ["01-07 09:00:00", "01-14 09:00:00"]),
        ("0 0 1 JAN,mar *", ["03-01 00:00:00", "01-01 00:00:00"]),
        ("0 0 L * *", ["01-31 00:00:00", "02-28 00:00:00"]),
        ("0 0 LW * *", ["01-31 00:00:00", "02-28 00:00:00"]),
        ("0 0 * * FRI#2", ["01-11 00:00:00", "02-08 00:00:00"]),
        ("0 0 * * 5L", ["01-25 00:00:00", "02-22 00:00:00"]),
        ("0 0 13 * 5", ["01-04 00:00:00", "01-11 00:00:00"]),  # either, as cron has it
        ("30 0 3 * * *", ["01-01 03:00:30", "01-02 03:00:30"]),
        ("*/15 * * * * *", ["01-01 00:00:15", "01-01 00:00:30"]),
        ("  0   3 * *   * ", ["01-01 03:00:00", "01-02 03:00:00"]),
        ("@hourly", ["01-01 01:00:00", "01-01 02:00:00"]),
        ("@daily", ["01-02 00:00:00", "01-03 00:00:00"]),
        ("@midnight", ["01-02 00:00:00", "01-03 00:00:00"]),
        ("@weekly", ["01-06 00:00:00", "01-13 00:00:00"]),
        ("@monthly", ["02-01 00:00:00", "03-01 00:00:00"]),
        ("@Yearly", ["01-01 00:00:00", "01-01 00:00:00"]),
        ("@annually", ["01-01 00:00:00", "01-01 00:00:00"]),
    ],
)
def test_an_expression_fires_when_it_says(expression: str, right: list[str]) -> None:
    assert fires(expression, 2) == right


def test_a_time_zone_is_obeyed() -> None:
    assert fires("0 3 * * *", 1, tz="Asia/Kathmandu") == ["01-01 21:15:00"]
    assert fires("0 3 * * *", 1, tz="Europe/Paris") == ["01-01 02:00:00"]


def test_a_leap_day_is_found_years_ahead() -> None:
    found = next(Cron("0 0 29 2 *", "Europe/Paris").after(int(START.timestamp())))

    assert datetime.fromtimestamp(found, UTC) == datetime(2032, 2, 28, 23, tzinfo=UTC)


@pytest.mark.parametrize("expression", ["0 0 29 2 *", "*/5 * 29 2 *", "@yearly"])
def test_rules_end_with_the_calendar(expression: str) -> None:
    end = int(datetime(9999, 12, 1, tzinfo=UTC).timestamp())

    assert list(Cron(expression, "Europe/Paris").after(end)) == []


def test_what_is_a_fraction_later_is_not_told_again() -> None:
    rule = Cron("0 3 * * *")
    (first, second) = islice(rule.after(int(START.timestamp())), 2)

    assert next(rule.after(first)) == second
    assert next(rule.after(first - 1)) == first


# -- H --


def test_a_drawn_number_is_the_schedules_own() -> None:
    minutes = Counter(fires("H * * * *", 1, name=f"s{number}")[0] for number in range(600))

    assert fires("H * * * *", name="a") == fires("H * * * *", name="a")
    assert len(minutes) > 55
    assert max(minutes.values()) < 30


@pytest.mark.parametrize(
    ("field", "allowed"),
    [("H", range(60)), ("H(10-19)", range(10, 20)), ("H(5-5)", range(5, 6))],
)
def test_it_is_drawn_from_a_range(field: str, allowed: range) -> None:
    drawn = {int(fires(f"{field} * * * *", 1, name=f"s{number}")[0][9:11]) for number in range(400)}

    assert drawn <= set(allowed)
    assert len(drawn) > len(allowed) * 0.9


def test_a_drawn_step_is_moved_by_the_name() -> None:
    found = [fires("H/15 * * * *", 4, name=name) for name in ("a", "b", "c", "d", "e")]

    for each in found:
        minutes = [int(moment[9:11]) for moment in each]
        assert [(b - a) % 60 for a, b in pairwise(minutes)] == [15, 15, 15]
    assert len({tuple(each) for each in found}) > 1


def test_every_field_can_be_drawn() -> None:
    (moment,) = fires("H H H H * *", 1, name="report")
    assert moment == fires("H H H H * *", 1, name="report")[0]
    assert fires("0 0 * H H", 1, name="report")
    assert fires("0 0 H(20-28) * *", 1, name="report")
    assert fires("H,30 3 * * THU", 1, name="report")


def test_names_of_days_are_no_draws() -> None:
    assert fires("0 9 * * THU", 1) == ["01-03 09:00:00"]


# -- fixed or not --


@pytest.mark.parametrize(
    ("expression", "fixed"),
    [
        ("30 2 * * *", True),
        ("0 30 2 * * *", True),
        ("0,30 1-3 * * 1-5", True),
        ("H H * * *", True),
        ("H(0-29) 2 * * *", True),
        ("@daily", True),
        ("@hourly", False),
        ("*/5 2 * * *", False),
        ("30 * * * *", False),
        ("H/15 2 * * *", False),
        ("H(0-29)/10 2 * * *", False),
        ("* 30 2 * * *", False),
    ],
)
def test_a_rule_means_times_of_day_or_real_time(expression: str, fixed: bool) -> None:
    assert is_fixed(expression) is fixed


def test_a_skipped_time_of_day_fires_once_after_it() -> None:
    """On 31 March 2030 Paris has no 02:30."""
    rule = Cron("0,30 2 * * *", "Europe/Paris")
    at = int(datetime(2030, 3, 31, 0, tzinfo=UTC).timestamp())

    found = [datetime.fromtimestamp(second, UTC) for second in islice(rule.after(at), 2)]

    assert found == [
        datetime(2030, 3, 31, 1, tzinfo=UTC),  # 03:00 there, once for 02:00 and 02:30
        datetime(2030, 4, 1, 0, tzinfo=UTC),
    ]


def test_a_time_of_day_that_comes_twice_fires_once() -> None:
    """On 27 October 2030 Paris has 02:30 twice."""
    rule = Cron("30 2 * * *", "Europe/Paris")
    at = int(datetime(2030, 10, 27, 0, tzinfo=UTC).timestamp())

    found = [datetime.fromtimestamp(second, UTC) for second in islice(rule.after(at), 2)]

    assert found == [
        datetime(2030, 10, 27, 0, 30, tzinfo=UTC),
        datetime(2030, 10, 28, 1, 30, tzinfo=UTC),
    ]


# -- what is refused --


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("@never", "has 1 fields"),
        ("61 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 32 * *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * 9", "bad day-of-week"),
        ("-1 * * * *", "bad minute"),
        ("a * * * *", "bad minute"),
        ("1-0 * * * *", "bad minute"),
        ("*/0 * * * *", "bad minute"),
        ("1,,2 * * * *", "bad minute"),
        ("٣ * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("H(0-60) * * * *", "outside of 0-59"),
        ("H(9-3) * * * *", "outside of"),
        ("0 0 H(28-31) * *", "use L for the last day"),
        ("H/61 * * * *", "a step of 61"),
        ("H/0 * * * *", "a step of 0"),
        ("H() * * * *", "use H, H(0-29), H/15"),
        ("HH * * * *", "use H, H(0-29), H/15"),
        ("H-5 * * * *", "use H, H(0-29), H/15"),
        ("5-H * * * *", "bad minute"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_part(expression: str, why: str) -> None:
    with pytest.raises(BadOption, match=f"(?i){why.replace('(', '[(]').replace(')', '[)]')}"):
        Cron(expression)


@pytest.mark.parametrize("expression", [None, 5, b"0 3 * * *", ["0 3 * * *"]])
def test_what_is_no_text_is_refused(expression: object) -> None:
    with pytest.raises(BadOption, match="use a text"):
        Cron(expression)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tz", ["Europe/Pari", "", "../etc/passwd", "/etc/localtime", "CET7", "a\0b"]
)
def test_an_unknown_zone_is_refused(tz: str) -> None:
    with pytest.raises(BadOption, match="no time zone"):
        Cron("0 3 * * *", tz)


@pytest.mark.parametrize("tz", [None, 5, UTC])
def test_what_is_no_name_of_a_zone_is_refused(tz: object) -> None:
    with pytest.raises(BadOption, match="tz is"):
        Cron("0 3 * * *", tz)  # type: ignore[arg-type]


def test_the_nearest_zone_is_named() -> None:
    with pytest.raises(BadOption, match="did you mean 'Europe/Paris'"):
        Cron("0 3 * * *", "Europe/Pari")


def test_rules_are_equal_by_what_they_say() -> None:
    assert Cron("0  3 * * *") == Cron("0 3 * * *")
    assert Cron("0 3 * * *") != Cron("0 3 * * *", "Europe/Paris")
    assert len({Cron("0 3 * * *"), Cron("0 3 * * *")}) == 1
    assert repr(Cron("0 3 * * *", "Europe/Paris")) == "Cron('0 3 * * *', 'Europe/Paris')"
