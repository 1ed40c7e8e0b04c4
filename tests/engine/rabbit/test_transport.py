"""The transport over RabbitMQ: what is published is received, once it is confirmed."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from pamqp import commands
from tests.engine.rabbit.bench import Bench, parcels, receive

from backlane.engine.transport import Bounds, Fate, Parcel
from backlane.engine.transports.rabbit import Rabbit, consumer, question
from backlane.engine.transports.rabbit.address import parse
from backlane.engine.transports.rabbit.connection import connect
from backlane.errors import SchemaMismatch, WrongUse


def test_what_is_published_is_confirmed_and_received_as_it_was(bench: Bench):
    sent = Parcel("an-id", b"\x00\xff", {"colour": "blue", "CC": "copies", "x-death": "1"}, "team")

    assert bench.publish(sent) == [Fate.CONFIRMED]

    [got] = bench.receive(1)
    assert (got.id, got.body, got.headers, got.group) == (
        sent.id,
        sent.body,
        sent.headers,
        sent.group,
    )
    assert got.queue == bench.queue
    assert got.received == 1
    assert abs((got.sent_ms or 0) - time.time() * 1000) < 60_000


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
def test_a_body_of_any_size_arrives_whole(bench: Bench, size: int):
    body = os.urandom(size)

    assert bench.publish(body) == [Fate.CONFIRMED]

    assert bench.bodies(1) == [body]


def test_what_is_too_large_is_refused_and_the_rest_arrives(bench: Bench):
    too_large = bytes(bench.rabbit.terms.most_bytes + 1)
    headers = {f"name{n}": "x" * 1000 for n in range(200)}

    fates = bench.publish(b"1", too_large, Parcel("a", b"", headers), Parcel("i" * 256, b""), b"2")

    assert fates == [Fate.CONFIRMED, *[Fate.REFUSED] * 3, Fate.CONFIRMED]
    assert bench.bodies(2) == [b"1", b"2"]


def test_messages_come_in_the_order_in_which_they_were_published(bench: Bench):
    sent = [b"%d" % number for number in range(3_000)]

    assert set(bench.publish(*sent)) == {Fate.CONFIRMED}

    assert bench.bodies(3_000) == sent


def test_nothing_to_receive_takes_the_time_that_was_given(bench: Bench):
    bench.receive(1, seconds=0.01)

    began = time.monotonic()
    assert bench.receive(1, seconds=0.1) == []

    assert 0.09 < time.monotonic() - began < 2


def test_a_receiver_is_woken_by_a_message(bench: Bench):
    async def woken() -> float:
        receiving = asyncio.ensure_future(bench.rabbit.receive(bench.queue, 1, 30))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await bench.rabbit.publish(bench.queue, parcels(b"now"), 10)
        await receiving
        return time.monotonic() - began

    assert bench.run(woken()) < 5


def test_what_is_acknowledged_is_gone_in_whatever_order(bench: Bench):
    bench.publish(*(b"%d" % n for n in range(10)))
    got = bench.receive(10)

    bench.run(bench.rabbit.ack([got[7], got[0], got[1], got[3]]))
    bench.run(bench.rabbit.ack([got[2], got[7], got[9]]))
    bench.run(bench.rabbit.forget(bench.queue))
    bench.run(bench.rabbit.release([got[n] for n in (8, 4, 6, 5)]))

    assert bench.bodies(4) == [b"4", b"5", b"6", b"8"]
    assert bench.bodies(1, seconds=0.1) == []


def test_what_is_released_comes_again_first_and_is_counted(bench: Bench):
    bench.publish(b"1", b"2")
    got = bench.receive(2)
    bench.run(bench.rabbit.release(got))

    again = bench.receive(2)

    assert [it.body for it in again] == [b"1", b"2"]
    assert [it.received for it in again] == [2, 2]


def test_what_is_forgotten_is_another_receivers_at_once(bench: Bench):
    bench.publish(b"1", b"2", b"3")
    [first] = bench.receive(1)
    bench.pass_time(0.1)  # the others are brought in advance
    other = bench.other()

    bench.run(bench.rabbit.forget(bench.queue))

    got = bench.run(receive(other, bench.queue, 2, 10))
    assert [it.body for it in got] == [b"2", b"3"]
    assert bench.run(bench.rabbit.extend([first], 10)) == []
    bench.run(bench.rabbit.ack([first]))
    bench.run(other.ack(got))
    assert bench.ready() == 0


def test_who_closes_gives_back_what_it_holds(bench: Bench):
    bench.publish(b"1", b"2")
    held = bench.receive(1)
    other = bench.other()

    bench.run(bench.rabbit.close())

    assert len(bench.run(receive(other, bench.queue, 2, 10))) == 2
    assert bench.run(bench.rabbit.extend(held, 10)) == held


def test_more_can_be_held_than_was_brought_at_first(bench: Bench):
    bench.publish(*(b"%d" % n for n in range(50)))

    got = [bench.receive(1)[0] for _ in range(50)]

    assert [it.body for it in got] == [b"%d" % n for n in range(50)]
    bench.run(bench.rabbit.ack(got))
    assert bench.ready() == 0


def test_standing_counts_what_nobody_holds_and_purge_drops_it(bench: Bench):
    assert bench.ready() == 0
    bench.publish(b"1", b"2", b"3")
    assert bench.ready() == 3

    bench.run(bench.rabbit.purge(bench.queue))

    assert bench.ready() == 0
    bench.run(bench.rabbit.purge(f"{bench.queue}.never"))


def test_a_delayed_message_comes_when_its_level_has_passed(bench: Bench):
    began = time.monotonic()
    assert bench.publish(Parcel("late", b"late", {"a": "b"}, delay_ms=700), b"now") == [
        Fate.CONFIRMED,
        Fate.CONFIRMED,
    ]

    assert bench.bodies(1) == [b"now"]
    [late] = bench.receive(1)

    assert late.body == b"late"
    assert late.headers == {"a": "b"}
    assert 0.9 < time.monotonic() - began < 8


def test_a_full_queue_refuses_and_takes_again(bench: Bench):
    """What is in flight when it becomes full may pass its bound: a queue of several nodes
    tells its publishers afterwards."""
    bench.run(bench.rabbit.declare(bench.queue, Bounds(most=10)))
    fates = [fate for _ in range(20) for fate in bench.publish(*[b"x"] * 5)]

    taken = fates.count(Fate.CONFIRMED)
    assert Fate.UNKNOWN not in fates
    assert 10 <= taken < 30
    assert fates[-5:] == [Fate.REFUSED] * 5

    assert len(bench.bodies(taken)) == taken
    assert bench.publish(b"again") == [Fate.CONFIRMED]


def test_what_was_shown_too_often_goes_to_the_dead(bench: Bench):
    dead = f"{bench.queue}.dead"
    bench.run(bench.rabbit.declare(bench.queue, Bounds(tries=3, dead=dead)))
    bench.publish(b"poison")

    for _ in range(3):
        got = bench.receive(1)
        assert [it.body for it in got] == [b"poison"]
        bench.run(bench.rabbit.release(got))

    [buried] = bench.run(receive(bench.rabbit, dead, 1, 10))
    assert buried.body == b"poison"
    assert "delivery_limit" in buried.headers["x-death"]


def test_a_queue_made_otherwise_says_which_argument_and_what_to_do(bench: Bench):
    bench.run(bench.rabbit.declare(bench.queue, Bounds(most=10)))
    other = bench.other()

    with pytest.raises(SchemaMismatch, match=r"x-max-length: 10, where 20 .* delete_queue"):
        bench.run(other.declare(bench.queue, Bounds(most=20)))
    assert bench.publish(b"still") == [Fate.CONFIRMED]


def test_a_queue_of_which_nothing_is_asked_is_taken_as_it_is(bench: Bench):
    """As one that was used without a ledger before, and has bounds of its own."""
    bench.run(bench.rabbit.declare(bench.queue, Bounds(most=10, dead=f"{bench.queue}.dead")))
    other = bench.other()

    assert bench.run(other.publish(bench.queue, parcels(b"a", b"b"), 10)) == [Fate.CONFIRMED] * 2
    got = bench.run(receive(other, bench.queue, 2, 10))

    assert [it.body for it in got] == [b"a", b"b"]
    bench.run(other.ack(got))
    assert bench.ready() == 0


def test_an_argument_that_is_empty_is_told_readably(bench: Bench):
    bench.publish(b"made without bounds")

    wrong = "none, where an empty value is wanted"
    with pytest.raises(SchemaMismatch, match=wrong):
        bench.run(bench.other().declare(bench.queue, Bounds(tries=2**31, dead="x")))


def test_a_queue_of_another_kind_is_told_of(bench: Bench):
    async def classic() -> None:
        address = parse(bench.url)
        connection = await connect(address, address.hosts[0], "test")
        channel = await connection.channel(10)
        made = question.Declare(queue=bench.queue, durable=True)
        await channel.ask(made, commands.Queue.DeclareOk, 10)
        await connection.close()

    bench.run(classic())

    with pytest.raises(SchemaMismatch, match="exists with another x-"):
        bench.run(bench.rabbit.declare(bench.queue, Bounds(most=1)))


def test_a_queue_that_nobody_asks_for_messages_goes_to_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(consumer, "IDLE_SECONDS", 0.2)
    bench.publish(b"1", b"2")
    [held] = bench.receive(1)
    other = bench.other()

    got = bench.run(receive(other, bench.queue, 1, 10))

    assert [it.body for it in got] == [b"2"]
    assert bench.run(bench.rabbit.extend([held], 10)) == []


def test_many_callers_publish_at_once(bench: Bench):
    async def publish() -> list[list[Fate]]:
        calls = [bench.rabbit.publish(bench.queue, parcels(b"x", b"y"), 10) for _ in range(1_000)]
        return await asyncio.gather(*calls)

    assert {fate for fates in bench.run(publish()) for fate in fates} == {Fate.CONFIRMED}
    assert len(bench.bodies(2_000)) == 2_000


def test_another_loop_is_refused_while_the_first_one_runs(bench: Bench):
    bench.publish(b"1")

    with pytest.raises(WrongUse, match="another event loop"):
        asyncio.run(bench.rabbit.receive(bench.queue, 1, 1))

    assert bench.bodies(1) == [b"1"]


def test_a_loop_that_ended_is_followed_by_another(bench: Bench):
    rabbit = Rabbit(bench.url)

    async def publish() -> list[Fate]:
        return await rabbit.publish(bench.queue, parcels(b"x"), 10)

    assert [asyncio.run(publish()) for _ in range(2)] == [[Fate.CONFIRMED]] * 2

    async def again() -> None:
        await publish()
        await rabbit.close()

    asyncio.run(again())
    assert len(bench.bodies(3)) == 3


def test_a_child_of_a_fork_has_connections_of_its_own(bench: Bench):
    bench.publish(b"1", b"2")
    held = bench.receive(1)

    pid = os.fork()
    if pid == 0:
        code = 1
        try:

            async def work() -> bool:
                got = await bench.rabbit.receive(bench.queue, 1, 10)
                await bench.rabbit.publish(bench.queue, parcels(b"child"), 10)
                await bench.rabbit.ack(got)
                await bench.rabbit.close()
                return [it.body for it in got] == [b"2"]

            code = 0 if asyncio.run(work()) else 2
        finally:
            os._exit(code)
    bench.run(bench.rabbit.forget(bench.queue))

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    bench.run(bench.rabbit.ack(held))
    assert bench.bodies(1) == [b"child"]


def test_many_queues_at_once(bench: Bench):
    number = 1_000 if os.environ.get("BACKLANE_PROVE") == "1" else 100
    queues = [f"{bench.queue}.{it}" for it in range(number)]

    async def work() -> int:
        for queue in queues:
            await bench.rabbit.publish(queue, parcels(queue.encode()), 10)
        got = await asyncio.gather(*(bench.rabbit.receive(it, 1, 30) for it in queues))
        assert [it[0].body.decode() for it in got] == queues
        await bench.rabbit.ack([it for each in got for it in each])
        return len(got)

    assert bench.run(work()) == len(queues)
