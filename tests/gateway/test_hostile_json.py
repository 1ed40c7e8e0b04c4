"""Bodies made to break a decoder: each is refused as the caller's fault, never as ours."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.gateway.conftest import key
from tests.gateway.served import Served

DEEP = 100_000

MALFORMED = {
    "nothing but a blank": b" ",
    "cut off": b'{"arguments": {"user_id": 1',
    "two documents": b"{}{}",
    "a comma too many": b'{"arguments": {},}',
    "single quotes": b"{'arguments': {}}",
    "a comment": b"{} // x",
    "NaN": b'{"delay": NaN}',
    "Infinity": b'{"delay": Infinity}',
    "a number with a leading zero": b'{"priority": 01}',
    "hexadecimal": b'{"priority": 0x1}',
    "a bare word": b"undefined",
    "invalid UTF-8": b'{"arguments": {"user_id": "\xff"}}',
    "half of UTF-8": b'{"key": "\xe2\x82"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"arguments": {}}'.encode("utf-16"),
    "a raw line break": b'{"key": "a\nb"}',
    "NUL": b"\0",
    "a lone surrogate's half": b'{"key": "\\ud8"}',
    "brackets alone": b"[" * DEEP,
    "objects alone": b'{"a":' * DEEP,
}

UNFIT = {
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"x"',
    "true": b"true",
    "arguments of null": b'{"arguments": null}',
    "arguments of a list": b'{"arguments": [7]}',
    "arguments of a text": b'{"arguments": "user_id"}',
    "an unknown option": b'{"argument": {}}',
    "an option in capitals": b'{"Arguments": {}}',
    "an empty name": b'{"": 1}',
}

ARGUMENTS = {
    "none": b"{}",
    "a text for a number": b'{"user_id": "7"}',
    "true for a number": b'{"user_id": true}',
    "a fraction": b'{"user_id": 7.5}',
    "null": b'{"user_id": null}',
    "an object": b'{"user_id": {}}',
    "a list for a text": b'{"user_id": 7, "template": []}',
    "a time without a date": b'{"user_id": 7, "at": "10:00"}',
    "a month 13": b'{"user_id": 7, "at": "2026-13-01T00:00:00Z"}',
    "a year 0": b'{"user_id": 7, "at": "0000-01-01T00:00:00Z"}',
    "an unknown one": b'{"user_id": 7, "x": 1}',
    "star": b'{"user_id": 7, "*": [1]}',
    "two stars": b'{"user_id": 7, "**": {}}',
    "a dunder": b'{"user_id": 7, "__class__": 1}',
    "the name of a struct's field": b'{"f0": 7}',
    "a huge exponent": b'{"user_id": 1e400}',
    "a lone surrogate": b'{"user_id": 7, "template": "\\ud800"}',
    "a deep one": b'{"user_id": ' + b"[" * 500 + b"]" * 500 + b"}",
}


def send(site: Served, body: bytes, task: str = "mail.send") -> Any:
    return site.client.post(
        f"/v1/tasks/{task}/jobs", content=body, headers={"Content-Type": "application/json"}
    )


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_json_is_malformed(site: Served, body: bytes):
    answer = send(site, body)

    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["type"] in ("urn:backlane:malformed", "urn:backlane:invalid-arguments")


@pytest.mark.parametrize("body", UNFIT.values(), ids=UNFIT.keys())
def test_json_that_is_no_submission_does_not_fit(site: Served, body: bytes):
    answer = send(site, body)

    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_arguments_that_the_task_does_not_take_do_not_fit(site: Served, arguments: bytes):
    answer = send(site, b'{"arguments": ' + arguments + b"}")

    assert answer.status_code in (400, 422), answer.text
    if answer.status_code == 422:
        assert all(it["pointer"].startswith("/arguments") for it in answer.json()["errors"])


@pytest.mark.parametrize(
    ("number", "expected"),
    [(2**63 - 1, 202), (-(2**63), 202), (2**64 - 1, 202), (2**64, 202), (10**4299, 202)],
)
def test_whole_numbers_of_any_size_are_taken(site: Served, number: int, expected: int):
    answer = send(site, b'{"arguments": {"user_id": %d}}' % number)

    assert answer.status_code == expected, answer.text[:300]


def test_a_number_that_python_does_not_read_is_refused(site: Served):
    answer = send(site, b'{"arguments": {"user_id": ' + b"1" * 5_000 + b"}}")

    assert answer.status_code in (400, 422), answer.text[:300]


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1e-999", b"0.1e1000000000000"])
def test_fractions_of_any_size_are_taken_or_refused(site: Served, number: bytes):
    answer = send(site, b'{"arguments": {"values": [' + number + b"]}}", "anything")

    assert answer.status_code in (202, 400, 422)


def test_of_a_name_given_twice_the_last_one_counts(site: Served):
    body = b'{"arguments": {"user_id": 6, "user_id": 7}, "priority": 1, "priority": 2}'

    answer = send(site, body)

    assert (answer.status_code, answer.json()["priority"]) == (202, 2)


def test_variadic_arguments_are_given_under_their_stars(site: Served):
    answer = send(site, b'{"arguments": {"*": [1, "a"], "**": {"x": null}}}', "anything")

    assert answer.status_code == 202
    record = site.app.job(answer.json()["id"]).record()
    assert record.body == b'{"*":[1,"a"],"**":{"x":null}}'


def test_nesting_has_a_bound(site: Served):
    def nested(depth: int) -> int:
        body = b'{"arguments": {"*": ' + b"[" * depth + b"]" * depth + b"}}"
        return int(send(site, body, "anything").status_code)

    assert nested(50) == 202
    for depth in (150, 500, 1_000, 5_000, DEEP):
        assert nested(depth) in (400, 422), depth


def test_many_misfits_are_told_in_a_short_answer(site: Served):
    many = {f"x{number}": number for number in range(20_000)}

    answer = send(site, json.dumps({"arguments": many}).encode())

    assert answer.status_code == 422
    assert len(answer.content) < 10_000


def test_a_body_of_bent_bytes_is_never_our_fault(site: Served):
    draw = random.Random(3)
    arguments, headers = {"user_id": 7, "template": "ü"}, {"a": "b"}
    sent = {"arguments": arguments, "delay": 1, "key": key(), "headers": headers}
    good = json.dumps(sent).encode()

    for _ in range(300):
        bent = bytearray(good)
        for _ in range(draw.randrange(1, 5)):
            bent[draw.randrange(len(bent))] = draw.randrange(256)
        assert send(site, bytes(bent)).status_code in (202, 400, 422), bytes(bent)
