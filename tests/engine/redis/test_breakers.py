"""Breakers on Redis: turned in Python, stored only over what was read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from tests.engine.contract.desk import SUCCEEDED, Desk, settlement
from tests.engine.redis.ledger import Ledger

from backlane.engine.plan import Plan
from backlane.engine.redis import RedisEngine
from backlane.engine.redis.lease.settle import SETTLE
from backlane.engine.redis.limits.resource import packed, unpacked
from backlane.engine.redis.record.sheet import raw
from backlane.model.breaker import CLOSED, Breaker, Count, Standing, Trial


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


@pytest.mark.parametrize(
    "kept", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x9a\xa4open\x01\x93\x01", packed(CLOSED)]
)
def test_a_damaged_breaker_that_is_down_withholds_nothing(
    desk: Desk, url: str, namespace: str, kept: bytes
) -> None:
    desk.add(2, resource="stripe")
    prefix = f"backlane:1:{{{namespace}}}:"
    with redis.Redis.from_url(url) as client:
        number = client.hget(f"{prefix}resources", "stripe")
        client.hset(f"{prefix}breakers", number, kept)
        client.hset(f"{prefix}down", number, "1")

        leases = desk.claim(2).leases

        assert len(leases) == 2
        assert not client.exists(f"{prefix}down")
    for lease in leases:
        desk.settle(lease, SUCCEEDED)
    (record,) = desk.run(desk.engine.list_resources())
    assert (record.state, record.succeeded) == ("closed", 2)


def test_what_a_process_left_when_it_died_is_told_by_the_next(desk: Desk, ledger: Ledger) -> None:
    desk.add(3, resource="stripe")
    *left, last = desk.claim(3).leases
    for lease in left:  # all that `settle` does before the breaker hears of it
        outcome = (raw(lease.job), lease.token, 1, 0)
        desk.run(Plan(lambda tx, outcome=outcome: tx.call(SETTLE, [outcome])))
    assert desk.run(desk.engine.list_resources())[0].succeeded == 0

    desk.settle(last, SUCCEEDED)

    assert desk.run(desk.engine.list_resources())[0].succeeded == 3
    assert not any(name.startswith("ended") for name in ledger.names())
