"""Tickets: a place that is kept for whoever brings the right text back."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from backlane.model.pressure.ticket import Ticket, checked, signed, ticket

SECRET = b"s" * 32
NOW = 1_800_000_000_000
names = st.from_regex(re.compile(r"[A-Za-z0-9_.:-]{1,20}", re.ASCII), fullmatch=True)
groups = st.none() | st.text(max_size=20)
slots = st.integers(NOW, NOW + 600_000)
places = st.integers(1, 100_000)


@given(slots, places, names, groups)
def test_a_ticket_comes_back_as_it_was_given(
    slot: int, number: int, queue: str, group: str | None
) -> None:
    given = ticket(slot, number, NOW)

    text = signed(given, SECRET, queue, group)

    assert checked(text, SECRET, queue, NOW, group) == given
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", text)


@given(slots, names, names)
def test_a_ticket_of_another_queue_is_none(slot: int, queue: str, other: str) -> None:
    text = signed(ticket(slot, 1, NOW), SECRET, queue)

    assert (checked(text, SECRET, other, NOW) is None) == (other != queue)


@given(slots, names, st.text(max_size=20))
def test_a_group_s_ticket_is_not_its_queue_s(slot: int, queue: str, group: str) -> None:
    given = ticket(slot, 1, NOW)

    assert checked(signed(given, SECRET, queue, group), SECRET, queue, NOW) is None
    assert checked(signed(given, SECRET, queue), SECRET, queue, NOW, group) is None


@given(st.none() | st.text() | st.text(alphabet="ABab01-_=", min_size=38, max_size=44))
def test_whatever_else_comes_is_none(text: str | None) -> None:
    assert checked(text, SECRET, "mail", NOW) is None


@given(slots, st.integers(0, 39), st.sampled_from("ABCDEFabcdef0123456789-_"))
def test_a_damaged_ticket_is_none(slot: int, at: int, letter: str) -> None:
    text = signed(ticket(slot, 1, NOW), SECRET, "mail")

    damaged = text[:at] + letter + text[at + 1 :]

    assert (checked(damaged, SECRET, "mail", NOW) is None) == (damaged != text)
    assert checked(text[:at], SECRET, "mail", NOW) is None


@given(slots, st.binary(min_size=1, max_size=40))
def test_another_store_s_ticket_is_none(slot: int, secret: bytes) -> None:
    text = signed(ticket(slot, 1, NOW), secret, "mail")

    assert checked(text, SECRET, "mail", NOW) is None


@given(st.integers(0, 300_000))
def test_a_place_is_kept_half_as_long_as_its_wait_and_at_least_a_minute(wait: int) -> None:
    given = ticket(NOW + wait, 1, NOW)
    text = signed(given, SECRET, "mail")

    kept = given.until_ms - given.slot_ms
    assert max(60_000, wait // 2 - 999) <= kept <= max(60_000, wait // 2)
    assert checked(text, SECRET, "mail", given.until_ms) == given
    assert checked(text, SECRET, "mail", given.until_ms + 1) is None


@given(st.integers(-(10**6), 10**6))
def test_a_ticket_is_due_from_its_slot_on(late: int) -> None:
    assert Ticket(NOW, NOW + 60_000, 1).is_due(NOW + late) == (late >= -100)
