"""Misfits: all that is wrong with arguments from outside, each with its path."""

from __future__ import annotations

from datetime import date

import pytest

from backlane.model.codec import Codec


def ship(order: int, days: dict[str, list[date]], *notes: str, fast: bool = False) -> None: ...


CODEC = Codec(ship, name="ship")


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b'{"order": 1, "days": {}}', []),
        (b"{}", ["$.order", "$.days"]),
        (b'{"order": "1", "days": {}, "fast": 1}', ["$.order", "$.fast"]),
        (b'{"order": 1, "days": {"mon": ["2026-01-01", "x"]}}', ["$.days.mon[1]"]),
        (b'{"order": 1, "days": {}, "*": ["a", 1]}', ["$.*[1]"]),
        (b'{"order": 1, "days": {}, "slow": true}', ["$.slow"]),
        (b"[]", ["$"]),
        (b"null", ["$"]),
        (b"{", ["$"]),
    ],
)
def test_each_argument_that_does_not_fit_is_named(body: bytes, paths: list[str]):
    assert [found.path for found in CODEC.misfits(body)] == paths


def test_a_name_that_is_nearly_one_is_told_so():
    (found,) = CODEC.misfits(b'{"order": 1, "days": {}, "fst": true}')

    assert "did you mean 'fast'" in found.why


def test_what_is_deep_is_told_and_does_not_break():
    body = b'{"order": ' + b"[" * 10_000 + b"]" * 10_000 + b', "days": {}}'

    assert CODEC.misfits(body)


def test_no_more_than_twenty_are_told():
    body = b'{"order": 1, "days": {}, %s}' % b", ".join(b'"x%d": 1' % n for n in range(100))

    assert len(CODEC.misfits(body)) == 20
