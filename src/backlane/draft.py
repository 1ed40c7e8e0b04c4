"""Drafts: what the jobs of an enqueue have in common, ready to be copied.

A draft is made once, where options are written; a job is then a copy of its template
with an id and a body, which costs a tenth of a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from backlane.context import current
from backlane.errors import BadOption
from backlane.model.clock import Clock
from backlane.model.codec import encode_headers
from backlane.model.ids import new_id, new_ids, parse_id
from backlane.model.job import DEFAULT_RULE, Idempotency, Job, Key
from backlane.model.limit import Use
from backlane.model.limiting import Limit, use
from backlane.model.queue import Queue, checked_on_full
from backlane.model.retry import milliseconds
from backlane.options import EnqueueOptions, Terms, checked_priority, checked_tags
from backlane.unique import Unique, checked_unique, key_name


class Draft(msgspec.Struct, frozen=True):
    """Jobs to be: a template, and what is only known or used when they are made."""

    template: Job
    at_ms: int | None = None  # wall clock
    id: bytes | None = None
    headers: Mapping[str, str] = {}  # as text; the template has them encoded
    terms: Terms = Terms()
    idempotency_key: str | None = None
    limits: tuple[tuple[str, Limit], ...] = ()  # of its task, by name
    unique: Unique | None = None

    def with_options(self, options: EnqueueOptions, queue: Callable[[str], Queue]) -> Draft:
        """Return a draft with these options in place of its own; `queue` finds a queue.

        Raises:
            BadOption, UnknownQueue: an option cannot work.
        """
        if "delay" in options and "at" in options:
            raise BadOption("delay and at both say when; give one of them")
        at_ms = None if "delay" in options else self.at_ms
        if "at" in options:
            at_ms = _moment_ms(options["at"])
        headers = {**self.headers, **_checked_headers(options.get("headers", {}))}
        unique = checked_unique(options["unique"]) if "unique" in options else self.unique
        template = self.template
        if "unique" in options:
            template = told_apart(template, unique, self.unique)
        template = _template(template, options, queue)
        itself = queue(template.queue)
        _check_order(itself, template, options, at_ms)
        if at_ms is None:
            check_in_time(template, unique)
        return Draft(
            replace(
                template,
                headers=encode_headers(headers) or None,
                uses=uses_of(itself, template.group, self.limits),
            ),
            at_ms,
            parse_id(options["id"]) if "id" in options else self.id,
            headers,
            _terms(self.terms, options),
            _text(options["idempotency_key"], "idempotency_key")
            if "idempotency_key" in options
            else self.idempotency_key,
            self.limits,
            unique,
        )

    def job(self, body: bytes, clock: Clock, headers: Mapping[str, str] | None = None) -> Job:
        """Return one job; `headers` replace the draft's."""
        now = clock.wall_ms()
        template = self.keyed(self._template_at(now), body)
        if headers is not None:
            template = replace(template, headers=encode_headers(headers))
        if self.idempotency_key is not None:
            template = replace(template, idempotency=_idempotency(template, self, body))
        return replace(template, id=self.id or new_id(now), body=body)

    def check_many(self) -> None:
        """Refuse options that name one job, where many are to be made.

        Raises:
            BadOption: names the option.
        """
        if self.id is not None or self.idempotency_key is not None:
            option = "idempotency_key" if self.id is None else "id"
            raise BadOption(f"{option}= names one job; enqueue many without it, or one by one")

    def check_lasting(self) -> None:
        """Refuse options that have no meaning for all that a schedule makes.

        Raises:
            BadOption: names the option.
        """
        given = {
            "id": self.id is not None,
            "idempotency_key": self.idempotency_key is not None,
            "at": self.at_ms is not None,
            "delay": self.template.delay_ms != (self.unique.wait_ms if self.unique else 0),
            "connection": self.terms.connection is not None,
            "ticket": self.terms.ticket is not None,
            "on_full": self.terms.on_full is not None,
            "on_full_timeout": self.terms.on_full_timeout_ms is not None,
        }
        for option, is_given in given.items():
            if is_given:
                raise BadOption(
                    f"{option}= is of one enqueue, and a schedule makes many; leave it out"
                )

    def jobs(self, bodies: Sequence[bytes], clock: Clock) -> list[Job]:
        """Return one job for each body, in order, each with an id of its own; see `check_many`."""
        now = clock.wall_ms()
        template = self._template_at(now)
        ids = new_ids(now, len(bodies))
        made = [replace(template, id=i, body=body) for i, body in zip(ids, bodies, strict=True)]
        if self.unique is None:
            return made
        return [self.keyed(job, job.body) for job in made]

    def keyed(self, job: Job, body: bytes) -> Job:
        """Return a job with the key that its arguments have, unless it was given one."""
        if self.unique is None or job.key is not None:
            return job
        return replace(job, key=Key(job.task or job.queue, key_name(self.unique.key, body)))

    def _template_at(self, now_ms: int) -> Job:
        running = current.get()
        if running is None and self.at_ms is None:
            return self.template
        template = self.template
        if self.at_ms is not None:
            template = replace(template, delay_ms=max(0, self.at_ms - now_ms))
            check_in_time(template)
        if running is not None:
            template = replace(template, parent=running.lease.job)
        return template


def uses_of(
    queue: Queue, group: str | None, limits: Iterable[tuple[str, Limit]] = ()
) -> tuple[Use, ...]:
    """Return all that a job of this group is under in this queue, but for the queue's own."""
    return (*queue.uses(group), *(use(name, limit, group) for name, limit in limits))


def _check_order(queue: Queue, job: Job, options: EnqueueOptions, at_ms: int | None) -> None:
    """Refuse what the order of a group leaves no room for."""
    if not queue.ordering or not job.group:
        return
    given = "delay" if job.delay_ms else "at" if at_ms is not None else None
    given = "priority" if "priority" in options else given
    if given:
        raise BadOption(
            f"queue {queue.name!r} runs the jobs of a group in the order of their enqueue, and "
            f"{given}= asks for another; leave it out, or leave group= out for a job whose order "
            "does not matter"
        )


def _template(template: Job, options: EnqueueOptions, queue: Callable[[str], Queue]) -> Job:
    if "delay" in options:
        template = replace(template, delay_ms=milliseconds(options["delay"], "delay"))
    if "expires" in options:
        template = replace(template, expires_ms=milliseconds(options["expires"], "expires"))
    if "priority" in options:
        template = replace(template, priority=checked_priority(options["priority"]))
    if "queue" in options:
        template = replace(template, queue=queue(options["queue"]).name)
    if "key" in options:
        scope = template.task or template.queue
        template = replace(template, key=Key(scope, _text(options["key"], "key")))
    if "group" in options:
        template = replace(template, group=_text(options["group"], "group"))
    if "tags" in options:
        tags = checked_tags((*template.tags, *checked_tags(options["tags"])))
        template = replace(template, tags=tags)
    return template


def told_apart(template: Job, unique: Unique | None, before: Unique | None = None) -> Job:
    """Return a template whose jobs are the same as `unique` says, and no more as `before`."""
    rule = DEFAULT_RULE if unique is None else unique.rule
    delay_ms = template.delay_ms
    if delay_ms == (0 if before is None else before.wait_ms):  # nobody gave another
        delay_ms = 0 if unique is None else unique.wait_ms
    return replace(template, rule=rule, delay_ms=delay_ms)


def _terms(terms: Terms, options: EnqueueOptions) -> Terms:
    if "connection" in options:
        terms = replace(terms, connection=options["connection"])
    if "on_full" in options:
        terms = replace(terms, on_full=checked_on_full(options["on_full"]))
    if "on_full_timeout" in options:
        timeout_ms = milliseconds(options["on_full_timeout"], "on_full_timeout")
        terms = replace(terms, on_full_timeout_ms=timeout_ms)
    if "ticket" in options:
        terms = replace(terms, ticket=_ticket(options["ticket"]))
    if terms.connection is not None and terms.on_full == "wait":
        raise BadOption(
            "connection= and on_full='wait' do not go together: your open transaction would keep "
            "everybody from making room; enqueue outside of it, or leave on_full out and retry "
            "the transaction on QueueFull"
        )
    return terms


def _idempotency(template: Job, draft: Draft, body: bytes) -> Idempotency:
    """Return what tells a request that comes again from one that only has the same key.

    What differs from try to try is no part of it: the id, headers, and a delay, which may
    have been counted from another moment.
    """
    import hashlib  # few ask for it, and an import of it takes 2 ms

    asked = (template.task, template.queue, template.group, template.key, body)
    return Idempotency(
        template.task or template.queue,
        draft.idempotency_key or "",
        hashlib.blake2b(msgspec.msgpack.encode(asked), digest_size=16).digest(),
    )


def check_in_time(template: Job, unique: Unique | None = None) -> None:
    """Refuse jobs that would expire before they are due.

    Raises:
        BadOption: says how long both are.
    """
    if unique is not None and unique.on_conflict == "debounce" and template.expires_ms is not None:
        most_ms = unique.rule.most_ms
        if most_ms is None or most_ms >= template.expires_ms:
            raise BadOption(
                f"expires is {template.expires_ms / 1000:g} s, counted from the first call, and "
                "debounce may put the job off for longer: it would never run; give max_wait, "
                "shorter than expires"
            )
    if template.expires_ms is not None and template.delay_ms >= template.expires_ms:
        raise BadOption(
            f"due in {template.delay_ms / 1000:g} s, and expires {template.expires_ms / 1000:g} s "
            "after the enqueue: it would never run; expires is counted from the enqueue, so make "
            "it longer than the delay"
        )


TEXT_LIMIT = 256  # of a key or group: it is part of an index


def _text(given: str, option: str) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= TEXT_LIMIT:
        raise BadOption(f"{option} is {given!r}; use a text of 1 to {TEXT_LIMIT} characters")
    if not given.isascii():
        try:
            given.encode()
        except UnicodeEncodeError as error:
            raise BadOption(
                f"{option} is {given!r}, with half a character (a lone surrogate) in it; use text "
                "that was decoded without errors='surrogateescape'"
            ) from error
    return given


def _ticket(given: str | None) -> str | None:
    """Return a ticket unread: whatever is wrong with its text, it only counts as none."""
    if given is not None and not isinstance(given, str):
        raise BadOption(f"ticket is {given!r:.100}; use `ticket` of the QueueFull, a text or None")
    return given or None


def _checked_headers(given: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(given, Mapping):
        raise BadOption(f"headers is {given!r:.200}; use a dict of text to text")
    return given


def _moment_ms(at: datetime) -> int:
    if not isinstance(at, datetime):
        raise BadOption(f"at is {at!r}; use a datetime with a time zone, or delay= for a duration")
    if at.tzinfo is None:
        raise BadOption(
            f"at is {at.isoformat()} without a time zone, so it could mean several moments; "
            "use datetime(…, tzinfo=…)"
        )
    return int(at.timestamp() * 1000)
