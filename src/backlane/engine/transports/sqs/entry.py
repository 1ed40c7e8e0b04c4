"""Messages as SQS has them: text and a few attributes, of which it refuses some characters.

A body that is such text goes as it is, so that others can read it; any other bytes go as
Base64, and an attribute says so. Headers are attributes where each can be one; else all
go in one attribute, as JSON. The id is one too, unless the body is a letter that tells it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from backlane.engine.transport import Delivery, Parcel

ID, ENCODING, HEADERS, GROUP = (
    "backlane-id",
    "backlane-encoding",
    "backlane-headers",
    "backlane-group",
)
BASE64 = "base64"

# A letter as we write it (`wire.written`, `wire.named`): most messages are one, and an
# attribute beside it costs both ends a fifth of their work for a message.
_LETTER = re.compile(rb'\{"v":1,"id":"([0-9a-f-]{36})"').match

_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME = re.compile(r"(?!(?i:aws\.|amazon\.|backlane-))(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_GROUP = re.compile(r"[!-~]{1,128}")
_OWN = "~"  # begins the digest that stands for a group whose name SQS would refuse

MOST_HEADERS = 6  # of ten attributes; four are for us
MOST_DELAY = 900  # seconds


class Entry(msgspec.Struct):
    """A message on its way out: one of a batch."""

    index: int
    request: dict[str, Any]  # without its Id
    size: int  # as SQS counts: the body, and names, types and values of the attributes
    digest: str
    is_doubtful: bool = False  # it was sent, and no answer came
    why: str = ""


def entry_of(index: int, parcel: Parcel, *, fifo: bool) -> Entry:
    """Return a parcel as an entry of a batch."""
    attributes: dict[str, str] = {}
    if _told(parcel.body) != parcel.id:
        attributes[ID] = parcel.id
    body = _text(parcel.body)
    if body is None:
        attributes[ENCODING] = BASE64
        body = base64.b64encode(parcel.body).decode() or "="  # SQS takes no empty body
    attributes |= _headers(parcel.headers)
    group = parcel.group
    if group and not (_GROUP.fullmatch(group) and not group.startswith(_OWN)):
        attributes[GROUP] = json.dumps(group)
        group = _OWN + hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:40]
    request: dict[str, Any] = {"MessageBody": body}
    if attributes:
        request["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
    if fifo:
        request["MessageGroupId"] = group or parcel.id
        # Of its own each time: within five minutes SQS drops what comes again under an id
        # it has seen, even one that was acknowledged, and we mean what we publish twice.
        request["MessageDeduplicationId"] = uuid.uuid4().hex
    else:
        if group:
            request["MessageGroupId"] = group
        if parcel.delay_ms > 0:
            request["DelaySeconds"] = min(MOST_DELAY, math.ceil(parcel.delay_ms / 1000))
    encoded = body.encode()
    size = len(encoded) + sum(
        len(name) + len("String") + len(value.encode()) for name, value in attributes.items()
    )
    return Entry(index, request, size, digest_of(encoded))


def digest_of(body: bytes) -> str:
    """Return the digest by which SQS says what it has understood."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def delivery_of(queue: str, message: Mapping[str, Any], tag: object) -> Delivery:
    """Return a message that came as what it was when it was sent."""
    said = message.get("Attributes") or {}
    attributes = {name: _value(it) for name, it in (message.get("MessageAttributes") or {}).items()}
    text: str = message.get("Body", "")
    body = text.encode("utf-8", "surrogatepass")
    if attributes.pop(ENCODING, None) == BASE64:
        with contextlib.suppress(binascii.Error):  # of a foreign hand: others may judge it
            body = base64.b64decode(body.replace(b"=", b"") + b"==")
    group = said.get("MessageGroupId")
    headers = attributes
    try:
        if GROUP in attributes:
            group = str(json.loads(attributes.pop(GROUP)))
        if HEADERS in attributes:
            packed = json.loads(attributes.pop(HEADERS))
            headers = attributes | {str(name): str(value) for name, value in packed.items()}
    except (ValueError, AttributeError):
        pass
    return Delivery(
        queue=queue,
        body=body,
        id=attributes.pop(ID, None) or _told(body) or message.get("MessageId"),
        headers={name: value for name, value in headers.items() if name != ID},
        group=group,
        received=int(said.get("ApproximateReceiveCount", 1)),
        sent_ms=int(said["SentTimestamp"]) if "SentTimestamp" in said else None,
        tag=tag,
    )


def _told(body: bytes) -> str | None:
    """Return the id that a letter tells; None: the body is none of ours."""
    found = _LETTER(body)
    return None if found is None else found[1].decode()


def _text(body: bytes) -> str | None:
    """Return a body as text that SQS takes, or None."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if text and not _REFUSED.search(text) else None


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    if len(headers) <= MOST_HEADERS and all(
        _NAME.fullmatch(name) and value and not _REFUSED.search(value)
        for name, value in headers.items()
    ):
        return dict(headers)
    return {HEADERS: json.dumps(dict(headers))}  # in ASCII: whatever it holds is taken


def _value(attribute: Mapping[str, Any]) -> str:
    if "StringValue" in attribute:
        return str(attribute["StringValue"])
    return base64.b64encode(attribute.get("BinaryValue", b"")).decode()
