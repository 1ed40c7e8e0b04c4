"""The servers of the tests themselves: what they promise to those who use them."""

from __future__ import annotations

import time

import psycopg
import pytest
import redis as redis_client
from tests.servers import faulty, pgbouncer, postgres, redis
from tests.servers.missing import Missing, give_up

TIMEOUT = 0.3


@pytest.fixture(autouse=True)
def _named_where_missing():
    try:
        yield
    except Missing as why:
        give_up("servers", why)


def test_a_server_keeps_what_it_has_committed_when_it_is_killed():
    with postgres.started() as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("create table kept as select 1")
        server.kill()
        server.start()

        with psycopg.connect(server.url) as connection:
            assert connection.execute("table kept").fetchall() == [(1,)]


def test_a_redis_that_always_syncs_keeps_what_it_has_acknowledged():
    with redis.started(appendfsync="always") as server:
        server.client().set("kept", 1)
        server.kill()
        server.start()

        assert server.client().get("kept") == b"1"


def test_a_pooler_stands_before_the_newest_server():
    with psycopg.connect(pgbouncer.pooled()) as connection:
        said = connection.execute("select current_setting('server_version_num')").fetchone()

    with psycopg.connect(postgres.newest().url) as connection:
        assert connection.info.server_version == int(said[0])


def test_sentinels_name_the_replica_when_the_master_is_gone():
    with redis.watched() as watched:
        assert watched.now() == watched.master.port
        watched.master.kill()

        limit = time.monotonic() + 20
        while watched.now() != watched.replica.port:
            assert time.monotonic() < limit
            time.sleep(0.05)


# -- the bad network --


@pytest.fixture
def network():
    with faulty.network(redis.newest()) as made:
        yield made


@pytest.fixture
def client(network):
    with redis_client.Redis(
        port=network.port, socket_timeout=TIMEOUT, retry=None, single_connection_client=True
    ) as made:
        made.ping()
        yield made


def test_a_connection_that_is_reset_is_gone_and_the_next_one_works(network, client):
    assert network.reset() == 1

    with pytest.raises(redis_client.ConnectionError):
        client.ping()
    assert client.ping()


def test_a_stranded_connection_never_answers_and_the_next_one_works(network, client):
    assert network.strand() == 1

    with pytest.raises(redis_client.TimeoutError):
        client.ping()
    client.close()
    assert client.ping()


def test_a_lost_answer_belongs_to_a_command_that_was_carried_out(network, client):
    name = redis.namespace()
    network.lost_answers = 1

    with pytest.raises(redis_client.ConnectionError):
        client.incr(name)
    assert client.get(name) == b"1"


def test_a_torn_answer_ends_in_the_middle(network, client):
    network.torn_answers = 1

    with pytest.raises(redis_client.ConnectionError):
        client.ping()
    assert client.ping()


def test_what_is_held_comes_later(network, client):
    name = redis.namespace()
    network.hold()
    with pytest.raises(redis_client.TimeoutError):
        client.incr(name)
    network.resume()

    assert int(client.get(name)) == 1


def test_a_delay_takes_its_time_both_ways(network, client):
    network.delay = 0.05

    began = time.monotonic()
    client.ping()

    assert time.monotonic() - began > 0.1
