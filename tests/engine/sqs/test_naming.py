"""Names at SQS: few signs, eighty of them, and no two queues become one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlane.engine.transports.sqs.naming import dead_name, queue_of, sqs_name

names = st.text(min_size=1, max_size=60)
ours = st.text("abcXYZ019_-.:~", min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("queue", "name"),
    [
        ("backlane.1.mail", "backlane-1-mail"),
        ("backlane.1.send-mail", "backlane-1-send_-mail"),
        ("backlane.1.send_mail", "backlane-1-send__mail"),
        ("backlane.1.mail~exclusive", "backlane-1-mail_texclusive"),
    ],
)
def test_a_name_stays_readable(queue: str, name: str):
    assert sqs_name(queue) == name
    assert dead_name(queue) == f"{name}_dead"
    assert sqs_name(queue, fifo=True) == f"{name}.fifo"


@given(st.one_of(names, ours), st.booleans())
def test_sqs_takes_every_name(queue: str, fifo: bool):
    for name in (sqs_name(queue, fifo=fifo), dead_name(queue, fifo=fifo)):
        assert re.fullmatch(
            r"[A-Za-z0-9_-]{1,80}" if not fifo else r"[A-Za-z0-9_-]{1,75}\.fifo", name
        )


@given(st.one_of(names, ours))
def test_a_name_is_read_as_it_was_written(queue: str):
    name = sqs_name(queue)

    assert queue_of(name) in (queue, None)
    assert queue_of(name) == queue or "_0" in name


@given(ours, ours)
def test_no_two_queues_have_one_name(one: str, other: str):
    both = [sqs_name(one), dead_name(one), sqs_name(other), dead_name(other)]

    assert len(set(both)) == (2 if one == other else 4)


def test_a_name_that_is_too_long_keeps_its_beginning():
    name = sqs_name("backlane.1." + "x" * 200)

    assert len(name) == 80
    assert name.startswith("backlane-1-xxx")
    assert name != sqs_name("backlane.1." + "x" * 201)
    assert queue_of(name) is None
