"""URLs of SQS: every part is checked, and a secret is never shown."""

from __future__ import annotations

import re

import pytest

from backlane.engine.transports.sqs.address import parse
from backlane.errors import BadOption, UnknownOption


def test_a_region_is_all_that_amazon_needs():
    address = parse("sqs://eu-central-1")

    assert (address.region, address.endpoint) == ("eu-central-1", None)
    assert (address.visibility, address.wait, address.fifo) == (30, 20, False)


def test_another_endpoint_has_its_region_in_the_path():
    address = parse("sqs+http://me:p%40ss@localhost:9324/us-east-1?fifo=true&visibility=60&wait=5")

    assert address.endpoint == "http://localhost:9324"
    assert (address.region, address.key, address.secret) == ("us-east-1", "me", "p@ss")
    assert (address.visibility, address.wait, address.fifo) == (60, 5, True)


def test_a_secret_is_not_shown():
    address = parse("sqs+https://me:hunter2@queues.example/us-east-1")

    assert "hunter2" not in address.shown + repr(address)
    assert address.shown == "sqs+https://me:***@queues.example/us-east-1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqs://", "names no region"),
        ("sqs://Frankfurt!", "no region"),
        ("sqs://key:secret@eu-central-1", "AWS_ACCESS_KEY_ID"),
        ("sqs://host:9324/us-east-1", "sqs+https://host/region"),
        ("sqs+http:///us-east-1", "names no host"),
        ("sqs+http://host:99999/us-east-1", "names no host and port"),
        ("sqs+http://host:9324", "no region"),
        ("sqs+http://key@host/us-east-1", "half of a pair"),
        ("sqs://eu-central-1?fifo=yes", "use true or false"),
        ("sqs://eu-central-1?visibility=0", "1 to 43200"),
        ("sqs://eu-central-1?visibility=43201", "1 to 43200"),
        ("sqs://eu-central-1?wait=21", "1 to 20"),
        ("sqs://eu-central-1?wait=soon", "1 to 20"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(url: str, said: str):
    with pytest.raises(BadOption, match=re.escape(said)) as caught:
        parse(url)

    assert ":secret@eu" not in str(caught.value)


def test_an_unknown_option_gets_the_nearest_known():
    with pytest.raises(UnknownOption, match="did you mean 'visibility'"):
        parse("sqs://eu-central-1?visiblity=30")
