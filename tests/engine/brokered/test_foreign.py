"""Messages of other programs on our queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from tests.engine.brokered.yard import MAIL, Process, Yard, until, yard

from backlane.engine.transport import Parcel
from backlane.engine.transports.name import physical
from backlane.model.codec import decode_headers
from backlane.model.job import Lease
from backlane.model.queue import Kind

ID = "01890000-0000-7000-8000-00000000002a"


@pytest.fixture
def place() -> Iterator[Yard]:
    with yard() as made:
        yield made


@pytest.fixture
def process(place: Yard) -> Process:
    return place.process()


def send(
    place: Yard,
    body: bytes,
    name: str = MAIL,
    *,
    id: str = "theirs",  # noqa: A002 - as a broker calls it
    headers: Mapping[str, str] | None = None,
) -> None:
    with place.broker.lock:
        place.broker.put(name, Parcel(id, body, headers or {}))


def kept(process: Process, queue: str) -> Lease:
    (lease,) = process.take(1, queue, lane=None, kind=Kind.MESSAGES)
    return lease


def test_a_letter_of_another_language_is_a_job(place: Yard, process: Process) -> None:
    send(place, b'{"v":1,"id":"%s","task":"send","args":{"to":"ann"}}' % ID.encode())

    (lease,) = process.take()

    assert (lease.task, lease.body) == ("send", b'{"to":"ann"}')
    assert lease.job.hex() == ID.replace("-", "")


def test_one_that_comes_twice_is_one_job(place: Yard, process: Process) -> None:
    for _ in range(2):
        send(place, b'{"v":1,"id":"%s","task":"send"}' % ID.encode())

    process.settle(process.take())

    until(lambda: not place.broker.ready(MAIL), "an empty queue")
    for _ in range(50):
        assert process.claim() == []
    assert process.engine.depot.customs.taken_in == 2


def test_what_is_no_letter_is_kept_with_its_bytes(place: Yard, process: Process) -> None:
    send(place, b"\xffhello", headers={"from": "a shell"})
    process.claim()

    lease = kept(process, "quarantine.mail")

    headers = decode_headers(lease.headers or b"{}")
    assert lease.body == b"\xffhello"
    assert headers["given-from"] == "a shell"
    assert headers["quarantined-from"] == MAIL
    assert headers["quarantined-id"] == "theirs"
    assert "JSON" in headers["quarantined-why"]
    assert process.engine.depot.customs.quarantined == 1


def test_on_a_queue_for_messages_any_body_is_one(place: Yard, process: Process) -> None:
    name = physical("backlane", "orders")
    process.claim(1, "orders", lane=None, kind=Kind.MESSAGES)
    reference = b'{"v":1,"id":"%s","at":5}' % ID.encode()
    send(place, reference, name, headers={"colour": "red"})

    lease = kept(process, "orders")

    assert lease.body == reference  # it does not say that it is one of ours
    assert decode_headers(lease.headers or b"{}") == {"colour": "red"}


def test_one_that_names_a_job_nobody_knows_is_let_go(place: Yard, process: Process) -> None:
    send(place, b'{"v":1,"id":"%s","at":5}' % ID.encode())

    for _ in range(50):
        assert process.claim() == []

    until(lambda: not place.broker.ready(MAIL), "an empty queue")
    until(lambda: place.broker.acked["theirs"] or not process.claim(), "an ack")


def test_one_that_names_a_job_in_another_spelling_names_it(place: Yard, process: Process) -> None:
    place.broker.is_blocked = True  # ours shall not arrive
    (job,) = process.add(1)
    send(place, b'{"v": 1, "id": "%s"}' % str_of(job))

    assert [lease.job for lease in process.take()] == [job]


def str_of(job: bytes) -> bytes:
    digits = job.hex()
    text = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return text.encode()
