"""The wire format: the vectors that docs/wire-format.md promises, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.engine import wire
from backlane.errors import Undecodable
from backlane.model.codec import encode_headers
from backlane.model.ids import id_ms, new_id
from backlane.model.job import Job, Policy

VECTORS = json.loads((Path(__file__).parents[3] / "docs/wire-vectors.json").read_text())
DEFAULTS = {"kind": "task", "priority": 5, "attempt": 0, "crashes": 0}
# What these begin is said by the library, and may be said otherwise by a later one.
ITS_OWN_WORDS = ("it is no letter: ", "it is not JSON: ")


def raw(vector: dict[str, Any]) -> bytes:
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    if "nested" in vector:
        number = vector["nested"]
        return b'{"task":"a","args":{"x":' + b"[" * number + b"]" * number + b"}}"
    return vector["text"].encode()


def names(kind: str, has: str) -> list[Any]:
    return [pytest.param(it, id=it["name"]) for it in VECTORS[kind] if has in it]


@pytest.mark.parametrize("vector", names("letters", "means"))
def test_a_letter_means_what_is_promised(vector) -> None:
    letter, means = wire.read(raw(vector)), {**DEFAULTS, **vector["means"]}

    assert letter.is_reference == means.pop("reference", False)
    if "args" in means:
        assert json.loads(letter.content) == means.pop("args")
    if "body" in means:
        assert letter.content == bytes.fromhex(means.pop("body"))
    told = msgspec.to_builtins(
        msgspec.structs.replace(letter, args=wire.NO_ARGS, body=None), order="sorted"
    )
    for name, value in means.items():
        assert told.get(name, DEFAULTS.get(name)) == value, name


@pytest.mark.parametrize("vector", names("letters", "refused"))
def test_what_is_no_letter_is_refused_with_the_reason(vector) -> None:
    with pytest.raises(Undecodable) as refused:
        wire.read(raw(vector))

    if not vector["refused"].startswith(ITS_OWN_WORDS):
        assert str(refused.value) == vector["refused"]


@pytest.mark.parametrize("vector", names("messages", "means"))
def test_a_message_means_what_is_promised(vector) -> None:
    letter, headers = wire.read_message(vector["headers"])

    means = dict(vector["means"])
    assert headers == means.pop("headers")
    for name, value in means.items():
        assert getattr(letter, name) == value


@pytest.mark.parametrize("vector", names("messages", "refused"))
def test_a_message_that_says_it_is_ours_and_is_not(vector) -> None:
    with pytest.raises(Undecodable):
        wire.read_message(vector["headers"])


@pytest.mark.parametrize("vector", names("letters", "means"))
def test_what_we_write_again_means_the_same(vector) -> None:
    letter = wire.read(raw(vector))

    again = wire.read(wire.written(letter))

    assert again == letter


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(
    body=st.binary(max_size=40)
    | st.dictionaries(st.text(max_size=5), JSON, max_size=3).map(msgspec.json.encode),
    headers=st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=3),
    group=st.none() | st.text(min_size=1, max_size=20),
    priority=st.integers(0, 9),
    delay_ms=st.integers(0, 10**9),
    attempts=st.integers(1, 1_000),
)
def test_any_job_is_read_as_it_was_written(  # long: each is a part of a job
    body, headers, group, priority, delay_ms, attempts
) -> None:
    job = Job(
        id=new_id(1_750_000_000_000),
        queue="mail",
        task="send",
        body=body,
        headers=encode_headers(headers),
        priority=priority,
        delay_ms=delay_ms,
        policy=Policy(attempts=attempts, soft_ms=5),
        group=group,
    )

    letter = wire.read(wire.written(wire.letter_of(job, 1_750_000_000_000)))
    back = wire.job_of(letter, "mail", job.id, 1_750_000_000_000)

    assert back == job
    assert letter.job == job.id


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    try:
        wire.read(body)
    except Undecodable as refused:
        assert str(refused)  # noqa: PT017 - most bytes are refused, and some are not


def test_a_reference_names_a_job_and_the_time_of_its_offer() -> None:
    job = new_id(1_750_000_000_000)

    letter = wire.read(wire.named(job, 1_750_000_000_123))

    assert letter.is_reference
    assert (letter.job, letter.at) == (job, 1_750_000_000_123)
    assert wire.written(letter) == wire.named(job, 1_750_000_000_123)


def test_an_id_of_another_kind_gives_one_of_ours_each_time() -> None:
    ours = new_id(1_750_000_000_000)
    other = "9b2c1f6e-3d1a-4c8b-9e57-0a1b2c3d4e5f"

    assert wire.job_id(wire.id_text(ours), "mail", 5) == ours
    assert wire.job_id(None, "mail", 5) is None
    made = wire.job_id(other, "mail", 1_750_000_000_000)
    assert made is not None
    assert made == wire.job_id(other, "mail", 1_750_000_000_000)
    assert made != wire.job_id(other, "post", 1_750_000_000_000)
    assert id_ms(made) == 1_750_000_000_000
