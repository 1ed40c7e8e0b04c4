"""Users that may not do all: they are told, and nothing is half done."""

from __future__ import annotations

import asyncio

import pytest
from tests.engine.contract.desk import Desk
from tests.engine.redis.ledger import Ledger
from tests.servers.redis import RedisServer

from backlane.engine.redis import RedisEngine
from backlane.model.clock import FakeClock

KEYS = "~backlane:1:{default}:*"
CHANNELS = "&backlane:1:{default}:*"


def desk_of(server: RedisServer, *rights: str) -> Desk:
    server.client().execute_command("ACL", "SETUSER", "bob", "reset", "on", ">pw", *rights)
    clock = FakeClock()
    return Desk(RedisEngine(f"redis://bob:pw@127.0.0.1:{server.port}", clock=clock), clock)


def test_the_rights_that_the_handbook_names_are_enough(server: RedisServer) -> None:
    desk = desk_of(server, KEYS, CHANNELS, "+@all")
    desk.add(3)

    assert len(desk.claim(3).leases) == 3


def test_a_user_without_channels_is_warned_once_and_can_do_all_the_same(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    desk = desk_of(server, KEYS, "+@all")
    desk.add(2)
    desk.add(2)

    assert len(desk.claim(9).leases) == 4
    Ledger(server.client(), "default").check()
    asyncio.run(desk.engine.arun(desk.engine.list_queues()))  # another connection
    assert caplog.text.count("&backlane:*") == 1


def test_channels_forbidden_later_cost_no_job_and_no_count(server: RedisServer) -> None:
    desk = desk_of(server, KEYS, CHANNELS, "+@all")
    desk.add()
    server.client().execute_command("ACL", "SETUSER", "bob", "resetchannels")
    desk.add(2)
    desk.add(2, priority=3)

    assert len(desk.claim(9).leases) == 5
    Ledger(server.client(), "default").check()
