"""URLs of Redis: what they may say, and what is refused with a reason."""

from __future__ import annotations

import re

import pytest

from backlane.engine.address import shown
from backlane.engine.redis import RedisEngine
from backlane.engine.redis.store.address import parse
from backlane.errors import BadOption, UnknownOption


def test_a_plain_url_has_the_usual_port_database_and_namespace():
    address = parse("redis://host")

    assert (address.hosts, address.db, address.tls) == ((("host", 6379),), 0, False)
    assert address.prefix == "backlane:1:{default}:"


@pytest.mark.parametrize("scheme", ["rediss", "valkeys", "rediss+cluster", "rediss+sentinel"])
def test_schemes_with_two_s_speak_tls(scheme: str):
    assert parse(f"{scheme}://host/jobs" if "sentinel" in scheme else f"{scheme}://host").tls


def test_every_part_of_a_url_is_understood():
    address = parse(
        "valkey://ann:se%40cret@[::1]:7000/3?namespace=shop&durability=fsync&pool=4&timeout=2.5"
    )

    assert (address.user, address.password) == ("ann", "se@cret")
    assert (address.hosts, address.db) == ((("::1", 7000),), 3)
    assert (address.namespace, address.durability) == ("shop", "fsync")
    assert (address.pool, address.seconds) == (4, 2.5)


def test_a_sentinel_url_names_its_sentinels_and_the_master():
    address = parse("redis+sentinel://:pw@one,two:26380/jobs?db=2&sentinel_password=other")

    assert address.hosts == (("one", 26379), ("two", 26380))
    assert (address.master, address.db) == ("jobs", 2)
    assert (address.password, address.sentinel_password) == ("pw", "other")


def test_a_socket_is_named_by_its_path():
    address = parse("redis+unix:///run/redis/redis.sock?db=1")

    assert (address.path, address.hosts, address.db) == ("/run/redis/redis.sock", (), 1)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://host?namespase=a", "'namespace'"),
        ("redis://host?namespace=a}b", "letters"),
        ("redis://host?namespace=", "letters"),
        ("redis://host?durability=fsinc", "'fsync'"),
        ("redis://host?pool=0", "above 0"),
        ("redis://host?pool=many", "above 0"),
        ("redis://host:99999", "no host and port"),
        ("redis://one,two", "redis+cluster://"),
        ("redis://host/jobs", "no number of a database"),
        ("redis+cluster://one/3", "database 0 alone"),
        ("redis+sentinel://one,two", "names no master"),
        ("redis+unix://host", "names no socket"),
        ("redis://host?ca=/no/such/file", "no such file"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(url: str, says: str):
    with pytest.raises((BadOption, UnknownOption), match=re.escape(says)) as raised:
        parse(url)

    assert url.partition("?")[0] in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:sesame@host:1/0",
        "redis://ann:sesame@host:1/0",
        "redis+sentinel://host/jobs?sentinel_password=sesame",
        "redis://ann:ses@me@host:1/0?pool=none",
    ],
)
def test_a_password_is_never_shown(url: str):
    assert "sesame" not in shown(url)
    assert "me@" not in shown(url)
    if "none" in url:
        with pytest.raises(BadOption) as raised:
            parse(url)
        assert "me@" not in str(raised.value)
    else:
        assert "sesame" not in repr(parse(url))
        assert "sesame" not in RedisEngine(url).url
