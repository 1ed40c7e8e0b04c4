"""Breakers on Redis: turned in Python, stored only over what was read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement

from backlane.engine.redis import RedisEngine
from backlane.engine.redis.resource import packed, unpacked
from backlane.model.breaker import Breaker, Count, Standing, Trial


def test_what_many_workers_settle_at_once_is_all_counted(
    desk: Desk, url: str, namespace: str
) -> None:
    desk.add(80, resource="stripe")
    leases = desk.claim(80).leases
    engines = [RedisEngine(f"{url}?namespace={namespace}", clock=desk.clock) for _ in range(8)]

    def work(number: int) -> None:
        for lease in leases[number::8]:
            engines[number].run(engines[number].settle([settlement(lease, SUCCEEDED)]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    (record,) = desk.run(desk.engine.list_resources())
    assert record.succeeded == 80
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    "breaker",
    [
        Breaker(),
        Breaker(since_ms=5, counts=(Count(1, 2, 3), Count(2, 0, 9)), in_a_row=9),
        Breaker(Standing.OPEN, since_ms=5, for_ms=30_000, reason="boom: größer", trips=2),
        Breaker(Standing.OPEN, since_ms=5, reason="by hand"),
        Breaker(Standing.TRYING, round=2, passed=1, trials=(Trial(b"\xff" * 16, 7),)),
    ],
    ids=lambda breaker: breaker.state.value,
)
def test_a_breaker_is_read_as_it_was_kept(breaker: Breaker) -> None:
    assert unpacked(packed(breaker)) == breaker


@pytest.mark.parametrize("kept", [b"", b"\xc1", b"\x93\x01\x02\x03"])
def test_a_damaged_breaker_reads_as_closed(
    desk: Desk, url: str, namespace: str, kept: bytes
) -> None:
    """Work must go on."""
    desk.add(resource="stripe")
    with redis.Redis.from_url(url) as client:
        number = client.hget(f"backlane:1:{{{namespace}}}:resources", "stripe")
        client.hset(f"backlane:1:{{{namespace}}}:breakers", number, kept)

    desk.settle(desk.lease(), SUCCEEDED)

    (record,) = desk.run(desk.engine.list_resources())
    assert (record.state, record.succeeded) == ("closed", 1)
