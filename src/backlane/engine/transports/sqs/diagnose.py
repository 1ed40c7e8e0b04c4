"""Diagnose: keys, rights, queues and clocks that keep messages from their way; what mends it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from backlane.engine.protocol import Finding
from backlane.engine.transports.name import PREFIX, VERSION
from backlane.engine.transports.sqs.client import Client
from backlane.engine.transports.sqs.link import Link
from backlane.engine.transports.sqs.naming import DEAD, FIFO, queue_of, sqs_name
from backlane.engine.transports.sqs.places import MOST_BYTES, RECEIVES, RETENTION, read
from backlane.engine.transports.sqs.trouble import Kind, Trouble, trouble_of

MOST_QUEUES = 20  # that are looked at: each costs a call
SKEW_SECONDS = 60.0  # of clocks: at five minutes SQS declines every call
SHORT_RETENTION = 86_400  # seconds

# Requests that can do nothing, in order to hear whether they are allowed: SQS judges rights
# before it judges what is asked.
PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "SendMessage": ("send_message_batch", {"Entries": []}),
    "ReceiveMessage": ("receive_message", {"MaxNumberOfMessages": 0}),
    "DeleteMessage": ("delete_message_batch", {"Entries": []}),
    "ChangeMessageVisibility": ("change_message_visibility_batch", {"Entries": []}),
}


async def diagnose(link: Link) -> list[Finding]:
    """Return what is to be known of the endpoint and of our queues there."""
    try:
        return await link.run(lambda client: list(_look(client, link)))
    except Trouble as trouble:
        return [_of(trouble)]


def _look(client: Client, link: Link) -> Iterator[Finding]:
    address = link.address
    begun = time.time()
    try:
        start = sqs_name(f"{address.prefix or PREFIX}.")  # others' are no business of ours
        answer = client.list_queues(MaxResults=1000, QueueNamePrefix=start)
    except Exception as error:  # noqa: BLE001 - `trouble_of` judges it
        trouble = trouble_of(error, "ListQueues", None, address)
        if trouble.code not in ("AccessDenied", "AccessDeniedException"):
            yield _of(trouble)
            return
        yield _ok("server", f"{address.place} answers")
        yield Finding(
            subject="queues",
            state="warning",
            text="the queues cannot be listed, so they are not looked at",
            remedy="allow sqs:ListQueues to these credentials; work does not need it",
        )
        return
    yield _ok("server", f"{address.place} answers, and takes our credentials")
    yield from _clock(answer, begun, time.time())
    urls: list[str] = list(answer.get("QueueUrls") or ())
    names = {url.rsplit("/", 1)[-1]: url for url in urls}
    ours = {name: url for name, url in names.items() if _is_ours(name, address.fifo)}
    if not ours:
        yield _ok("queues", "there is none of ours yet: they are made by use")
        return
    name, url = next(iter(ours.items()))
    yield from _rights(client, link, name, url)
    for name, url in list(ours.items())[:MOST_QUEUES]:
        yield from _queue(client, link, name, url)
    for name, url in names.items():
        if name.removesuffix(FIFO).endswith(DEAD) and f"-{VERSION}-" in name:
            yield from _dead(client, link, name, url)


def _is_ours(name: str, fifo: bool) -> bool:
    queue = queue_of(name)
    return queue is not None and f".{VERSION}." in queue and name.endswith(FIFO) == fifo


def _clock(answer: Mapping[str, Any], begun: float, ended: float) -> Iterator[Finding]:
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not said:
        return
    theirs = parsedate_to_datetime(said).timestamp()
    skew = max(begun - theirs - 1.0, theirs - ended, 0.0)
    if skew > SKEW_SECONDS:
        yield Finding(
            subject="clock",
            state="error" if skew > 240 else "warning",
            text=f"the clock of this machine differs by {skew:.0f} s from that of SQS, which "
            "declines all calls at 300",
            remedy="let NTP set the clock",
        )
    else:
        yield _ok("clock", "fits that of SQS")


def _rights(client: Client, link: Link, name: str, url: str) -> Iterator[Finding]:
    denied: list[str] = []
    for action, (method, request) in PROBES.items():
        call: Callable[..., Mapping[str, Any]] = getattr(client, method)
        try:
            call(QueueUrl=url, **request)
        except Exception as error:  # noqa: BLE001 - as above
            trouble = trouble_of(error, action, name, link.address)
            if trouble.kind is Kind.DENIED:
                denied.append(f"sqs:{action}")
            elif trouble.kind is not Kind.REFUSED:
                yield _of(trouble)
                return
    if denied:
        yield Finding(
            subject="rights",
            state="error",
            text=f"not allowed on {name}: {', '.join(denied)}",
            remedy="allow these actions to the credentials, in IAM and in the queue's policy",
        )
    else:
        yield _ok("rights", "messages may be sent, received, deleted and kept")


def _queue(client: Client, link: Link, name: str, url: str) -> Iterator[Finding]:
    subject = f"queue {name}"
    try:
        said = read(client, link.address, name, url)
    except Trouble as trouble:
        yield _of(trouble)
        return
    if not said:
        yield Finding(
            subject=subject,
            state="warning",
            text="its attributes cannot be read",
            remedy="allow sqs:GetQueueAttributes: purging and counting need it",
        )
        return
    most = int(said.get("MaximumMessageSize", MOST_BYTES))
    kept = int(said.get("MessageRetentionPeriod", RETENTION))
    wrong = list(_wrong(said, most, kept))
    for text, remedy in wrong:
        yield Finding(subject=subject, state="warning", text=text, remedy=remedy)
    if not wrong:
        waiting = said.get("ApproximateNumberOfMessages", "?")
        held = said.get("ApproximateNumberOfMessagesNotVisible", "?")
        yield _ok(subject, f"about {waiting} messages wait, {held} are held")


def _wrong(said: Mapping[str, str], most: int, kept: int) -> Iterator[tuple[str, str]]:
    if most < MOST_BYTES:
        yield (
            f"it takes messages of up to {most} bytes; larger ones are refused",
            f"set its MaximumMessageSize to {MOST_BYTES}",
        )
    if kept < SHORT_RETENTION:
        yield (
            f"it drops messages after {kept} s",
            f"set its MessageRetentionPeriod to {RETENTION}",
        )
    if int(said.get("DelaySeconds", 0)):
        yield (f"it holds every message back for {said['DelaySeconds']} s", "set DelaySeconds to 0")
    policy = said.get("RedrivePolicy")
    if not policy:
        yield (
            "it has no redrive policy: a message that nobody can take comes for fourteen days",
            "delete the queue while nothing is in it, and it is made anew with one",
        )
    elif (number := int(json.loads(policy).get("maxReceiveCount", RECEIVES))) < RECEIVES // 10:
        text = f"its redrive policy moves messages away after {number} receives, and we receive "
        yield (f"{text}some more than once without harm", f"set maxReceiveCount to {RECEIVES}")


def _dead(client: Client, link: Link, name: str, url: str) -> Iterator[Finding]:
    try:
        said = read(client, link.address, name, url)
    except Trouble:
        return
    number = int(said.get("ApproximateNumberOfMessages", 0))
    if number:
        yield Finding(
            subject=f"queue {name}",
            state="warning",
            text=f"about {number} messages were received {RECEIVES} times, and moved there by SQS",
            remedy="look at them (aws sqs receive-message), and start a redrive when it is mended",
        )


def _of(trouble: Trouble) -> Finding:
    text, _, remedy = trouble.text.partition("; ")
    if trouble.kind is Kind.THROTTLED:
        remedy = "wait, or have the account's rate raised; calls are made slower meanwhile"
    return Finding(
        subject="server",
        state="warning" if trouble.kind is Kind.THROTTLED else "error",
        text=text,
        remedy=remedy or "look at the endpoint",
    )


def _ok(subject: str, text: str) -> Finding:
    return Finding(subject=subject, state="ok", text=text)
