"""Uniqueness: which calls of a task are the same, for how long, and what becomes of the second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal, Self, get_args

import msgspec

from backlane.errors import BadOption, nearest
from backlane.model.job import KeyRule
from backlane.model.option import check_options
from backlane.model.retry import Duration, milliseconds

Until = Literal["started", "finished", "succeeded"]
OnConflict = Literal["existing", "raise", "replace", "debounce"]

NAME_LIMIT = 256  # characters of a key: it is part of an index
KEPT = 200  # of a longer one, before the digest of all of it
NEWEST = ("replace", "debounce")


@dataclass(frozen=True, slots=True)
class Unique:
    """What makes two calls of a task the same job.

    Args:
        until: how long a job holds its key. `"started"`: until a worker takes it;
            `"finished"`: until it has ended, however; `"succeeded"`: also while it is a dead
            letter. Without it `"finished"`, or `"started"` where the newest arguments win.
        window: instead of `until`: for so long from the enqueue on, whatever becomes of it.
        on_conflict: what becomes of a call whose key is held. `"existing"`: it is answered
            with the job that holds it; `"raise"`: `Duplicate`; `"replace"`: the waiting job
            takes its arguments and due time; `"debounce"`: as replace, and the job is put
            off by `wait` again.
        wait: of `"debounce"`: how long after the latest call the job is due.
        max_wait: of `"debounce"`: how long after the first call it is due at the latest.
        key: a template over the arguments, such as `"welcome:{user_id}"`; without it all
            arguments together are the key.

    Raises:
        BadOption: a value, or what two of them mean together, cannot work.
        UnknownOption: an option does not exist; names the nearest one that does.

    .. versionadded:: 0.1
    """

    until: Until | None = None
    window: Duration | None = None
    on_conflict: OnConflict = "existing"
    wait: Duration | None = None
    max_wait: Duration | None = None
    key: str | None = None

    def __new__(cls, *_: Any, **options: Any) -> Self:
        check_options(options, cls.__dataclass_fields__, "Unique()")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for option, known in (("until", get_args(Until)), ("on_conflict", get_args(OnConflict))):
            given = getattr(self, option)
            if given not in known and not (option == "until" and given is None):
                listed = ", ".join(repr(each) for each in known)
                raise BadOption(f"{option} is {given!r}; use one of {listed}")
        self._check_time()
        self._check_debounce()
        if self.key is not None:
            fields(self.key)

    def _check_time(self) -> None:
        if self.window is not None:
            if milliseconds(self.window, "window") == 0:
                raise BadOption("window is 0, in which nothing could be the same; use a longer one")
            if self.until is not None:
                raise BadOption(
                    "until and window both say how long a key is held; give one of them"
                )
        if self.on_conflict in NEWEST and (self.window is not None or self.holds != "started"):
            held = "window" if self.window is not None else f"until={self.until!r}"
            raise BadOption(
                f"on_conflict={self.on_conflict!r} and {held} do not go together: while the job "
                "runs it would still hold its key, and the newest arguments would be dropped; "
                "use until='started'"
            )

    def _check_debounce(self) -> None:
        if self.on_conflict != "debounce":
            for option in ("wait", "max_wait"):
                if getattr(self, option) is not None:
                    raise BadOption(f"{option} goes with on_conflict='debounce'; leave it out")
            return
        if self.wait is None or milliseconds(self.wait, "wait") == 0:
            raise BadOption(
                f"wait is {self.wait!r}; with on_conflict='debounce' say how long after the latest "
                "call the job is due, such as wait=5"
            )
        if self.max_wait is not None and milliseconds(self.max_wait, "max_wait") < self.wait_ms:
            raise BadOption(
                f"max_wait is {self.max_wait!r}, shorter than wait, {self.wait!r}; make it longer"
            )

    @property
    def holds(self) -> Until:
        """Until when a job holds its key, if no window says so."""
        return self.until or ("started" if self.on_conflict in NEWEST else "finished")

    @property
    def wait_ms(self) -> int:
        return 0 if self.wait is None else milliseconds(self.wait, "wait")

    @property
    def rule(self) -> KeyRule:
        """What a store is told."""
        return KeyRule(
            self.holds,
            None if self.window is None else milliseconds(self.window, "window"),
            self.on_conflict,
            None if self.max_wait is None else milliseconds(self.max_wait, "max_wait"),
        )


def checked_unique(given: Unique | None, of: str = "") -> Unique | None:
    """Return what makes calls the same, or refuse what cannot; `of` begins the message.

    Raises:
        BadOption: it is no `Unique`.
    """
    if given is not None and not isinstance(given, Unique):
        raise BadOption(f"{of}unique is {given!r:.200}; use Unique(…), or None")
    return given


def fields(template: str) -> list[tuple[str, str | None]]:
    """Return what a template of a key is made of: text, and the name of an argument behind it.

    Raises:
        BadOption: it cannot be read, or is the same for all arguments.
    """
    if not isinstance(template, str) or not template:
        raise BadOption(f"key is {template!r}; use a template such as 'welcome:{{user_id}}'")
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise BadOption(f"key {template!r} cannot be read: {error}") from error
    for _, name, form, conversion in parts:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise BadOption(
                f"key {template!r}: between braces use the name of an argument and nothing else, "
                "such as 'welcome:{user_id}'"
            )
    return [(text, name) for text, name, _, _ in parts]


def check_names(unique: Unique, known: Iterable[str], of: str) -> None:
    """Refuse a template that names no argument.

    Raises:
        BadOption: names the nearest argument.
    """
    known = list(known)
    for _, name in [] if unique.key is None else fields(unique.key):
        if name is not None and name not in known:
            listed = ", ".join(known) or "none"
            raise BadOption(
                f"{of}: key {unique.key!r} names {name!r}, which is no argument"
                f"{nearest(name, known)}; it has {listed}"
            )


def key_name(template: str | None, body: bytes) -> str:
    """Return the key of a call by its encoded arguments."""
    import hashlib  # as in draft.py

    arguments = msgspec.json.decode(body)
    if template is None:
        whole = msgspec.json.encode(arguments, order="sorted")
        return hashlib.blake2b(whole, digest_size=16).hexdigest()
    made = "".join(
        text + ("" if name is None else _spelled(arguments[name]))
        for text, name in fields(template)
    )
    if len(made) <= NAME_LIMIT:
        return made
    return f"{made[:KEPT]}:{hashlib.blake2b(made.encode(), digest_size=16).hexdigest()}"


def _spelled(value: object) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value, order="sorted").decode()
