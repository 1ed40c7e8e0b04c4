"""What is told to people when a broker cannot be used, or is not one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections.abc import AsyncIterator

import pytest
from pamqp import commands, frame
from tests.engine.rabbit.bench import Bench, parcels, receive
from tests.servers.process import free_port
from tests.servers.rabbitmq import Node

from backlane.engine.protocol import Finding
from backlane.engine.transport import Bounds
from backlane.engine.transports.rabbit import Rabbit
from backlane.engine.transports.rabbit.address import parse
from backlane.errors import BadOption, EngineUnavailable, UnknownOption

INNER_WORDS = re.compile(r"exchange|routing|binding|channel|Basic\.|Queue\.", re.IGNORECASE)


def refusal(url: str) -> str:
    """Return what somebody is told who publishes there."""

    async def work() -> None:
        rabbit = Rabbit(url)
        try:
            await rabbit.publish("backlane.1.mail", parcels(b"x"), 8)
        finally:
            await rabbit.close()

    with pytest.raises(EngineUnavailable) as told:
        asyncio.run(work())
    return str(told.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("guest:guest@", "guest:wrong@"), "refuses the login of 'guest'.*password"),
        (("guest:guest@", "nobody:x@"), "refuses the login of 'nobody'.*add_user nobody"),
        (("/$", "/nowhere"), "no virtual host 'nowhere'.*add_vhost nowhere"),
        (("/$", "/apart"), "does not let 'guest' into the virtual host 'apart'.*set_permissions"),
        ((r":\d+/$", f":{free_port()}/"), "does not answer.*Is it started"),
        (("guest:guest@", "reader:reader@"), "the right to configure.*set_permissions"),
        (("guest:guest@", "writer:writer@"), "the right to configure.*set_permissions"),
        (("guest:guest@", "mute:mute@"), "the right to write.*set_permissions"),
        (("^amqp:", "amqps:"), "not RabbitMQ: TLS"),
    ],
)
def test_who_is_not_let_in_learns_why_and_what_to_do(
    node: Node, change: tuple[str, str], said: str
):
    told = refusal(re.sub(*change, node.url))

    assert re.search(said, told)
    assert not INNER_WORDS.search(told)
    assert "guest:guest" not in told
    assert "wrong" not in told


def test_the_rights_that_are_named_are_enough(node: Node):
    """`narrow` has what the messages say, and nothing else."""

    async def work() -> list[Finding]:
        rabbit = Rabbit(node.url_of("narrow"))
        queue = f"backlane.1.{os.getpid()}"
        await rabbit.declare(queue, Bounds(most=10, tries=3, dead=f"{queue}.dead"))
        await rabbit.publish(queue, parcels(b"1"), 10)
        await rabbit.ack(await rabbit.receive(queue, 1, 10))
        found = await rabbit.diagnose()
        await rabbit.close()
        return found

    assert {it.state for it in asyncio.run(work())} == {"ok"}


def test_a_hundred_wrong_urls_are_refused_before_anything_is_tried():
    for url, error in [
        ("amqp://host/a/b", BadOption),
        ("amqp://host:99999/", BadOption),
        ("amqp://host:0/", BadOption),
        ("amqp://[::1/", BadOption),
        ("http://host/", BadOption),
        ("amqp://host/?prefix=a.b", BadOption),
        ("amqp://host/?heartbeat=0", BadOption),
        ("amqp://host/?heartbeat=soon", BadOption),
        ("amqp://host/?verify=maybe", BadOption),
        ("amqp://host/?ca=/no/such/file", BadOption),
        ("amqp://host/?prefetch=1", UnknownOption),
    ]:
        with pytest.raises(error):
            parse(url)


def test_an_address_has_all_that_a_url_says_and_shows_no_password():
    address = parse("amqps://me:p%40ss@one,[::1]:99/shop%2Fa?prefix=x&heartbeat=20")

    assert address.hosts == (("one", 5671), ("::1", 99))
    assert (address.user, address.password, address.vhost) == ("me", "p@ss", "shop/a")
    assert (address.prefix, address.heartbeat_seconds, address.tls) == ("x", 20, True)
    assert "p%40ss" not in address.shown
    assert "p@ss" not in repr(address)
    assert parse("amqp://host").vhost == "/"
    assert parse("amqp://host").user == "guest"


def test_of_several_nodes_one_that_answers_is_found(node: Node):
    url = node.url.replace("@", f"@127.0.0.1:{free_port()},")
    bench = Bench(url)
    bench.publish(b"1")

    assert bench.bodies(1) == [b"1"]
    bench.close()


# -- the doctor --


def findings(url: str) -> dict[str, Finding]:
    return {it.subject: it for it in asyncio.run(Rabbit(url).diagnose()) if it.state != "ok"}


def test_the_doctor_finds_nothing_wrong_with_a_broker_that_serves(bench: Bench):
    found = bench.run(bench.rabbit.diagnose())

    assert {it.state for it in found} == {"ok"}
    assert {"RabbitMQ", "version", "rights", "alarms"} <= {it.subject for it in found}


@pytest.mark.parametrize(
    ("user", "lacks"),
    [("reader", "configure"), ("mute", "write"), ("deaf", "read"), ("wrong", "login")],
)
def test_the_doctor_says_which_right_is_missing(node: Node, user: str, lacks: str):
    [(_, finding)] = findings(node.url_of(user)).items()

    assert finding.state == "error"
    assert lacks in finding.text
    assert "rabbitmqctl" in (finding.remedy or "")


def test_the_doctor_says_which_queue_is_made_otherwise(bench: Bench):
    bench.run(bench.rabbit.declare(bench.queue, Bounds(most=1)))
    other = bench.other()
    other._bounds[bench.queue] = Bounds(most=2)

    [finding] = [it for it in bench.run(other.diagnose()) if it.state != "ok"]

    assert bench.queue in finding.subject
    assert "x-max-length" in finding.text

    [finding] = [it for it in bench.run(other.diagnose()) if it.state != "ok"]
    assert finding.state == "error"


def test_the_doctor_warns_of_a_queue_that_is_used_as_it_is(bench: Bench):
    bench.run(bench.rabbit.declare(bench.queue, Bounds(most=1)))
    never = f"{bench.queue}.never"

    told = bench.run(bench.other().diagnose({bench.queue: None, never: None}))
    [finding] = [it for it in told if it.state != "ok"]

    assert (finding.state, finding.subject) == ("warning", f"queue {bench.queue}")
    assert not any(never in it.subject for it in told)
    assert "as it is" in finding.text


def test_the_doctor_of_no_broker_says_so():
    [finding] = findings(f"amqp://127.0.0.1:{free_port()}").values()

    assert "does not answer" in finding.text


# -- others than RabbitMQ --


@contextlib.asynccontextmanager
async def saying(answer: bytes, *, then_close: bool = False) -> AsyncIterator[str]:
    """Serve whoever comes with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(8)
            writer.write(answer)
            await writer.drain()
            if not then_close:
                await reader.read()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"amqp://127.0.0.1:{port}/?connect_timeout=1"
    finally:
        server.close()


def told_by(answer: bytes, *, then_close: bool = False) -> str:
    async def work() -> str:
        async with saying(answer, then_close=then_close) as url:
            rabbit = Rabbit(url)
            with pytest.raises(EngineUnavailable) as told:
                await rabbit.publish("q", parcels(b"x"), 5)
            await rabbit.close()
            return str(told.value)

    return asyncio.run(work())


START = frame.marshal(
    commands.Connection.Start(server_properties={"version": "9"}, mechanisms="PLAIN"), 0
)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (b"AMQP\x00\x01\x00\x00", "another version of AMQP"),
        (b"\x15\x03\x01\x00\x02\x02\x16\x00\x00", "TLS: write amqps://"),
        (b"220 mail.example ESMTP\r\n", "not RabbitMQ"),
        (START + b"\x01\x00\x00\xff\xff\xff\xff1234", "not RabbitMQ"),
        (START + frame.marshal(commands.Channel.OpenOk(), 0), "not RabbitMQ"),
        (START[:-1] + b"\x00" + bytes(20), "not RabbitMQ"),
        (START, "nothing within 1 s"),
        (b"", "nothing within 1 s"),
    ],
)
def test_what_is_no_broker_is_told_apart(answer: bytes, said: str):
    began = time.monotonic()

    assert said in told_by(answer)

    assert time.monotonic() - began < 4


def test_whoever_hangs_up_is_told_of(node: Node):
    assert "closed at the other end" in told_by(START, then_close=True)


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_after_the_greeting_never_hangs_and_never_breaks(seed: int):
    """Whatever is sent, each call ends by an error of ours."""
    chance = random.Random(seed)
    tune = frame.marshal(commands.Connection.Tune(0, 131072, 0), 0)
    good = [
        START,
        START + tune + frame.marshal(commands.Connection.OpenOk(), 0),
        START + tune + frame.marshal(commands.Connection.OpenOk(), 0)
        + frame.marshal(commands.Channel.OpenOk(), 1),
    ]  # fmt: skip

    async def work() -> None:
        for _ in range(12):
            made = bytearray(chance.choice(good))
            for _ in range(chance.randrange(4)):
                made[chance.randrange(len(made))] = chance.randrange(256)
            tail = b"".join(nonsense(chance) for _ in range(3))
            async with saying(bytes(made) + tail, then_close=True) as url:
                rabbit = Rabbit(url)
                with pytest.raises(EngineUnavailable):
                    await rabbit.publish("q", parcels(b"x"), 3)
                with pytest.raises(EngineUnavailable):
                    await receive(rabbit, "q", 1, 20)
                await rabbit.close()

    asyncio.run(work())


def nonsense(chance: random.Random) -> bytes:
    """Return a frame of any kind, size and channel, often of a real method."""
    kind = chance.choice((1, 1, 1, 2, 3, 8, chance.randrange(256)))
    method = chance.choice(
        (b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x32", b"\x00\x14\x00\x28", b"")
    )
    payload = method + chance.randbytes(chance.randrange(30))
    size = len(payload) if chance.random() < 0.9 else chance.randrange(1 << 32)
    head = bytes((kind, 0, chance.randrange(3))) + size.to_bytes(4, "big")
    return head + payload + b"\xce"
