"""The wire format: how a job is written on a broker, for every language to read.

A letter is a job as one JSON object (docs/wire-format.md, with test vectors). A letter of
a task names it and has its arguments by name; one that has an id and no task says that a
ledger has the job. A raw message is any bytes: its letter, without body, travels in the
header `HEADER`, and a message of another program has none.

What is read is judged strictly, so that no two readers take one letter for two jobs.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from backlane.errors import BacklaneError, Undecodable
from backlane.model.codec import decode_headers, encode_headers
from backlane.model.codec.strict import laxity
from backlane.model.ids import derived_id
from backlane.model.job import DEFAULT_POLICY, Job, Policy
from backlane.model.outcome import ErrorRecord
from backlane.model.queue import NAME

VERSION = 1
HEADER = "backlane"  # of a raw message: its letter, without the body
MOST_BYTES = 64 * 1024 * 1024  # of a letter: what is larger is not even looked into

_BYTES = "application/octet-stream"  # the type of a body that is no JSON object

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_is_uuid = re.compile(_UUID).fullmatch

Id = Annotated[str, msgspec.Meta(pattern=rf"^{_UUID}\Z", max_length=36)]
Name = Annotated[str, msgspec.Meta(pattern=rf"^{NAME.pattern}\Z", max_length=128)]
Group = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
# Unix milliseconds, or a length in them: what every language's JSON can hold.
Time = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Retries(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a task runs, and how long it waits in between; as `Policy` has it."""

    attempts: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = DEFAULT_POLICY.attempts
    base: Time = DEFAULT_POLICY.base_ms
    cap: Time = DEFAULT_POLICY.cap_ms
    timeout: bool = True  # whether a timeout is retried


class Timeout(msgspec.Struct, frozen=True, omit_defaults=True):
    """When an attempt is asked to stop, and when it is ended."""

    soft: Time | None = None
    hard: Time | None = None


class Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a letter is dead, since when, and whose it was: of a dead letter only."""

    reason: str
    at: Time
    queue: str
    kind: str = ""  # of its error: the dotted name of its class
    message: str = ""
    traceback: str = ""


NO_ARGS = msgspec.Raw(b"{}")
NO_RETRIES = Retries()
NO_TIMEOUT = Timeout()


class Letter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as it is written. Times are Unix milliseconds, lengths milliseconds."""

    v: int = VERSION
    id: Id | None = None
    kind: Literal["task", "message"] = "task"
    task: Name | None = None
    args: msgspec.Raw = NO_ARGS  # a JSON object: arguments by name
    body: bytes | None = None  # in base64, instead of `args`: what is no strict JSON object
    type: Literal["application/octet-stream"] | None = None  # of `body`
    headers: dict[str, str] = {}
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5
    group: Group | None = None
    at: Time | None = None  # of one that a ledger has: when its message was offered
    enqueued: Time | None = None
    due: Time | None = None  # not to be begun before
    expires: Time | None = None
    attempt: Count = 0  # executions counted so far
    crashes: Count = 0
    parked: Time | None = None  # since when no worker has known its task
    retry: Retries = NO_RETRIES
    timeout: Timeout = NO_TIMEOUT
    dead: Ended | None = None

    @property
    def is_reference(self) -> bool:
        """Whether a ledger has the job, and this is only its name."""
        return self.task is None and self.kind == "task"

    @property
    def job(self) -> bytes:
        """The id that a reference names."""
        return bytes.fromhex((self.id or "").replace("-", ""))

    @property
    def content(self) -> bytes:
        """The encoded arguments."""
        return bytes(self.args) if self.body is None else self.body

    @property
    def policy(self) -> Policy:
        retry, timeout = self.retry, self.timeout
        if retry is NO_RETRIES and timeout is NO_TIMEOUT:
            return DEFAULT_POLICY
        return Policy(
            attempts=retry.attempts,
            base_ms=retry.base,
            cap_ms=retry.cap,
            soft_ms=timeout.soft,
            hard_ms=timeout.hard,
            retries_timeout=retry.timeout,
        )


class _Versioned(msgspec.Struct):
    v: object = VERSION


_decode = msgspec.json.Decoder(Letter).decode
_encode = msgspec.json.Encoder().encode
_version = msgspec.json.Decoder(_Versioned).decode


# -- writing --


def named(job: bytes, at_ms: int) -> bytes:
    """Return the letter of a job that a ledger has, and that was offered at that time."""
    return b'{"v":%d,"id":"%s","at":%d}' % (VERSION, id_text(job).encode(), at_ms)


def letter_of(job: Job, now_ms: int) -> Letter:
    """Return a job as a letter, of a task or (then without body) of a raw message.

    Raises:
        Undecodable: its headers are none.
    """
    return Letter(
        id=id_text(job.id),
        headers={} if job.headers is None else decode_headers(job.headers),
        priority=job.priority,
        group=job.group,
        enqueued=now_ms,
        due=now_ms + job.delay_ms if job.delay_ms else None,
        expires=None if job.expires_ms is None else now_ms + job.expires_ms,
        **_contents(job),
    )


def _contents(job: Job) -> dict[str, Any]:
    if job.task is None:
        return {"kind": "message"}
    parts: dict[str, Any] = {"task": job.task}
    if job.body.startswith(b"{") and laxity(job.body) is None:
        if job.body != b"{}":
            parts["args"] = msgspec.Raw(job.body)
    else:
        parts |= {"body": job.body, "type": _BYTES}
    policy = job.policy
    if policy != DEFAULT_POLICY:
        parts["retry"] = Retries(
            policy.attempts, policy.base_ms, policy.cap_ms, policy.retries_timeout
        )
        parts["timeout"] = Timeout(policy.soft_ms, policy.hard_ms)
    return parts


def written(letter: Letter) -> bytes:
    """Return a letter as the bytes of a message: `v` first, what is not said left out."""
    return b'{"v":%d,' % letter.v + _encode(letter)[1:]


# -- reading --


def read(body: bytes) -> Letter:
    """Return what the bytes of a message on a queue for tasks say.

    Raises:
        Undecodable: they are no letter, or one that is not to be trusted; says why.
    """
    letter = _parsed(body)
    wrong = _wrong(letter)
    if wrong is not None:
        raise Undecodable(wrong)
    return letter


def read_message(headers: Mapping[str, str]) -> tuple[Letter, dict[str, str]]:
    """Return the letter of a raw message, and the headers that its sender gave it.

    The letter of another program's message is an empty one.

    Raises:
        Undecodable: it says that it is ours, and has no letter that can be read.
    """
    own = headers.get(HEADER)
    if own is None:
        return Letter(kind="message"), dict(headers)
    letter = _parsed(own.encode())
    if letter.kind != "message" or letter.task is not None:
        raise Undecodable(f"the header {HEADER!r} is no letter of a message")
    return letter, {name: value for name, value in headers.items() if name != HEADER}


def _parsed(body: bytes) -> Letter:
    if len(body) > MOST_BYTES:
        raise Undecodable(f"it has {len(body):,} bytes, {MOST_BYTES:,} are the most")
    try:
        letter = _decode(body)
    except (ValueError, RecursionError) as error:
        raise Undecodable(_unreadable(body, error)) from None
    if letter.v != VERSION:
        raise Undecodable(_version_text(letter.v))
    # What we write ourselves is told by writing it again; what is in its arguments, and
    # what others write, is looked at name by name.
    if letter.args is not NO_ARGS or written(letter) != body:
        lax = laxity(body)
        if lax is not None:
            raise Undecodable(lax)
    return letter


def _unreadable(body: bytes, error: Exception) -> str:
    """Say why bytes are no letter: the first reason that helps the one who sent them."""
    lax = laxity(body)
    if lax is not None:
        return lax
    try:
        version = _version(body).v
    except ValueError:
        return "it is no JSON object"
    if version != VERSION or type(version) is not int:
        return _version_text(version)
    return f"it is no letter: {error}"


def _version_text(version: object) -> str:
    return f"its version is {version!r}, and only {VERSION} is read here: update backlane first"


def _wrong(letter: Letter) -> str | None:
    """Say what is wrong with a letter of a task, or with a reference, beside its types."""
    if letter.kind != "task":
        return "it is of a message: on a queue for tasks every letter is of a task"
    is_filled = letter.args is not NO_ARGS or letter.body is not None
    if letter.task is None:
        if letter.id is None:
            return "it names no task, nor the id of a job that is stored"
        return "it has arguments and names no task" if is_filled else None
    if letter.args is not NO_ARGS:
        if letter.body is not None:
            return "it has args and body: use one of them"
        if not bytes(letter.args).startswith(b"{"):
            return "args is no JSON object: give arguments by their names"
    if letter.headers:
        try:
            encode_headers(letter.headers)
        except BacklaneError as error:
            return str(error)
    return None


# -- ids and jobs --


def id_text(job: bytes) -> str:
    """Return an id in its usual form, in a third of the time that `uuid.UUID` takes."""
    digits = job.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def job_id(given: str | None, queue: str, made_ms: int) -> bytes | None:
    """Return the job's id that comes from a letter's id, or a message's; None: there is none.

    A UUIDv7 is taken as it is. Any other text gives an id of that queue, and of the moment
    at which the message was made: the same at every delivery if the moment is.
    """
    if not given:
        return None
    if _is_uuid(given) is not None:
        parsed = uuid.UUID(given)
        if parsed.version == 7 and parsed.variant == uuid.RFC_4122:
            return parsed.bytes
    return derived_id(made_ms, "wire", queue, given)


def job_of(letter: Letter, queue: str, job: bytes, now_ms: int) -> Job:
    """Return the job that a letter of another program asks to be stored.

    How often it ran is forgotten: a ledger counts anew.
    """
    return Job(
        id=job,
        queue=queue,
        task=letter.task,
        body=letter.content,
        headers=encode_headers(letter.headers),
        priority=letter.priority,
        delay_ms=0 if letter.due is None else max(0, letter.due - now_ms),
        expires_ms=None if letter.expires is None else max(0, letter.expires - now_ms),
        policy=letter.policy,
        group=letter.group,
    )


def error_of(ended: Ended) -> ErrorRecord:
    """Return the error that a dead letter ended by."""
    return ErrorRecord(ended.kind, ended.message, ended.traceback)
