"""Options: the names that a task and an enqueue know, and checks that both share."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypedDict, TypeVar

import msgspec

from backlane.errors import BadOption
from backlane.model.limiting import Limit
from backlane.model.queue import OnFull, RunsIn
from backlane.model.retry import Duration, Retry
from backlane.model.workflow import OWN_TAGS
from backlane.unique import Unique

Item = TypeVar("Item")


class TaskOptions(TypedDict, total=False):
    """The options of `@app.task`."""

    name: str  # module.function, unless given; it travels with the jobs, so keep it
    queue: str  # "default", unless given
    priority: int  # 0 to 9, higher first; 5 unless given
    timeout: Duration | tuple[Duration, Duration]  # of one attempt: soft end, or (soft, hard)
    retry: Retry  # the application's, unless given
    expires: Duration  # after the enqueue; past it a job ends unrun
    runs_in: RunsIn  # async def: "loop"; def: as its queue says, or "thread"
    keep_result: bool  # True unless given
    resource: str  # what it depends on, such as "stripe": its jobs pause while that fails
    limit: Limit  # of its own jobs, over all workers
    limits: Sequence[str]  # others that they are under, by their names in Backlane(limits=…)
    unique: Unique  # which calls are the same job, for how long; none are, unless given
    tags: Sequence[str]  # to find its jobs by
    keep: Duration | Literal["forever"] | None  # the records of ended jobs; as the store, if None
    keep_latest: bool  # the newest result, for `latest()`, for ever; False unless given


class SendOptions(TypedDict, total=False):
    """The options of `messages.send`: of one message, or of many alike."""

    delay: Duration  # from now; not with `at`
    at: datetime  # with a time zone; one that has passed means now
    expires: Duration  # after the enqueue; past it the job ends unrun
    priority: int  # 0 to 9, higher first
    key: str  # while a job of the same task (or message queue) and key is unfinished,
    # it is returned instead
    group: str  # what jobs share: a tenant, an account
    id: uuid.UUID | str  # sent again it is the same job, which is not stored twice
    headers: Mapping[str, str]
    connection: object  # the caller's open transaction, which takes the job with it
    on_full: OnFull  # "refuse" or "wait"; as the queue says, unless given
    on_full_timeout: Duration  # of all waiting for room; as the queue says, unless given
    ticket: str | None  # of the `QueueFull` before: it keeps the place that was promised
    idempotency_key: str  # for 24 h the same call with it is the same job, finished or not


class EnqueueOptions(SendOptions, total=False):
    """The options of `task.using`: of one enqueue, or of many alike."""

    queue: str  # instead of the task's own
    unique: Unique | None  # instead of the task's own; None: any two are two
    tags: Sequence[str]  # beside the task's own


class Terms(msgspec.Struct, frozen=True):
    """How the jobs of an enqueue are to come in, whatever they are; None: as their queue says.

    Those that are `remade` are enqueued again by who lost them with the power.
    """

    connection: object | None = None
    on_full: OnFull | None = None
    on_full_timeout_ms: int | None = None
    ticket: str | None = None
    remade: bool = False


def checked_items(given: Iterable[Item], what: str, of: str) -> Iterable[Item]:
    """Return what should hold several things, or refuse it.

    Raises:
        BadOption: it is a single one, such as a text, or nothing one could go through.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise BadOption(f"{what} is {given!r:.200}; give a list of {of}")
    return given


def checked_priority(priority: int) -> int:
    """Return a priority, or refuse it.

    Raises:
        BadOption: it is not a whole number from 0 to 9.
    """
    if type(priority) is not int or not 0 <= priority <= 9:
        raise BadOption(f"priority is {priority!r}; use a whole number from 0 to 9 (9 goes first)")
    return priority


TAGS_MOST = 20  # of one job: each is a row of an index
TAG_LIMIT = 128  # characters


def checked_tags(given: Sequence[str], of: str = "") -> tuple[str, ...]:
    """Return tags, each once, or refuse them; `of` begins the message.

    Raises:
        BadOption: one is no short text or one of our own, or there are too many.
    """
    found = tuple(dict.fromkeys(checked_items(given, f"{of}tags", "texts")))
    for tag in found:
        if not isinstance(tag, str) or not 0 < len(tag) <= TAG_LIMIT or not is_whole(tag):
            raise BadOption(f"{of}tag {tag!r:.200}; use a text of 1 to {TAG_LIMIT} characters")
        if tag.startswith(OWN_TAGS):
            raise BadOption(f"{of}tag {tag!r}: those that begin with {OWN_TAGS!r} are our own")
    if len(found) > TAGS_MOST:
        raise BadOption(f"{of}{len(found)} tags; use {TAGS_MOST} at most, and headers for the rest")
    return found


def is_whole(text: str) -> bool:
    """Whether a text has no half characters (lone surrogates), which no store could keep."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
