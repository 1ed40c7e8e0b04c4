"""What a job costs in the server's memory."""

from __future__ import annotations

import pytest
from tests.servers import redis as servers
from tests.servers.missing import Missing

from backlane.engine.protocol import Admission, Wanted
from backlane.engine.redis import RedisEngine
from backlane.engine.retention import Retention
from backlane.model.clock import SystemClock
from backlane.model.job import Job
from backlane.model.outcome import Settlement, Succeeded

MANY = 50_000
MOST = 600  # bytes a waiting job with 200 bytes of arguments


@pytest.mark.parametrize("version", [None, 7], ids=["newest", "redis-7"])
def test_a_waiting_job_costs_at_most_600_bytes_and_a_forgotten_one_nothing(version: int | None):
    try:
        servers.binary(version)
    except Missing as why:
        pytest.skip(str(why))
    with servers.started(version, appendonly="no") as server:
        engine = RedisEngine(server.url)
        used = server.client().info("memory")["used_memory"]
        for at in range(0, MANY, 1_000):
            engine.run(engine.append([_job(n) for n in range(at, at + 1_000)], Admission()))
        waiting = (server.client().info("memory")["used_memory"] - used) / MANY

        while leases := engine.run(engine.claim(Wanted("ann", 1_000, 60_000, ("mail",)))).leases:
            engine.run(engine.settle([Settlement(it.job, it.token, Succeeded()) for it in leases]))
        finished = (server.client().info("memory")["used_memory"] - used) / MANY
        while engine.run(engine.sweep(1_000, Retention(done_jobs=0, least_ms=0))).more:
            pass
        forgotten = (server.client().info("memory")["used_memory"] - used) / MANY
        engine.close()

    assert waiting <= MOST
    assert finished <= MOST + 50  # what is known of its end
    assert forgotten < 100  # tables that shrink later


def _job(number: int) -> Job:
    job = (SystemClock().wall_ms() << 80 | 7 << 76 | 2 << 62 | number).to_bytes(16)
    return Job(id=job, queue="mail", task="shop.send_mail", body=b"x" * 200)
