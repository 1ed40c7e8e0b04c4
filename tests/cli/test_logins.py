"""What a person is told whose URL has the wrong user or password, or none."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from click.testing import CliRunner
from tests.servers import postgres, redis
from tests.servers.missing import Missing

from backlane.cli import main

COMMANDS = [("queues", "list"), ("doctor",), ("migrate",), ("jobs", "list")]


def told(url: str, *command: str) -> str:
    result = CliRunner().invoke(main, [*command, "--url", url])
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "sesame" not in result.output
    if "doctor" not in command:  # which tells what it found, and is no error
        assert len(result.stderr.strip().splitlines()) == 1
    return result.output


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[str]:
    try:
        with redis.started() as server:
            server.client().config_set("requirepass", "open-sesame")
            yield server.url.removeprefix("redis://")
    except Missing as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def open_redis() -> str:
    try:
        return redis.newest().removeprefix("redis://")
    except Missing as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def locked_postgres() -> Iterator[str]:
    try:
        with postgres.started() as server:
            rules = server.data / "pg_hba.conf"
            rules.write_text(f"host all ann all scram-sha-256\n{rules.read_text()}")
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("create role ann login password 'open-sesame'")
                connection.execute("select pg_reload_conf()")
            yield server.url.partition("@")[2]
    except Missing as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_redis_wants_a_password(locked_redis, command) -> None:
    assert "wants a password" in told(f"redis://{locked_redis}", *command)
    assert "refused the login" in told(f"redis://:sesame-wrong@{locked_redis}", *command)
    assert "refused the login" in told(f"redis://ann:sesame@{locked_redis}", *command)


def test_redis_wants_no_password(open_redis) -> None:
    assert "wants no password" in told(f"redis://:sesame@{open_redis}", "queues", "list")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_postgresql_wants_a_password(locked_postgres, command) -> None:
    assert "password" in told(f"postgresql://ann@{locked_postgres}", *command)
    assert "password" in told(f"postgresql://ann:sesame-wrong@{locked_postgres}", *command)


def test_a_role_without_rights_is_told_which(locked_postgres) -> None:
    url = f"postgresql://ann:open-sesame@{locked_postgres}"

    assert "permission denied" in told(url, "migrate")


def test_a_database_without_tables_is_told_the_command(locked_postgres) -> None:
    url = f"postgresql://postgres:sesame@{locked_postgres}"

    assert "backlane migrate --url" in told(url, "queues", "list")
    assert "backlane migrate --url" in told(url, "doctor")


@pytest.mark.parametrize(
    "url", ["postgresql://ann:sesame@127.0.0.1:1/jobs", "redis://:sesame@127.0.0.1:1/0"]
)
def test_a_server_that_is_not_there_is_named(url) -> None:
    assert "127.0.0.1:1" in told(url, "queues", "list")
    assert "127.0.0.1" in told(url, "doctor")
