"""Ids: UUIDv7, unique and ever increasing within a process."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.errors import BadOption
from backlane.model import ids
from backlane.model.ids import id_ms, id_time, new_id, new_ids, parse_id

NOW_MS = 1_893_456_000_000
moments = st.integers(0, 2**47)


@pytest.fixture(autouse=True, scope="module")
def _process_of_its_own() -> Iterator[None]:
    """Ids never go back within a process: those made here must not lift other tests' ids."""
    before = ids._last_ms, ids._counter
    yield
    ids._last_ms, ids._counter = before


@given(moments)
def test_an_id_is_a_uuid_of_version_7(ms: int) -> None:
    made = uuid.UUID(bytes=new_id(ms))

    assert made.version == 7
    assert made.variant == uuid.RFC_4122


@given(st.lists(st.tuples(moments, st.integers(1, 50)), max_size=30))
def test_ids_increase_whatever_the_clock_does(calls: list[tuple[int, int]]) -> None:
    made = [one for ms, number in calls for one in new_ids(ms, number)]

    assert all(a < b for a, b in itertools.pairwise(made))


def test_an_id_tells_when_it_was_made() -> None:
    ahead = id_ms(new_id(0)) + 86_400_000  # later than all ids made before

    made = new_id(ahead)

    assert id_ms(made) == ahead
    assert id_time(made) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ahead)


def test_a_clock_set_back_does_not_make_ids_older() -> None:
    before = new_id(NOW_MS)

    assert new_id(NOW_MS - 3_600_000) > before


def test_more_ids_than_a_millisecond_can_count_borrow_from_the_next() -> None:
    ahead = id_ms(new_id(0)) + 1

    made = new_ids(ahead, 200_000)

    assert made == sorted(set(made))


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [new_id(NOW_MS) for _ in range(2_000)], range(8)))

    assert len({one for batch in batches for one in batch}) == 16_000
    assert all(batch == sorted(batch) for batch in batches)


def test_ids_of_one_moment_cannot_be_guessed_from_each_other() -> None:
    tails = {one[-6:] for one in new_ids(NOW_MS, 1_000)}

    assert len(tails) == 1_000


def test_no_ids_are_no_ids() -> None:
    assert new_ids(NOW_MS, 0) == []


def test_an_id_is_read_in_every_public_spelling() -> None:
    made = new_id(NOW_MS)
    spelled = uuid.UUID(bytes=made)

    for spelling in (made, spelled, str(spelled), spelled.hex, f"{{{spelled}}}", spelled.urn):
        assert parse_id(spelling) == made
    assert parse_id(str(spelled).upper()) == made


OTHER = uuid.UUID(int=5, version=4)  # of another version


@pytest.mark.parametrize(
    "wrong", ["", "7", "not-an-id", b"", b"short", b"x" * 17, OTHER, str(OTHER), uuid.UUID(int=0)]
)
def test_what_cannot_be_a_jobs_id_is_refused(wrong) -> None:
    with pytest.raises(BadOption, match="id"):
        parse_id(wrong)


@given(st.text(max_size=40) | st.binary(max_size=20))
def test_no_text_or_bytes_crash_the_reader(given_id: str | bytes) -> None:
    with contextlib.suppress(BadOption):
        assert len(parse_id(given_id)) == 16
