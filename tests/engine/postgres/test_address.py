"""Addresses of PostgreSQL: what a URL may say, and what is never shown of it."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from backlane.engine.postgres.store.address import parse
from backlane.errors import BadOption, UnknownOption


def test_our_options_are_taken_out_and_the_others_go_to_libpq():
    address = parse("postgresql://ann@db:5433/shop?schema=jobs&pool=3&sslmode=require")

    settings = conninfo_to_dict(address.conninfo)
    assert (address.schema, address.pool, address.pooler) == ("jobs", 3, None)
    assert (settings["host"], settings["port"], settings["dbname"]) == ("db", "5433", "shop")
    assert settings["sslmode"] == "require"
    assert "schema" not in settings


def test_time_outs_are_asked_for_unless_the_url_says_otherwise():
    settings = conninfo_to_dict(parse("postgresql:///?connect_timeout=60").conninfo)

    assert settings["connect_timeout"] == "60"
    assert settings["tcp_user_timeout"] == "10000"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret@db/shop",
        "postgresql://ann:s%20%3Fcret@db/shop?schema=jobs",
        "postgresql://ann@db/shop?password=s3cret&schema=jobs",
        "postgresql://db/shop?sslpassword=s3cret",
        "postgresql://ann:s3cret@one,two:5433/shop",
    ],
)
def test_a_password_is_never_shown(url: str):
    address = parse(url)

    assert "cret" not in address.url
    assert "cret" not in repr(address)
    assert "cret" in address.conninfo


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret%zz@db/shop",
        "postgresql://ann:s3cret@[db/shop",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str):
    with pytest.raises(BadOption, match="libpq") as refused:
        parse(url)

    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_url_without_slashes_is_refused_and_not_taken_for_an_empty_one():
    with pytest.raises(BadOption, match="lacks the two slashes") as refused:
        parse("postgresql:ann:s3cret@db/shop")

    assert "s3cret" not in str(refused.value)


def test_the_short_scheme_is_shown_as_the_long_one():
    assert parse("postgres://db/shop").url == "postgresql://db/shop"


def test_of_several_hosts_the_one_that_takes_changes_is_chosen():
    several = conninfo_to_dict(parse("postgresql://one,two:5433/shop").conninfo)
    single = conninfo_to_dict(parse("postgresql://one/shop").conninfo)
    standby = parse("postgresql://one,two/shop?target_session_attrs=any").conninfo

    assert several["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in single
    assert conninfo_to_dict(standby)["target_session_attrs"] == "any"


def test_a_socket_and_a_service_are_names_like_others():
    socket = conninfo_to_dict(parse("postgresql:///shop?host=/run/postgresql").conninfo)
    service = conninfo_to_dict(parse("postgresql://?service=shop").conninfo)

    assert socket["host"] == "/run/postgresql"
    assert service["service"] == "shop"


@pytest.mark.parametrize(
    ("option", "nearest"), [("shema", "schema"), ("pol", "pool"), ("sslmod", "sslmode")]
)
def test_an_option_that_nobody_knows_is_refused_with_the_nearest(option: str, nearest: str):
    with pytest.raises(UnknownOption, match=f"'{nearest}'"):
        parse(f"postgresql://db/shop?{option}=1")


@pytest.mark.parametrize(
    "option",
    [
        "schema=",
        "schema=pg_mine",
        "schema=" + "x" * 64,
        "schema=it%27s",
        "schema=a%22b",
        "pool=0",
        "pool=many",
        "pool=-1",
        "pool=100000",
        "pooler=session",
    ],
)
def test_a_value_that_cannot_work_is_refused(option: str):
    with pytest.raises(BadOption, match=option.partition("=")[0]):
        parse(f"postgresql://db/shop?{option}")


@pytest.mark.parametrize("name", ["jobs", "Jobs of ann", "größe", "a.b", "select"])
def test_any_plain_name_may_be_a_schema(name: str):
    assert parse(f"postgresql://db/shop?schema={name}").schema == name
