"""What `doctor` says of SQS: what is wrong, or right, and what mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.servers import sqs
from tests.servers.unruly import Unruly

from backlane.engine.protocol import Finding
from backlane.engine.transport import Parcel
from backlane.engine.transports.sqs import SqsTransport, open_url
from backlane.engine.transports.sqs.naming import dead_name, sqs_name
from backlane.errors import EngineUnavailable

Run = Callable[..., Any]
SOON = 30.0  # seconds that an endpoint may take on a busy machine; it answers at once


def of(findings: list[Finding], subject: str) -> list[Finding]:
    return [it for it in findings if it.subject == subject]


@pytest.fixture
def name(transport: SqsTransport, run: Run, queue: str) -> str:
    """A queue that is there, as it is called at SQS."""
    run(transport.standing(queue))
    return sqs_name(queue)


def url_of(client: Any, name: str) -> str:
    return str(client.get_queue_url(QueueName=name)["QueueUrl"])


def test_a_good_queue_is_told_to_be_so(transport: SqsTransport, run: Run, name: str):
    findings = run(transport.diagnose())

    for subject in ("server", "clock", "rights", f"queue {name}"):
        assert [it.state for it in of(findings, subject)] == ["ok"], findings


def test_queues_of_other_prefixes_are_no_business_of_ours(
    transport: SqsTransport, run: Run, name: str, endpoint: str
):
    """Also where the URL gives none."""
    assert of(run(transport.diagnose()), f"queue {name}")

    findings = run(open_url(f"{endpoint}?wait=1").diagnose())

    assert findings[0].state == "ok"
    assert not [it for it in findings if name in it.subject]


def test_a_queue_that_was_changed_is_told_with_the_remedy(
    transport: SqsTransport, run: Run, name: str, endpoint: str
):
    client = sqs.client(endpoint)
    url = url_of(client, name)
    policy = json.loads(
        client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"][
            "RedrivePolicy"
        ]
    )
    client.set_queue_attributes(
        QueueUrl=url,
        Attributes={
            "MaximumMessageSize": "4096",
            "MessageRetentionPeriod": "3600",
            "DelaySeconds": "5",
            "RedrivePolicy": json.dumps(policy | {"maxReceiveCount": 3}),
        },
    )

    findings = of(run(transport.diagnose()), f"queue {name}")

    assert {it.state for it in findings} == {"warning"}
    said = " ".join(f"{it.text} {it.remedy}" for it in findings)
    for part in ("4096 bytes", "3600 s", "DelaySeconds", "after 3 receives"):
        assert part in said


def test_a_queue_without_a_redrive_policy_is_told(
    transport: SqsTransport, run: Run, queue: str, endpoint: str
):
    sqs.client(endpoint).create_queue(
        QueueName=sqs_name(queue), Attributes={"MessageRetentionPeriod": "1209600"}
    )

    (finding,) = of(run(transport.diagnose()), f"queue {sqs_name(queue)}")

    assert finding.state == "warning"
    assert "no redrive policy" in finding.text


def test_what_sqs_moved_away_is_counted(
    transport: SqsTransport, run: Run, queue: str, name: str, endpoint: str
):
    client = sqs.client(endpoint)
    client.send_message(QueueUrl=url_of(client, dead_name(queue)), MessageBody="poison")

    (finding,) = of(run(transport.diagnose()), f"queue {dead_name(queue)}")

    assert "about 1 messages" in finding.text


def answering(bad: Unruly, action: str, code: str, text: str, status: int = 403) -> None:
    bad.only, bad.answers = action, (status, code, text)


@pytest.mark.parametrize(
    ("code", "text", "remedy"),
    [
        ("InvalidClientTokenId", "The security token is invalid.", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "Signature does not match.", "AWS_SECRET_ACCESS_KEY"),
        ("SignatureDoesNotMatch", "Signature expired: 2020 is now earlier.", "NTP"),
        ("RequestTimeTooSkewed", "The difference is too large.", "NTP"),
        ("ExpiredToken", "The token has expired.", "AWS_SESSION_TOKEN"),
        ("RequestThrottled", "Rate exceeded.", "raised"),
    ],
)
def test_who_is_not_let_in_learns_why(
    through: SqsTransport, bad: Unruly, run: Run, code: str, text: str, remedy: str
):
    answering(bad, "ListQueues", code, text)

    (finding,) = run(through.diagnose())

    assert finding.subject == "server"
    assert text.rstrip(".") in finding.text
    assert remedy in (finding.remedy or "")


def test_a_missing_right_is_named_with_its_queue(
    through: SqsTransport, bad: Unruly, run: Run, name: str, queue: str
):
    answering(bad, "SendMessageBatch", "AccessDenied", "not authorized to perform: sqs:sendmessage")

    (finding,) = of(run(through.diagnose()), "rights")
    assert (finding.state, "sqs:SendMessage" in finding.text) == ("error", True)
    with pytest.raises(EngineUnavailable, match="allow sqs:SendMessage on this queue"):
        run(through.publish(queue, [Parcel("1", b"x")], SOON))


def test_a_queue_that_may_not_be_made_is_told(
    through: SqsTransport, bad: Unruly, run: Run, queue: str
):
    answering(bad, "CreateQueue", "AccessDenied", "not authorized")

    with pytest.raises(EngineUnavailable, match=f"CreateQueue of queue '{queue}'.*sqs:CreateQueue"):
        run(through.publish(queue, [Parcel("1", b"x")], SOON))


def test_queues_that_may_not_be_listed_are_no_fault(through: SqsTransport, bad: Unruly, run: Run):
    answering(bad, "ListQueues", "AccessDenied", "not authorized")

    findings = run(through.diagnose())

    assert [it.state for it in findings] == ["ok", "warning"]


def test_a_wrong_clock_is_told(through: SqsTransport, bad: Unruly, run: Run, name: str):
    bad.hours_off = 1

    (finding,) = of(run(through.diagnose()), "clock")

    assert finding.state == "error"
    assert finding.remedy == "let NTP set the clock"
