"""Messages on their way out and in: any bytes, any headers, any group."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backlane.engine import wire
from backlane.engine.transport import Delivery, Parcel
from backlane.engine.transports.sqs.entry import delivery_of, entry_of

ALLOWED = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


def there_and_back(parcel: Parcel, *, fifo: bool = False) -> Delivery:
    """As SQS would show it: what it takes, unchanged."""
    request = entry_of(0, parcel, fifo=fifo).request
    message: dict[str, Any] = {
        "MessageId": "of-sqs",
        "Body": request["MessageBody"],
        "MessageAttributes": request.get("MessageAttributes", {}),
        "Attributes": {"ApproximateReceiveCount": "2", "SentTimestamp": "17"},
    }
    if "MessageGroupId" in request:
        message["Attributes"]["MessageGroupId"] = request["MessageGroupId"]
    return delivery_of("mail", message, None)


def letter(job: str, rest: str = "") -> bytes:
    return f'{{"v":1,"id":"{job}"{rest}}}'.encode()


parcels = st.builds(
    Parcel,
    id=st.uuids().map(str),
    body=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)),
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=12),
    group=st.one_of(st.none(), st.text(min_size=1, max_size=200)),
)


@given(parcels)
def test_whatever_is_sent_comes_back(parcel: Parcel):
    came = there_and_back(parcel)

    assert (came.id, came.body, dict(came.headers)) == (parcel.id, parcel.body, parcel.headers)
    assert came.group == parcel.group
    assert (came.received, came.sent_ms) == (2, 17)


@given(parcels, st.booleans())
def test_sqs_takes_all_of_it(parcel: Parcel, fifo: bool):
    entry = entry_of(0, parcel, fifo=fifo)
    attributes = entry.request.get("MessageAttributes", {})

    assert ALLOWED.fullmatch(entry.request["MessageBody"])
    assert len(attributes) <= 10
    for name, value in attributes.items():
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,256}", name)
        assert ALLOWED.fullmatch(value["StringValue"])
    if fifo or parcel.group:
        assert re.fullmatch(r"[!-~]{1,128}", entry.request["MessageGroupId"])


def test_a_letter_tells_its_id_without_an_attribute():
    """An attribute beside it cost both ends a fifth of their work for a message."""
    own, other = (str(uuid.UUID(int=n)) for n in (1, 2))
    parcel = Parcel(own, letter(own, ',"at":17'))
    of_another = Parcel(own, letter(other))

    assert "MessageAttributes" not in entry_of(0, parcel, fifo=False).request
    assert there_and_back(parcel).id == own
    assert there_and_back(of_another).id == own


@given(st.uuids().map(str))
def test_what_we_write_is_known_as_a_letter(job: str):
    as_bytes = uuid.UUID(job).bytes
    written = [wire.written(wire.Letter(id=job, task="send")), wire.named(as_bytes, 17)]

    requests = [entry_of(0, Parcel(job, body), fifo=False).request for body in written]

    assert not any("MessageAttributes" in it for it in requests)


def test_text_goes_as_it_is_for_others_to_read():
    entry = entry_of(0, Parcel("1", '{"größe": 1}'.encode(), {"kind": "report"}), fifo=False)

    assert entry.request["MessageBody"] == '{"größe": 1}'
    assert entry.request["MessageAttributes"]["kind"]["StringValue"] == "report"
    assert entry.digest == hashlib.md5('{"größe": 1}'.encode()).hexdigest()


def test_the_size_is_what_sqs_counts():
    entry = entry_of(0, Parcel("12345", "ü".encode()), fifo=False)

    assert entry.size == 2 + len("backlane-id") + len("String") + len("12345")


def test_a_foreign_message_has_the_id_that_sqs_gave_it():
    came = delivery_of(
        "mail",
        {
            "MessageId": "of-sqs",
            "Body": "hello",
            "MessageAttributes": {
                "size": {"DataType": "Number", "StringValue": "3"},
                "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
            },
        },
        None,
    )

    assert (came.id, came.body) == ("of-sqs", b"hello")
    assert came.headers == {"size": "3", "raw": "AP8="}


def test_two_publications_of_one_message_are_two_to_a_fifo_queue():
    parcel = Parcel("1", b"x", group="a")
    first, second = (entry_of(0, parcel, fifo=True).request for _ in range(2))

    assert first["MessageGroupId"] == second["MessageGroupId"] == "a"
    assert first["MessageDeduplicationId"] != second["MessageDeduplicationId"]
    assert entry_of(0, Parcel("7", b"x"), fifo=True).request["MessageGroupId"] == "7"


def test_headers_that_lie_about_their_form_are_passed_on():
    came = delivery_of(
        "mail",
        {
            "MessageId": "m",
            "Body": "not base64!",
            "MessageAttributes": {
                "backlane-encoding": {"StringValue": "base64"},
                "backlane-headers": {"StringValue": "[1"},
            },
        },
        None,
    )

    assert came.id == "m"
    assert isinstance(came.body, bytes)
