"""URL to engine: what is missing is named with its remedy, and no password is shown."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from backlane.engine.address import Address, address_of
from backlane.engine.connect import connect, prefix_of, shown, url_of
from backlane.errors import BacklaneError
from backlane.model.clock import SystemClock

MISSING = """
import sys
sys.modules[{library!r}] = None
from backlane.cli import main
main(["queues", "list", "--url", {url!r}])
"""


@pytest.mark.parametrize(
    ("library", "url", "extra"),
    [
        ("psycopg", "postgresql://ann:sekret@db/jobs", "backlane[postgres]"),
        ("pamqp", "amqp://ann:sekret@rabbit", "backlane[rabbitmq]"),
        ("boto3", "sqs://eu-west-1", "backlane[sqs]"),
        ("hiredis", "redis://:sekret@db/0", "backlane[redis]"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library: str, url: str, extra: str) -> None:
    code = MISSING.format(library=library, url=url)

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ended.returncode == 1
    assert f"pip install '{extra}'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "sekret" not in ended.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgrse://ann:sekret@db/jobs",
        "nosuch://db/jobs?password=sekret",
        "postgresql://ann:sekret@db/jobs?schma=x",
        "postgresql://ann@db/jobs?password=sekret&schma=x",
        "postgresql://ann:sekret@db/jobs?pool=many",
        "redis://:sekret@db/0?namspace=x",
        "redis://ann:sekret@db/zero",
        "redis+sentinel://ann:sekret@db/?namspace=x",
        "memory://ann:sekret@db",
    ],
)
def test_no_password_is_shown_of_a_url_that_is_refused(url: str) -> None:
    with pytest.raises(BacklaneError) as refused:
        connect(url, SystemClock())

    assert "sekret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://ann:sekret@db/jobs?schema=x", "redis://:sekret@db/0", "rediss://a:sekret@db"],
)
def test_an_engine_says_no_password(url: str) -> None:
    assert "sekret" not in connect(url, SystemClock()).url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///jobs.db?durability=normal", "sqlite:///jobs.db?durability=normal"),
        ("postgresql://ann:sekret@db/jobs", "postgresql://ann:***@db/jobs"),
        ("postgresql://ann@db/jobs?schema=a", "postgresql://ann@db/jobs?schema=a"),
        ("redis://:sekret@db/0", "redis://:***@db/0"),
        ("redis://db/0?sentinel_password=sekret", "redis://db/0?sentinel_password=***"),
    ],
)
def test_what_is_shown_of_a_url(url: str, told: str) -> None:
    assert shown(url) == told


# -- a broker, and the ledger behind it --


@pytest.mark.parametrize(
    ("url", "transport", "prefix", "ledger"),
    [
        ("amqp://rabbit", "amqp://rabbit", "backlane", None),
        ("amqp://h/v?prefix=shop", "amqp://h/v?prefix=shop", "shop", None),
        (
            "amqps://h/v?heartbeat=5&ledger=postgresql://a:b@db/jobs?schema=x&pool=2",
            "amqps://h/v?heartbeat=5",
            "backlane",
            "postgresql://a:b@db/jobs?schema=x&pool=2",
        ),
        (
            "sqs://eu-west-1?prefix=a-b&ledger=sqlite%3A%2F%2F%2Fjobs.db%3Fdurability%3Dnormal",
            "sqs://eu-west-1?prefix=a-b",
            "a-b",
            "sqlite:///jobs.db?durability=normal",
        ),
        (
            "sqs+http://127.0.0.1:5000/eu?ledger=sqlite:////tmp/100%25.db",
            "sqs+http://127.0.0.1:5000/eu",
            "backlane",
            "sqlite:////tmp/100%25.db",
        ),
    ],
)
def test_the_parts_of_a_brokers_url(
    url: str, transport: str, prefix: str, ledger: str | None
) -> None:
    assert address_of(url) == Address(transport, ledger)
    assert prefix_of(transport) == prefix
    assert address_of(address_of(url).url) == address_of(url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("amqp://h?ledger=amqp://ann:sekret@other", "is a broker itself"),
        ("amqp://h?ledger=sqs://eu-west-1", "is a broker itself"),
        ("amqp://h?ledger=postgrse://ann:sekret@db", "did you mean 'postgres'"),
        ("amqp://ann:sekret@h?ledger=", "ledger= is empty"),
        ("amqp://ann:sekret@h?ledger=sqlite:///a&ledger=sqlite:///b", "ledger= twice"),
        ("amqp://h?prefix=a&prefix=b", "prefix= twice"),
        ("amqp://h?prefix=a.b", "prefix='a.b'"),
        ("amqp://ann:sek/sekret@h", "%2F"),
        ("amqp://ann:12/sekret@h", "%2F"),
        ("amqp://ann:12/sekret@h:5672/shop", "%2F"),
        ("amqp://ann:12?sekret@h", "%3F"),
        ("amqp://ann:12#sekret@h", "%23"),
        ("amqp://ann:sek#sekret@h?ledger=sqlite:///a", "%23"),
        ("amqp://ann:sek?sekret@h", "%3F"),
        ("sqs+http://key:sek/sekret@h:9324/us-east-1", "%2F"),
        ("amqp://h/#v", "%23"),
        ("amqp:h", "write amqp://"),
        ("amqp://h?ledger=sqlite:///a&prefix=b", "before it"),
        ("sqlite:///jobs.db?ledger=postgresql://ann:sekret@db", "takes no ledger="),
        ("postgresql://ann:sekret@db?ledger=sqlite:///a", "takes no ledger="),
    ],
)
def test_a_ledger_that_cannot_be_is_refused(url: str, told: str) -> None:
    with pytest.raises(BacklaneError, match=told) as refused:
        connect(url, SystemClock())

    assert "sekret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "amqp://ann:sekret@h/v?ledger=postgresql://bob:sekret@db/jobs?schema=a",
            "amqp://ann:***@h/v?ledger=postgresql://bob:***@db/jobs?schema=a",
        ),
        ("amqp://ann:a@sekret@h/v", "amqp://ann:***@h/v"),
        ("amqp://ann:a/sekret@h/v?ledger=sqlite:///a", "amqp://ann:***@h/v?ledger=sqlite:///a"),
        ("amqp://h:5672,[::1]:5673/v?ca=/a@b", "amqp://h:5672,[::1]:5673/v?ca=/a%40b"),
        (
            "amqp://h?ledger=postgresql%3A%2F%2Fbob%3Asekret%40db%2Fjobs",
            "amqp://h?ledger=postgresql://bob:***@db/jobs",
        ),
        (
            "amqp://h?ledger=redis%253A%252F%252F%253Asekret%2540db",
            "amqp://h?ledger=redis://:***@db",
        ),
        (
            "sqs+http://key:sekret@h/eu?token=sekret&ledger=redis://db?password=sekret",
            "sqs+http://key:***@h/eu?token=***&ledger=redis://db?password=***",
        ),
    ],
)
def test_neither_password_of_a_brokers_url_is_shown(url: str, told: str) -> None:
    assert shown(url) == told


def test_a_transport_and_its_ledger_make_one_url() -> None:
    made = url_of(None, "amqp://h/v?prefix=shop", "postgresql://a@db/jobs?pool=2")

    assert made == "amqp://h/v?prefix=shop&ledger=postgresql://a@db/jobs?pool=2"
    assert url_of(None, "amqp://h", None) == "amqp://h"
    assert url_of("sqlite:///jobs.db", None, None) == "sqlite:///jobs.db"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((None, None, None), "None is not a URL; give that of a store"),
        (("sqlite:///a", "amqp://h", None), "not both"),
        ((None, None, "postgresql://ann:sekret@db"), "comes with transport="),
        ((None, "postgresql://ann:sekret@db", "sqlite:///a"), "carries no jobs"),
        ((None, "amqp://h?ledger=sqlite:///a", "sqlite:///b"), "has a ledger already"),
        ((None, 7, None), "use a URL"),
    ],
)
def test_a_transport_and_a_ledger_that_do_not_go_together(given: Any, told: str) -> None:
    with pytest.raises(BacklaneError, match=told) as refused:
        url_of(*given)

    assert "sekret" not in str(refused.value)
