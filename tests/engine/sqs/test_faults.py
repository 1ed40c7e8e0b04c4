"""What SQS may do, and what networks do: through a proxy that does it on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.servers import sqs
from tests.servers.process import free_port
from tests.servers.unruly import Unruly

from backlane.engine.transport import Blocked, Delivery, Fate, Parcel
from backlane.engine.transports.sqs import SqsTransport, open_url
from backlane.engine.transports.sqs.naming import sqs_name
from backlane.errors import EngineUnavailable

Run = Callable[..., Any]
SOON = 30.0  # seconds that an endpoint may take on a busy machine; it answers at once


def parcels(number: int) -> list[Parcel]:
    return [Parcel(f"id-{n}", b"x") for n in range(number)]


async def drain(transport: SqsTransport, queue: str) -> Counter[str]:
    """Receive and acknowledge until nothing has come for a while; count by id."""
    seen: Counter[str] = Counter()
    quiet = 0
    while quiet < 3:
        came: list[Delivery] = []
        with contextlib.suppress(EngineUnavailable):
            came = await transport.receive(queue, 50, 1)
        seen.update(it.id or "" for it in came)
        quiet = 0 if came else quiet + 1
        while came:  # what was received counts, whatever becomes of the first acknowledgement
            with contextlib.suppress(EngineUnavailable):
                await transport.ack(came)
                came = []
    return seen


def test_what_comes_twice_and_out_of_turn_all_comes(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    bad.twice, bad.is_shuffled, bad.late = 0.2, True, 0.1

    fates = run(through.publish(queue, parcels(200), 20))
    seen = run(drain(through, queue))

    assert fates == [Fate.CONFIRMED] * 200
    assert set(seen) == {f"id-{n}" for n in range(200)}
    assert 205 < sum(seen.values()) < 300


def test_the_rest_of_a_batch_is_sent_again(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    bad.failing = 0.3

    fates = run(through.publish(queue, parcels(100), 20))
    seen = run(drain(through, queue))

    assert fates == [Fate.CONFIRMED] * 100
    assert set(seen) == {f"id-{n}" for n in range(100)}
    assert sum(seen.values()) <= 110  # and what was taken is not


@pytest.mark.parametrize("status", [403, 503])
def test_a_throttled_endpoint_is_given_time(
    through: SqsTransport, bad: Unruly, run: Run, queue: str, status: int
):
    run(through.standing(queue))
    bad.throttled, bad.status = 0.4, status

    fates = run(through.publish(queue, parcels(100), 30))
    seen = run(drain(through, queue))

    assert fates == [Fate.CONFIRMED] * 100
    assert sum(seen.values()) == 100


def test_an_endpoint_that_takes_nothing_blocks(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    run(through.standing(queue))
    bad.throttle_next, bad.only = 1_000, "SendMessageBatch"
    begun = time.monotonic()

    with pytest.raises(Blocked, match="RequestThrottled"):
        run(through.publish(queue, parcels(10), 0.7))

    assert time.monotonic() - begun < 2
    assert bad.calls["SendMessageBatch"] < 20  # slower and slower
    bad.throttle_next = 0
    assert run(through.publish(queue, parcels(10), 20)) == [Fate.CONFIRMED] * 10


def test_a_cut_before_or_after_the_call_is_mended_in_time(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    run(through.standing(queue))
    bad.only, bad.lost_answers, bad.lost_requests = "SendMessageBatch", 2, 2

    fates = run(through.publish(queue, parcels(60), 20))
    seen = run(drain(through, queue))

    assert fates == [Fate.CONFIRMED] * 60
    assert set(seen) == {f"id-{n}" for n in range(60)}
    assert sum(seen.values()) <= 80  # what had arrived came again, and nothing else


def test_what_never_got_an_answer_is_unknown(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    run(through.standing(queue))
    bad.only, bad.lost_answers = "SendMessageBatch", 10_000

    fates = run(through.publish(queue, parcels(3), 1))

    assert fates == [Fate.UNKNOWN] * 3


def test_a_slow_endpoint_is_waited_for_as_long_as_was_said(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    run(through.standing(queue))
    bad.delay = 2.0
    begun = time.monotonic()

    fates = run(through.publish(queue, parcels(3), 0.5))

    assert fates == [Fate.UNKNOWN] * 3
    assert time.monotonic() - begun < 1.5


def test_a_fifo_queue_knows_what_it_was_sent_before(
    endpoint: str, bad: Unruly, run: Run, queue: str
):
    transport = open_url(f"{bad.before(endpoint)}?wait=1&fifo=true")
    assert isinstance(transport, SqsTransport)
    run(transport.standing(queue))
    bad.only, bad.lost_answers = "SendMessageBatch", 2

    fates = run(transport.publish(queue, parcels(20), 20))
    seen = run(drain(transport, queue))

    assert fates == [Fate.CONFIRMED] * 20
    assert sum(seen.values()) == 20
    run(transport.close())


def test_another_body_than_was_sent_is_not_taken_for_it(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    bad.bad_digests = 1

    fates = run(through.publish(queue, parcels(3), SOON))

    assert sorted(it.name for it in fates) == ["CONFIRMED", "CONFIRMED", "UNKNOWN"]


def test_acknowledgements_are_tried_again(
    through: SqsTransport, bad: Unruly, run: Run, queue: str, endpoint: str
):
    run(through.publish(queue, parcels(50), 10))
    bad.failing, bad.throttled, bad.lost_answers, bad.only = 0.3, 0.2, 2, "DeleteMessageBatch"

    seen = run(drain(through, queue))

    assert sum(seen.values()) == 50
    said = sqs.client(endpoint)
    url = said.get_queue_url(QueueName=sqs_name(queue))["QueueUrl"]
    left = said.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert left["ApproximateNumberOfMessages"] == "0"
    assert left["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_few_deletions_wait_for_company(through: SqsTransport, bad: Unruly, run: Run, queue: str):
    async def one_by_one() -> None:
        await through.publish(queue, parcels(20), 10)
        came: list[Delivery] = []
        while len(came) < 20:
            came += await through.receive(queue, 20, SOON)
        await asyncio.gather(*(through.ack([it]) for it in came))

    run(one_by_one())

    assert bad.calls["DeleteMessageBatch"] == 2


def test_extensions_go_by_tens_and_are_tried_again(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    run(through.publish(queue, parcels(30), 10))
    came: list[Delivery] = []
    while len(came) < 30:
        came += run(through.receive(queue, 30, SOON))

    assert run(through.extend(came, 60)) == []
    assert bad.calls["ChangeMessageVisibilityBatch"] == 3
    bad.failing = 0.4
    assert run(through.extend(came, 60)) == []


def test_a_bad_message_does_not_take_its_batch_along(
    through: SqsTransport, run: Run, queue: str, monkeypatch: pytest.MonkeyPatch
):
    """moto declines a batch of which one is at fault; SQS tells which."""
    from backlane.engine.transports.sqs import entry

    monkeypatch.setattr(entry, "_REFUSED", entry.re.compile("(?!)"))  # nothing is encoded

    fates = run(through.publish(queue, [*parcels(3), Parcel("bad", b"\x01")], SOON))

    assert fates == [*[Fate.CONFIRMED] * 3, Fate.REFUSED]


def test_throttled_polls_end_in_nothing_and_go_on(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    run(through.publish(queue, parcels(1), SOON))
    bad.throttle_next, bad.only = 3, "ReceiveMessage"

    assert len(run(through.receive(queue, 1, 20))) == 1


def test_a_cut_poll_is_told_and_the_next_works(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    run(through.publish(queue, parcels(1), SOON))
    bad.lost_requests, bad.only = 1, "ReceiveMessage"

    with pytest.raises(EngineUnavailable, match="no answer to ReceiveMessage"):
        run(through.receive(queue, 1, SOON))
    assert len(run(through.receive(queue, 1, SOON))) == 1


# -- who cannot be reached, or does not let us in --


@pytest.mark.parametrize(
    "use",
    [
        lambda it, queue: it.publish(queue, parcels(1), SOON),
        lambda it, queue: it.receive(queue, 1, SOON),
        lambda it, queue: it.standing(queue),
    ],
)
def test_an_endpoint_that_is_down_is_told_in_words(run: Run, queue: str, use: Callable[..., Any]):
    transport = open_url(f"sqs+http://key:secret@127.0.0.1:{free_port()}/us-east-1")

    with pytest.raises(EngineUnavailable, match=r"is not reached.*host and port of the URL"):
        run(use(transport, queue))
    run(transport.close())


def test_an_endpoint_without_tls_is_told_in_words(endpoint: str, run: Run, queue: str):
    if not endpoint.startswith("sqs+http:"):
        pytest.skip("it speaks TLS")
    transport = open_url(endpoint.replace("sqs+http:", "sqs+https:"))

    with pytest.raises(EngineUnavailable, match=r"use sqs\+http:// if it speaks no TLS"):
        run(transport.publish(queue, parcels(1), SOON))
    run(transport.close())


def test_missing_credentials_are_told_in_words(
    run: Run, queue: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    transport = open_url("sqs+http://127.0.0.1:1/us-east-1")

    with pytest.raises(EngineUnavailable, match=r"no credentials.*AWS_ACCESS_KEY_ID"):
        run(transport.publish(queue, parcels(1), SOON))
    (finding,) = run(transport.diagnose())
    assert (finding.state, finding.subject) == ("error", "server")
    assert "AWS_ACCESS_KEY_ID" in (finding.remedy or "")
    run(transport.close())
